"""The docker command's links: `--link` on the default bridge and in a network of one's own, `rm --link`.

The sentences, variables and lines of /etc/hosts are those that Docker gave to the same commands.
"""

import json

import pytest

from tests.conftest import EngineProcess


@pytest.fixture
def db(engine: EngineProcess) -> str:
    """A container to link to; its short id."""
    options = ["-e", "FOO=bar", "-e", "EMPTY=", "--expose", "81", "--expose", "80/udp", "-p", "9999"]
    done = engine.docker("run", "-d", "--name", "db", *options, "busybox", "sleep", "1000")
    return done.stdout.strip()[:12]


def address(engine: EngineProcess, name: str) -> str:
    template = "{{.NetworkSettings.Networks.bridge.IPAddress}}"
    return engine.docker("inspect", "-f", template, name).stdout.strip()


def links(engine: EngineProcess, name: str) -> object:
    return json.loads(engine.docker("inspect", "-f", "{{json .HostConfig.Links}}", name).stdout)


def test_variables(engine: EngineProcess, db: str) -> None:
    command = ["run", "--rm", "--name", "web", "--link", "db:my-store", "busybox", "env"]
    ip = address(engine, "db")
    told = [line for line in engine.docker(*command).stdout.splitlines() if line.startswith("MY_STORE")]
    # The docker command sends variables in any order.
    assert [*told[:-2], *sorted(told[-2:])] == [
        f"MY_STORE_PORT=udp://{ip}:80",
        f"MY_STORE_PORT_80_UDP=udp://{ip}:80",
        f"MY_STORE_PORT_80_UDP_ADDR={ip}",
        "MY_STORE_PORT_80_UDP_PORT=80",
        "MY_STORE_PORT_80_UDP_PROTO=udp",
        f"MY_STORE_PORT_81_TCP=tcp://{ip}:81",
        f"MY_STORE_PORT_81_TCP_ADDR={ip}",
        "MY_STORE_PORT_81_TCP_PORT=81",
        "MY_STORE_PORT_81_TCP_PROTO=tcp",
        f"MY_STORE_PORT_9999_TCP=tcp://{ip}:9999",
        f"MY_STORE_PORT_9999_TCP_ADDR={ip}",
        "MY_STORE_PORT_9999_TCP_PORT=9999",
        "MY_STORE_PORT_9999_TCP_PROTO=tcp",
        "MY_STORE_NAME=/web/my-store",
        "MY_STORE_ENV_EMPTY=",
        "MY_STORE_ENV_FOO=bar",
    ]


def test_variables_of_a_range_of_ports(engine: EngineProcess) -> None:
    ports = ["--expose", "80-82", "--expose", "90-91"]
    engine.docker("run", "-d", "--name", "db", *ports, "busybox", "sleep", "1000")
    told = engine.docker("run", "--rm", "--link", "db", "busybox", "env").stdout.splitlines()
    ip = address(engine, "db")
    assert [line for line in told if "START" in line or "END" in line] == [
        f"DB_PORT_80_TCP_START=tcp://{ip}:80",
        "DB_PORT_80_TCP_PORT_START=80",
        f"DB_PORT_80_TCP_END=tcp://{ip}:82",
        "DB_PORT_80_TCP_PORT_END=82",
    ]


def test_hosts(engine: EngineProcess, db: str) -> None:
    """Alias, hostname and name of the other one; and an exec sees the variables too."""
    engine.docker("run", "-d", "--name", "web", "--link", "db:store", "busybox", "sleep", "1000")
    ip = address(engine, "db")
    lines = engine.docker("exec", "web", "cat", "/etc/hosts").stdout.splitlines()
    assert lines[-2] == f"{ip}\tstore {db} db"
    assert engine.docker("exec", "web", "ping", "-c1", "-w5", "store").returncode == 0
    assert f"STORE_PORT=udp://{ip}:80" in engine.docker("exec", "web", "env").stdout.splitlines()


def test_hosts_follow_a_new_address(engine: EngineProcess, db: str) -> None:
    engine.docker("run", "-d", "--name", "web", "--link", "db", "busybox", "sleep", "1000")
    before = address(engine, "db")
    engine.docker("stop", "-t", "0", "db")
    engine.docker("run", "-d", "--name", "other", "busybox", "sleep", "1000")
    engine.docker("start", "db")
    ip = address(engine, "db")
    assert ip != before
    assert engine.docker("exec", "web", "tail", "-2", "/etc/hosts").stdout.startswith(f"{ip}\tdb {db}\n")
    # What it was told by variables at its start does not change.
    assert f"DB_PORT_81_TCP_ADDR={before}" in engine.docker("exec", "web", "cat", "/proc/1/environ").stdout


