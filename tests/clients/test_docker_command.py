"""The docker command against our engine: output, exit codes and sentences as with Docker's own."""

import re
import socket
import subprocess
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import EngineProcess


def run(engine: EngineProcess, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return engine.docker("run", "--rm", *arguments, **options)


RUNTIME = (
    "docker: Error response from daemon: failed to create task for container: failed to create shim task: "
    "OCI runtime create failed: runc create failed: unable to start container process: "
)


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["busybox", "echo", "hi"], 0, "hi\n"),
        (["busybox", "sh", "-c", "exit 3"], 3, ""),
        (["--init", "busybox", "sh", "-c", "kill -9 $$"], 137, ""),
        (["-e", "A=b", "busybox", "sh", "-c", "echo $A"], 0, "b\n"),
        (["-w", "/made/here", "busybox", "pwd"], 0, "/made/here\n"),
        (["-h", "box", "busybox", "hostname"], 0, "box\n"),
        (["-u", "1000:1001", "busybox", "id", "-u"], 0, "1000\n"),
        (["-u", "1000:1001", "busybox", "id", "-g"], 0, "1001\n"),
        (["--entrypoint", "echo", "busybox", "x"], 0, "x\n"),
        (["--read-only", "busybox", "touch", "/x"], 1, ""),
        (["--tmpfs", "/t", "busybox", "sh", "-c", "stat -f -c %T /t"], 0, "tmpfs\n"),
        (["--network", "none", "busybox", "sh", "-c", "ls /sys/class/net"], 0, "lo\n"),
        (["--add-host", "a.b:1.2.3.4", "busybox", "grep", "-F", "a.b", "/etc/hosts"], 0, "1.2.3.4\ta.b\n"),
        (["--dns", "9.9.9.9", "busybox", "grep", "9.9.9.9", "/etc/resolv.conf"], 0, "nameserver 9.9.9.9\n"),
        (["--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"], 0, "100\n200\n"),
        (
            ["--shm-size", "8m", "busybox", "sh", "-c", "df /dev/shm | tail -1 | awk '{print $2}'"],
            0,
            "8192\n",
        ),
        (["--sysctl", "net.core.somaxconn=77", "busybox", "cat", "/proc/sys/net/core/somaxconn"], 0, "77\n"),
        (["--init", "busybox", "sh", "-c", "exit 9"], 9, ""),
        (["-t", "busybox", "sh", "-c", "test -t 0 && echo tty"], 0, "tty\n"),
        (["--cap-drop", "ALL", "busybox", "chown", "1:1", "/bin"], 1, ""),
        (["--pid", "host", "busybox", "sh", "-c", "test -d /proc/2 && echo host"], 0, "host\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_run(engine: EngineProcess, arguments: list[str], code: int, output: str) -> None:
    done = run(engine, *arguments)
    assert (done.returncode, done.stdout) == (code, output), done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["busybox", "nosuch"], 127, RUNTIME + 'exec: "nosuch": executable file not found in $PATH: unknown'),
        (["busybox", "/etc"], 126, RUNTIME + 'exec: "/etc": is a directory: unknown'),
        (["busybox", "/etc/passwd"], 126, RUNTIME + 'exec: "/etc/passwd": permission denied: unknown'),
        (
            ["-u", "nobodyknows", "busybox", "id"],
            125,
            "unable to find user nobodyknows: no matching entries in passwd",
        ),
        (["--memory", "1m", "busybox", "true"], 125, "Minimum memory limit allowed is 6MB"),
        (["--security-opt", "nonsense", "busybox", "true"], 125, 'nvalid --security-opt: "nonsense"'),
        (
            ["--gpus", "all", "busybox", "true"],
            125,
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
        (
            ["--name", "_x", "busybox", "true"],
            125,
            "Invalid container name (_x), only [a-zA-Z0-9][a-zA-Z0-9_.-]",
        ),
        (["-v", "data:relative", "busybox", "true"], 125, "mount path must be absolute"),
        (
            ["--mount", "type=bind,src=/no/where,dst=/x", "busybox", "true"],
            125,
            "bind source path does not exist: /no/where",
        ),
        (["--network", "nosuch", "busybox", "true"], 125, "network nosuch not found"),
        (
            ["--log-driver", "syslogg", "busybox", "true"],
            125,
            'error looking up logging plugin syslogg: plugin "syslogg" not found',
        ),
        (["Bad:Name:", "true"], 125, "invalid reference format"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals(engine: EngineProcess, arguments: list[str], code: int, sentence: str) -> None:
    done = run(engine, *arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert engine.docker("ps", "-aq").stdout == ""


def test_stdin_reaches_the_program_and_ends(engine: EngineProcess) -> None:
    done = run(engine, "-i", "busybox", "sh", "-c", "cat; echo end", input="some\ntext\n")
    assert done.stdout == "some\ntext\nend\n"


def test_stdout_and_stderr_are_apart(engine: EngineProcess) -> None:
    done = run(engine, "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_exec(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "box", "-e", "A=1", "busybox", "sleep", "1000")
    assert engine.docker("exec", "box", "sh", "-c", "echo $A; exit 5").returncode == 5
    assert (
        engine.docker("exec", "-e", "A=2", "-w", "/tmp", "box", "sh", "-c", "echo $A $PWD").stdout
        == "2 /tmp\n"
    )
    assert engine.docker("exec", "-i", "box", "cat", input="hello").stdout == "hello"
    assert engine.docker("exec", "-u", "7", "box", "id", "-u").stdout == "7\n"
    missing = engine.docker("exec", "box", "nosuch")
    assert missing.returncode == 127
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.stdout + missing.stderr


def test_published_port_and_a_taken_one(engine: EngineProcess) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = "mkdir /w; echo served > /w/index.html; exec httpd -f -h /w -p 80"
    assert (
        engine.docker(
            "run", "-d", "--name", "web", "-p", f"{port}:80", "busybox", "sh", "-c", serve
        ).returncode
        == 0
    )
    assert _fetch(f"http://127.0.0.1:{port}/") == "served\n"
    assert engine.docker("port", "web").stdout == f"80/tcp -> 0.0.0.0:{port}\n"
    taken = engine.docker("run", "-d", "--name", "web2", "-p", f"{port}:80", "busybox", "sleep", "1000")
    assert taken.returncode == 125
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in taken.stderr
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "web2").stdout == "created\n"
    engine.docker("rm", "-f", "web")
    assert engine.docker("start", "web2").returncode == 0


def _fetch(url: str) -> str:
    """The server in the container needs a moment to listen: connect until it does."""
    for _ in range(200):
        try:
            return urllib.request.urlopen(url, timeout=5).read().decode()
        except OSError as error:
            last = error
    raise last


def test_names_inside_a_network_of_ones_own(engine: EngineProcess) -> None:
    engine.docker("network", "create", "mynet")
    engine.docker(
        "run",
        "-d",
        "--name",
        "db",
        "--network",
        "mynet",
        "--network-alias",
        "store",
        "busybox",
        "sleep",
        "1000",
    )
    for name in ("db", "store"):
        found = run(engine, "--network", "mynet", "busybox", "nslookup", name, "127.0.0.11")
        assert found.returncode == 0, found.stdout + found.stderr
    refused = engine.docker("network", "rm", "mynet")
    assert re.search(
        r"error while removing network: network mynet id [0-9a-f]{64} has active endpoints", refused.stderr
    )


def test_life_of_a_container(engine: EngineProcess) -> None:
    def status() -> str:
        return engine.docker("inspect", "-f", "{{.State.Status}}", "box").stdout.strip()

    engine.docker(
        "create", "--name", "box", "busybox", "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.1; done"
    )
    assert status() == "created"
    engine.docker("start", "box")
    assert status() == "running"
    engine.docker("pause", "box")
    assert status() == "paused"
    engine.docker("unpause", "box")
    assert "remove" in engine.docker("rm", "box").stderr
    engine.docker("stop", "box")
    assert status() == "exited"
    assert engine.docker("wait", "box").stdout == "4\n"
    engine.docker("rename", "box", "box2")
    assert engine.docker("rm", "box2").returncode == 0


def test_logs(engine: EngineProcess) -> None:
    engine.docker("run", "--name", "box", "busybox", "sh", "-c", "seq 1 10; echo err >&2")
    assert engine.docker("logs", "box").stdout == "".join(f"{n}\n" for n in range(1, 11))
    assert engine.docker("logs", "box").stderr == "err\n"
    assert engine.docker("logs", "--tail", "3", "box").stdout.splitlines()[-1] == "10"
    stamped = engine.docker("logs", "-t", "box").stdout.splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z 1", stamped)


def test_following_logs_ends_with_the_container(engine: EngineProcess) -> None:
    script = "for i in 1 2 3; do echo $i; sleep 0.1; done"
    engine.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    assert engine.docker("logs", "-f", "box").stdout == "1\n2\n3\n"


def test_ps_filters_and_columns(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "up", "--label", "a=1", "busybox", "sleep", "1000")
    engine.docker("run", "--name", "down", "busybox", "false")

    def names(*arguments: str) -> list[str]:
        return engine.docker("ps", "--format", "{{.Names}}", *arguments).stdout.split()

    assert names() == ["up"]
    assert names("-a") == ["down", "up"]
    assert names("-a", "--filter", "exited=1") == ["down"]
    assert names("--filter", "label=a=1") == ["up"]
    assert names("-a", "--filter", "label=a=2") == []
    assert names("-a", "--filter", "name=^/do") == ["down"]
    assert names("-n", "1") == ["down"]
    assert engine.docker("ps", "--format", "{{.Status}}").stdout.startswith("Up ")


def test_diff_top_and_stats(engine: EngineProcess) -> None:
    engine.docker(
        "run", "-d", "--name", "box", "busybox", "sh", "-c", "echo x > /new; rm /etc/group; sleep 1000"
    )
    assert "sleep 1000" in engine.docker("top", "box").stdout
    changes = engine.docker("diff", "box").stdout.splitlines()
    assert "A /new" in changes
    assert "D /etc/group" in changes
    usage = engine.docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "box").stdout
    assert usage == "box 1\n" or usage == "box 2\n"


def test_privileged_sees_devices_and_has_all_capabilities(engine: EngineProcess) -> None:
    plain = run(engine, "busybox", "grep", "CapEff", "/proc/self/status").stdout.split()[1]
    assert plain == "00000000a80425fb"
    privileged = run(engine, "--privileged", "busybox", "grep", "CapEff", "/proc/self/status").stdout.split()[
        1
    ]
    assert int(privileged, 16) & (1 << 21), "CAP_SYS_ADMIN"


def test_host_image(engine: EngineProcess) -> None:
    marker = Path("/etc/dockmagic-host-test")
    done = run(engine, "host", "sh", "-c", f"cat /etc/os-release; echo x > {marker}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == Path("/etc/os-release").read_text()
    assert not marker.exists()


def test_events(engine: EngineProcess) -> None:
    run(engine, "--name", "seen", "busybox", "true")
    # The command rounds `--until` down to whole seconds; the API does not.
    with closing(engine.client()) as client:
        filters = {"container": "seen"}
        seen = client.events(since=time.time() - 60, until=time.time() + 0.1, filters=filters, decode=True)
        actions = [event["Action"] for event in seen]
    assert [action for action in actions if action != "attach"] == ["create", "start", "die", "destroy"]


def test_build_and_run(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM busybox\nRUN echo built > /file\nCMD ["cat", "/file"]\n')
    built = engine.docker("build", "-t", "mine", str(tmp_path))
    assert "Successfully tagged mine:latest" in built.stdout, built.stderr
    assert run(engine, "mine").stdout == "built\n"
    again = engine.docker("build", "-t", "mine", str(tmp_path))
    assert "Using cache" in again.stdout
    engine.docker("rmi", "mine")


def test_system_commands(engine: EngineProcess) -> None:
    assert "overlay2" in engine.docker("info").stdout
    assert "dockmagic-runtime" in engine.docker("version").stdout
    assert "Images" in engine.docker("system", "df").stdout
