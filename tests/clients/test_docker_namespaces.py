"""The docker command's namespaces: `--pid`, `--ipc`, `--uts`, `--cgroupns`, `--userns`, `--network`.

The sentences are those that Docker answered to the same commands.
"""

import os
from pathlib import Path

import pytest

from tests.conftest import EngineProcess


@pytest.fixture
def box(engine: EngineProcess) -> str:
    """A running container; its id."""
    return engine.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000").stdout.strip()


def shell(engine: EngineProcess, *options: str, script: str) -> str:
    done = engine.docker("run", "--rm", *options, "busybox", "sh", "-c", script)
    return done.stdout + done.stderr


def own(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "net", "cgroup", "mnt"])
def test_namespaces_are_the_containers_own(engine: EngineProcess, kind: str) -> None:
    assert shell(engine, script=f"readlink /proc/self/ns/{kind}").strip() != own(kind)


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("--pid=host", "pid"),
        ("--ipc=host", "ipc"),
        ("--uts=host", "uts"),
        ("--network=host", "net"),
        ("--cgroupns=host", "cgroup"),
        ("--userns=host", "user"),
    ],
)
def test_namespaces_of_the_host(engine: EngineProcess, option: str, kind: str) -> None:
    assert shell(engine, option, script=f"readlink /proc/self/ns/{kind}").strip() == own(kind)


def test_pid_of_another(engine: EngineProcess, box: str) -> None:
    assert "sleep 1000" in shell(engine, "--pid", "container:box", script="ps -o args")
    engine.docker("create", "--name", "with", "--pid", "container:box", "busybox", "true")
    assert engine.docker("inspect", "-f", "{{.HostConfig.PidMode}}", "with").stdout == f"container:{box}\n"


def test_network_of_another(engine: EngineProcess, box: str) -> None:
    """Its interfaces, its names, and its files of /etc."""
    script = "cat /sys/class/net/eth0/address; cat /etc/hosts; hostname"
    of_box = engine.docker("exec", "box", "sh", "-c", script).stdout
    assert shell(engine, "--network", "container:box", script=script) == of_box
    engine.docker("create", "--name", "with", "--network", "container:box", "busybox", "true")
    mode = engine.docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", "with").stdout
    assert mode == f"container:{box}\n"


def test_ipc_of_another(engine: EngineProcess) -> None:
    """System V and POSIX both; the mount that they share goes with its owner."""
    engine.docker("run", "-d", "--name", "owner", "--ipc", "shareable", "busybox", "sleep", "1000")
    engine.docker("exec", "owner", "sh", "-c", "echo kept > /dev/shm/file")
    script = "readlink /proc/self/ns/ipc; cat /dev/shm/file; touch /dev/shm/back"
    joined = shell(engine, "--ipc", "container:owner", script=script).splitlines()
    assert joined == [
        engine.docker("exec", "owner", "readlink", "/proc/self/ns/ipc").stdout.strip(),
        "kept",
    ]
    assert engine.docker("exec", "owner", "ls", "/dev/shm").stdout == "back\nfile\n"
    identity = engine.docker("inspect", "-f", "{{.Id}}", "owner").stdout.strip()
    assert identity in Path("/proc/self/mountinfo").read_text()
    engine.docker("restart", "-t", "0", "owner")
    assert engine.docker("exec", "owner", "ls", "/dev/shm").stdout == ""
    engine.docker("rm", "-f", "owner")
    assert f"{identity}/shm" not in Path("/proc/self/mountinfo").read_text()


def test_shared_memory_of_a_container_that_outlived_its_engine(own_engine: EngineProcess) -> None:
    """It ends while no engine runs: the next one takes the mount away."""
    own_engine.start()
    started = own_engine.docker("run", "-d", "--ipc", "shareable", "busybox", "sleep", "1000")
    identity = started.stdout.strip()
    pid = own_engine.docker("inspect", "-f", "{{.State.Pid}}", identity).stdout.strip()
    own_engine.kill()
    os.kill(int(pid), 9)
    own_engine.start()
    own_engine.docker("wait", identity)
    own_engine.docker("rm", identity)
    assert f"{identity}/shm" not in Path("/proc/self/mountinfo").read_text()