def test_a_link_is_a_name(engine: EngineProcess, db: str) -> None:
    engine.docker("create", "--name", "web", "--link", "db:store", "--link", "db", "busybox", "true")
    assert links(engine, "web") == ["/db:/web/store", "/db:/web/db"]
    listed = engine.docker("ps", "--no-trunc", "--format", "{{.Names}}").stdout
    assert listed == "db,web/store,web/db\n"
    assert engine.docker("inspect", "-f", "{{.Name}}", "web/store").stdout == "/db\n"
    engine.docker("rename", "web", "web2")
    engine.docker("rename", "db", "db2")
    assert links(engine, "web2") == ["/db2:/web2/store", "/db2:/web2/db"]


def test_removing_a_link(engine: EngineProcess, db: str) -> None:
    engine.docker("run", "-d", "--name", "web", "--link", "db:store", "busybox", "sleep", "1000")
    done = engine.docker("rm", "--link", "web/store")
    assert (done.stdout, done.stderr) == ("web/store\n", "")
    assert links(engine, "web") is None
    assert "store" not in engine.docker("exec", "web", "cat", "/etc/hosts").stdout
    assert engine.docker("ps", "-q").stdout.count("\n") == 2
    refused = engine.docker("rm", "--link", "web").stderr
    assert "Conflict, cannot remove the default link name of the container" in refused


def test_links_that_lead_nowhere(engine: EngineProcess, db: str) -> None:
    missing = engine.docker("run", "--link", "nosuch:x", "busybox", "true")
    assert missing.returncode == 125
    assert "could not get container for nosuch: No such container: nosuch" in missing.stderr
    engine.docker("create", "--name", "web", "--link", "db:store", "busybox", "true")
    engine.docker("rm", "-f", "db")
    stopped = engine.docker("start", "web")
    assert stopped.returncode == 1
    assert "Cannot link to a non running container: /db AS /web/store" in stopped.stderr
    assert links(engine, "web") == ["/db:/web/store"]


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        ("none", "Cannot link to /apart, as it does not belong to the default network"),
        (
            "host",
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior",
        ),
    ],
)
def test_links_to_where_there_is_no_address(engine: EngineProcess, network: str, sentence: str) -> None:
    engine.docker("run", "-d", "--name", "apart", "--network", network, "busybox", "sleep", "1000")
    refused = engine.docker("run", "--rm", "--link", "apart:x", "busybox", "true")
    assert refused.returncode == 125
    assert sentence in refused.stderr


def test_a_link_survives_the_engine(own_engine: EngineProcess) -> None:
    own_engine.start()
    own_engine.docker("run", "-d", "--name", "db", "busybox", "sleep", "1000")
    own_engine.docker("run", "-d", "--name", "web", "--link", "db:store", "busybox", "sleep", "1000")
    own_engine.kill()
    own_engine.start()
    assert links(own_engine, "web") == ["/db:/web/store"]
    assert own_engine.docker("inspect", "-f", "{{.Name}}", "web/store").stdout == "/db\n"
    assert own_engine.docker("exec", "web", "ping", "-c1", "-w5", "store").returncode == 0


def test_in_a_network_of_ones_own_a_link_is_an_alias_for_one(engine: EngineProcess) -> None:
    engine.docker("network", "create", "mynet")
    engine.docker("run", "-d", "--name", "db", "--network", "mynet", "busybox", "sleep", "1000")
    linked = ["run", "-d", "--name", "web", "--network", "mynet", "--link", "db:Store", "busybox"]
    assert engine.docker(*linked, "sleep", "1000").returncode == 0
    find = ["nslookup", "store", "127.0.0.11"]
    assert engine.docker("exec", "web", *find).returncode == 0
    assert engine.docker("exec", "db", *find).returncode == 1
    assert "STORE" not in engine.docker("exec", "web", "env").stdout
    shown = "{{json .HostConfig.Links}} {{json .NetworkSettings.Networks.mynet.Links}}"
    assert engine.docker("inspect", "-f", shown, "web").stdout == 'null ["db:Store"]\n'
    # It need not lead anywhere.
    engine.docker("rm", "-f", "db")
    assert engine.docker("restart", "-t", "0", "web").returncode == 0
    assert engine.docker("exec", "web", *find).returncode == 1
