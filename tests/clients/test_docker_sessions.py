"""The docker command at a terminal and behind it: detach keys, signals, files that it reads and writes."""

import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import EngineProcess


class Terminal:
    """The docker command on a pseudoterminal."""

    def __init__(self, engine: EngineProcess, *words: str) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))  # what has a size is redrawn when somebody attaches
        self.process = subprocess.Popen(
            ["docker", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "DOCKER_HOST": engine.address},
            start_new_session=True,
        )
        os.close(slave)
        self.said = b""

    def type(self, keys: bytes) -> None:
        """Once the shell prompts and the command has the terminal: what is typed before is lost."""
        self.until(b"# ")
        while termios.tcgetattr(self._master)[3] & termios.ICANON:
            time.sleep(0.01)  # nothing tells of it
        self.said = b""
        os.write(self._master, keys)

    def until(self, word: bytes, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while word not in self.said:
            ready, _, _ = select.select([self._master], [], [], deadline - time.monotonic())
            assert ready, self.said
            self.said += os.read(self._master, 1 << 16)

    def end(self) -> int:
        code = self.process.wait(20)
        os.close(self._master)
        return code


def running(engine: EngineProcess, name: str) -> bool:
    return engine.docker("inspect", "-f", "{{.State.Running}}", name).stdout.strip() == "true"


@pytest.mark.parametrize(("options", "keys"), [((), b"\x10\x11"), (("--detach-keys", "ctrl-x,q"), b"\x18q")])
def test_detach_keys(engine: EngineProcess, options: tuple[str, ...], keys: bytes) -> None:
    first = Terminal(engine, "run", "-it", "--name", "box", *options, "busybox", "sh")
    first.type(b"echo one$((1+1))\n")
    first.until(b"one2")
    first.type(keys)
    assert first.end() == 0 and running(engine, "box")
    again = Terminal(engine, "attach", *options, "box")
    again.type(b"echo two$((1+1))\n")
    again.until(b"two2")
    again.type(keys)
    again.end()
    assert running(engine, "box")
    inside = Terminal(engine, "exec", "-it", *options, "box", "sh")
    inside.type(b"echo three$((1+1)); stty size\n")
    inside.until(b"three2")
    inside.type(b"exit 5\n")
    assert inside.end() == 5
    last = Terminal(engine, "attach", "box")
    last.type(b"exit 4\n")
    assert last.end() == 4 and not running(engine, "box")


def test_start_a_i(engine: EngineProcess) -> None:
    engine.docker("create", "-i", "--name", "box", "busybox", "sh", "-c", "cat; exit 3")
    done = engine.docker("start", "-a", "-i", "box", input="said\n")
    assert (done.returncode, done.stdout) == (3, "said\n")


@pytest.fixture
def client_of_a_trap(engine: EngineProcess) -> Iterator[tuple[EngineProcess, list[str]]]:
    script = "trap 'echo caught; exit 7' TERM; echo up; while :; do sleep 60 & wait $!; done"
    yield engine, ["--name", "box", "busybox", "sh", "-c", script]


@pytest.mark.parametrize("proxied", [True, False])
def test_sig_proxy(client_of_a_trap: tuple[EngineProcess, list[str]], proxied: bool) -> None:
    engine, words = client_of_a_trap
    process = subprocess.Popen(
        ["docker", "run", f"--sig-proxy={str(proxied).lower()}", *words],
        stdout=subprocess.PIPE,
        env={**os.environ, "DOCKER_HOST": engine.address},
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    if proxied:
        assert process.stdout.read() == "caught\n" and process.wait(20) == 7
    else:
        assert engine.docker("exec", "box", "true").returncode == 0, "it was not meant"
        process.kill()
        process.wait(20)
    process.stdout.close()


def test_kill_and_stop(client_of_a_trap: tuple[EngineProcess, list[str]]) -> None:
    engine, words = client_of_a_trap
    engine.docker("run", "-d", "--stop-signal", "USR1", "--stop-timeout", "1", *words)
    assert engine.docker("kill", "-s", "TERM", "box").stdout == "box\n"
    assert engine.docker("wait", "box").stdout == "7\n"
    engine.docker("start", "box")
    assert engine.docker("stop", "box").stdout == "box\n"
    code = engine.docker("inspect", "-f", "{{.State.ExitCode}}", "box").stdout
    assert code == "137\n", "a first process is not ended by what it does not catch, but by SIGKILL then"
    refused = engine.docker("kill", "box")
    assert refused.returncode == 1 and "is not running" in refused.stderr


def test_files_that_it_reads_and_writes(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nONE=1\nTWO=from file\n")
    (tmp_path / "labels").write_text("a.b=c\n")
    cidfile = tmp_path / "cid"
    options = ["--env-file", str(tmp_path / "env"), "-e", "ONE=2", "--label-file", str(tmp_path / "labels")]
    done = engine.docker(
        *(
            "run",
            "--name",
            "box",
            "--cidfile",
            str(cidfile),
            *options,
            "busybox",
            "sh",
            "-c",
            "echo $ONE $TWO",
        )
    )
    assert done.stdout == "2 from file\n"
    assert (
        engine.docker("inspect", "-f", '{{index .Config.Labels "a.b"}}', cidfile.read_text()).stdout == "c\n"
    )
    assert engine.docker("run", "--cidfile", str(cidfile), "busybox", "true").returncode != 0


def test_options_of_run(engine: EngineProcess) -> None:
    def told(*words: str) -> str:
        return engine.docker("run", "--rm", *words).stdout

    assert told("--cap-add", "NET_ADMIN", "busybox", "sh", "-c", "ip link set lo down && echo can") == "can\n"
    assert told("--platform", "linux/amd64", "busybox", "echo", "this") == "this\n"
    health = ["--health-cmd", "true", "--health-interval", "1s", "--health-retries", "2"]
    engine.docker(
        "run",
        "-d",
        "--name",
        "box",
        *health,
        "--restart",
        "always",
        "--log-opt",
        "max-size=1m",
        "busybox",
        "sleep",
        "1000",
    )
    shown = json.loads(engine.docker("inspect", "box").stdout)[0]
    assert shown["Config"]["Healthcheck"]["Retries"] == 2
    assert shown["HostConfig"]["RestartPolicy"] == {"Name": "always", "MaximumRetryCount": 0}
    assert shown["HostConfig"]["LogConfig"]["Config"] == {"max-size": "1m"}


def test_copies(engine: EngineProcess, tmp_path: Path) -> None:
    engine.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    (tmp_path / "file").write_text("text")
    assert engine.docker("cp", str(tmp_path / "file"), "box:/tmp/in").returncode == 0
    assert engine.docker("cp", "box:/tmp/in", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out").read_text() == "text"
    assert "A /tmp/in" in engine.docker("diff", "box").stdout
    environment = {**os.environ, "DOCKER_HOST": engine.address}
    piped = subprocess.run(
        ["docker", "cp", "box:/tmp/in", "-"], env=environment, capture_output=True, check=True
    )
    again = subprocess.run(
        ["docker", "cp", "-", "box:/root"], env=environment, input=piped.stdout, check=True
    )
    assert again.returncode == 0 and engine.docker("exec", "box", "cat", "/root/in").stdout == "text"


def test_events(engine: EngineProcess) -> None:
    since = f"{time.time():.9f}"
    engine.docker("network", "create", "mynet")
    engine.docker("volume", "create", "myvolume")
    engine.docker(
        "run",
        "--name",
        "box",
        "--network",
        "mynet",
        "-v",
        "myvolume:/v",
        "--label",
        "of=test",
        "busybox",
        "true",
    )
    engine.docker("rename", "box", "other")
    engine.docker("rm", "other")
    engine.docker("volume", "rm", "myvolume")
    engine.docker("network", "rm", "mynet")
    until = f"{time.time() + 0.01:.9f}"

    def told(*filters: str) -> list[str]:
        words = [word for each in filters for word in ("--filter", each)]
        done = engine.docker(
            "events", "--since", since, "--until", until, "--format", "{{.Type}} {{.Action}}", *words
        )
        return done.stdout.splitlines()

    life = ["create", "attach", "start", "die", "rename", "destroy"]
    assert told("type=container") == [f"container {action}" for action in life]
    assert told("label=of=test", "event=start", "event=die") == ["container start", "container die"]
    assert told("type=network", "network=mynet")[0] == "network create"
    assert {"network connect", "network disconnect", "network destroy"} <= set(told("type=network"))
    whole_life = [f"volume {what}" for what in ("create", "mount", "unmount", "destroy")]
    assert told("volume=myvolume") == whole_life
    assert told("container=nosuch") == [] and told("image=busybox", "event=die") == ["container die"]
    line = engine.docker(
        "events", "--since", since, "--until", until, "--format", "json"
    ).stdout.splitlines()[0]
    assert json.loads(line)["scope"] == "local"


def test_prunes(engine: EngineProcess) -> None:
    since = f"{time.time():.9f}"
    engine.docker("create", "--name", "old", "--label", "gone=1", "busybox", "true")
    engine.docker("create", "--name", "kept", "busybox", "true")
    engine.docker("volume", "create", "unused")
    engine.docker("network", "create", "unused")
    assert (
        "Deleted Containers:" in engine.docker("container", "prune", "-f", "--filter", "label=gone=1").stdout
    )
    assert engine.docker("ps", "-a", "--format", "{{.Names}}").stdout == "kept\n"
    assert "unused" in engine.docker("network", "prune", "-f").stdout
    assert "unused" in engine.docker("volume", "prune", "-a", "-f").stdout
    whole = engine.docker("system", "prune", "-f", "--volumes").stdout
    assert "Deleted Containers:" in whole and "Total reclaimed space:" in whole
    options = ["--since", since, "--until", f"{time.time() + 0.01:.9f}", "--filter", "event=prune"]
    told = engine.docker("events", *options, "--format", "{{.Type}}").stdout.split()
    assert set(told) >= {"container", "network", "volume", "image"}
    table = engine.docker("system", "df", "-v").stdout
    assert "Images space usage:" in table and "busybox" in table
    assert "Local Volumes" in engine.docker("system", "df").stdout


def test_disconnect(engine: EngineProcess) -> None:
    engine.docker("network", "create", "mynet")
    engine.docker(
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "mynet",
        "--network-alias",
        "db",
        "busybox",
        "sleep",
        "1000",
    )
    assert engine.docker("network", "disconnect", "mynet", "box").returncode == 0
    assert engine.docker("network", "connect", "--alias", "back", "mynet", "box").returncode == 0
    pinged = engine.docker("run", "--rm", "--network", "mynet", "busybox", "ping", "-c1", "-w5", "back")
    assert pinged.returncode == 0
    used = engine.docker("network", "rm", "mynet")
    assert used.returncode == 1 and "has active endpoints" in used.stderr


def test_lists(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "up", "-p", "80", "busybox", "sh", "-c", "echo x > /f; sleep 1000")
    engine.docker("run", "--name", "ended", "busybox", "sh", "-c", "exit 3")
    engine.docker("create", "--name", "made", "-v", "data:/d", "busybox", "true")

    def named(*words: str) -> set[str]:
        return set(engine.docker("ps", "--format", "{{.Names}}", *words).stdout.split())

    assert named() == {"up"} and named("-a") == {"up", "ended", "made"} and named("-n", "1") == {"made"}
    assert named("-l") == {"made"} and "virtual" in engine.docker("ps", "-s").stdout
    for given, expected in (
        ("status=exited", {"ended"}),
        ("exited=3", {"ended"}),
        ("status=created", {"made"}),
        ("name=up", {"up"}),
        ("ancestor=busybox", {"up", "ended", "made"}),
        ("since=up", {"ended", "made"}),
        ("before=ended", {"up"}),
        ("volume=data", {"made"}),
        ("network=bridge", {"up", "ended", "made"}),
        ("expose=80", {"up"}),
        ("health=none", {"up", "ended", "made"}),
        ("is-task=false", {"up", "ended", "made"}),
    ):
        assert named("-a", "--filter", given) == expected, given
    bad = engine.docker("ps", "--filter", "nosuch=1")
    assert bad.returncode == 1 and "invalid filter 'nosuch'" in bad.stderr
    logs = engine.docker("run", "--name", "said", "busybox", "sh", "-c", "echo one; echo two >&2")
    assert logs.stdout == "one\n"
    assert engine.docker("logs", "--since", "1h", "--until", "1s", "said").returncode == 0
    stamped = engine.docker("logs", "-f", "-t", "--tail", "1", "said")
    assert (stamped.stdout + stamped.stderr).split()[0].endswith("Z")