def test_no_shared_memory(engine: EngineProcess) -> None:
    assert "No such file" in shell(engine, "--ipc", "none", script="ls /dev/shm")


def test_size_of_shared_memory(engine: EngineProcess) -> None:
    show = "df -k /dev/shm | tail -1 | awk '{print $2}'"
    assert shell(engine, script=show) == "65536\n"
    assert shell(engine, "--shm-size", "8m", script=show) == "8192\n"
    assert shell(engine, "--shm-size", "8m", "--ipc", "shareable", script=show) == "8192\n"


def test_names_of_the_host(engine: EngineProcess) -> None:
    host = os.uname().nodename
    assert shell(engine, "--uts", "host", script="hostname") == f"{host}\n"
    told = shell(engine, "--network", "host", script="hostname; cat /etc/hosts")
    assert told == f"{host}\n" + Path("/etc/hosts").read_text()
    assert shell(engine, "--network", "host", "-h", "other", script="hostname; echo $HOSTNAME") == (
        "other\nother\n"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--pid container:nosuch", "No such container: nosuch"),
        ("--ipc container:nosuch", "No such container: nosuch"),
        ("--network container:", "Invalid network mode: invalid container format container:<name|id>"),
        ("--network container:box -h x", "conflicting options: hostname and the network mode"),
        ("--network container:box --dns 1.1.1.1", "conflicting options: dns and the network mode"),
        (
            "--network container:box --add-host a:1.1.1.1",
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            "--network container:box -p 80:80",
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "--network container:box -P",
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "--network container:box --expose 80",
            "conflicting options: port exposing and the container type network mode",
        ),
        (
            "--network container:box --link box",
            "conflicting options: container type network can't be used with links. "
            "This would result in undefined behavior",
        ),
        (
            "--network host --link box",
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior",
        ),
        ("--uts host -h x", "conflicting options: hostname and the UTS mode"),
    ],
)
def test_what_create_refuses(engine: EngineProcess, options: str, sentence: str) -> None:
    refused = engine.docker("create", *options.split(), "busybox", "true")
    assert refused.returncode == 1
    assert f"Error response from daemon: {sentence}" in refused.stderr
    assert engine.docker("ps", "-aq").stdout == ""


def test_what_does_not_run_cannot_be_joined(engine: EngineProcess) -> None:
    identity = engine.docker("create", "--name", "box", "busybox", "true").stdout.strip()
    for option, sentence in (
        ("--network", f"cannot join network of a non running container: {identity}"),
        ("--pid", f"container {identity} is not running"),
        ("--ipc", f"can't join IPC of container {identity}: container {identity} is not running"),
    ):
        refused = engine.docker("run", "--rm", option, "container:box", "busybox", "true")
        assert refused.returncode == 125
        assert f"Error response from daemon: {sentence}\n" in refused.stderr


def test_ipc_that_is_not_shareable(engine: EngineProcess, box: str) -> None:
    refused = engine.docker("run", "--rm", "--ipc", "container:box", "busybox", "true")
    assert refused.returncode == 125
    assert (
        f"can't join IPC of container {box}: non-shareable IPC "
        "(hint: use IpcMode:shareable for the donor container)"
    ) in refused.stderr


def test_what_is_missing_is_missed_at_the_start(engine: EngineProcess) -> None:
    """As with Docker: the container is there, and may be started once the other one is."""
    for mode, sentence in (
        ("container:nosuch", "No such container: nosuch"),
        ("nosuch", "network nosuch not found"),
    ):
        refused = engine.docker("run", "--name", "box", "--network", mode, "busybox", "true")
        assert refused.returncode == 125
        assert f"Error response from daemon: {sentence}" in refused.stderr
        assert "Unable to find image" not in refused.stderr
        assert engine.docker("inspect", "-f", "{{.State.Status}}", "box").stdout == "created\n"
        engine.docker("rm", "box")
