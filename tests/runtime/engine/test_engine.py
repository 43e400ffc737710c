"""The engine as a process: start, refusals, death and resurrection."""

import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import docker
import pytest

from tests.conftest import EngineProcess


def run_engine(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dockmagic_runtime", *options], capture_output=True, text=True, timeout=30
    )


def test_second_engine_on_one_data_root_refuses(engine: EngineProcess) -> None:
    second = run_engine("--data-root", str(engine.data_root), "--socket", str(engine.socket) + "2")
    assert second.returncode == 1
    assert second.stderr == (
        f"dockmagic engine: another engine (process {engine.process.pid}) uses the data root "
        f"{engine.data_root}; stop it or choose another with --data-root\n"
    )


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    """What a crash left is in use by somebody else, so that it cannot be swept."""
    busy = tmp_path / "root/build/half-made"
    busy.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", busy], check=True)
    try:
        refused = run_engine("--data-root", str(tmp_path / "root"), "--socket", str(tmp_path / "socket"))
    finally:
        subprocess.run(["umount", busy], check=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"dockmagic engine: cannot take up the data root {tmp_path / 'root'}: ")
    assert "half-made" in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_data_root_that_cannot_be_written() -> None:
    refused = run_engine("--data-root", "/proc/nowhere")
    assert refused.returncode == 1
    assert refused.stderr.startswith("dockmagic engine: cannot use the data root /proc/nowhere: ")
    assert len(refused.stderr.splitlines()) == 1


WITHOUT_ROOT = """
import os, shutil, sys
os.setuid(65534)
from dockmagic_runtime.__main__ import main
sys.exit(main(["--data-root", sys.argv[1]]))
"""


def test_without_root(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from dockmagic_runtime import __main__\n" + WITHOUT_ROOT, str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("dockmagic engine: the engine needs root")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold one JSON object"),
        ('{"data_root": "/x"}', "unknown key 'data_root'"),
        ('{"registry-mirrors": "http://x"}', "registry-mirrors must be a list of strings"),
        ('{"log-level": "loud"}', "log-level must be one of"),
    ],
)
def test_config_file_complaints(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "engine.json"
    file.write_text(text)
    refused = run_engine("--config", str(file))
    assert refused.returncode == 1
    assert complaint in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_config_file_is_used(own_engine: EngineProcess) -> None:
    file = own_engine.data_root.parent / "engine.json"
    file.write_text(json.dumps({"registry-mirrors": ["http://127.0.0.1:1"], "log-level": "debug"}))
    own_engine.options = ("--config", str(file))
    info = own_engine.start().client().info()
    assert info["RegistryConfig"]["Mirrors"] == ["http://127.0.0.1:1"]
    assert info["Debug"] is True


def test_help() -> None:
    shown = run_engine("--help").stdout
    for option in (
        "--socket",
        "--data-root",
        "--registry-mirror",
        "--insecure-registry",
        "--log-level",
        "--config",
    ):
        assert option in shown


def test_socket_is_for_owner_and_group_only(engine: EngineProcess) -> None:
    assert engine.socket.stat().st_mode & 0o777 == 0o660


def test_killed_engine_loses_no_container_no_log_and_no_exit_code(own_engine: EngineProcess) -> None:
    client = own_engine.start().client()
    client.images.pull("busybox:latest")
    script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 7"
    ended = client.containers.run("busybox", ["sh", "-c", script], detach=True, name="ended")
    alive = client.containers.run(
        "busybox", ["sleep", "1000"], detach=True, name="alive", ports={"80/tcp": None}
    )
    before = alive.attrs["State"]["Pid"] or client.api.inspect_container("alive")["State"]["Pid"]
    own_engine.kill()
    bundle = own_engine.data_root / "containers" / ended.id
    _await_file(bundle / "exit.json")

    client = own_engine.start().client()
    ended = client.containers.get("ended")
    assert ended.wait()["StatusCode"] == 7
    assert ended.logs().decode().splitlines() == [f"line {number}" for number in range(40)]
    alive = client.containers.get("alive")
    assert alive.attrs["State"]["Running"]
    assert alive.attrs["State"]["Pid"] == before
    assert alive.exec_run(["echo", "there"]).output == b"there\n"
    alive.remove(force=True)
    ended.remove()


def test_killed_shim_takes_its_container_along(engine: EngineProcess, client: docker.DockerClient) -> None:
    client.images.pull("busybox:latest")
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    pid = client.api.inspect_container(container.id)["State"]["Pid"]
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    assert container.wait(timeout=10)["StatusCode"] == 137
    assert _is_dead(pid)
    container.start()
    assert container.exec_run("true").exit_code == 0


def test_start_sweeps_what_a_crash_left_half_made(own_engine: EngineProcess) -> None:
    own_engine.start()
    own_engine.kill()
    rubbish = own_engine.data_root / "containers" / ("f" * 64)
    rubbish.mkdir()
    own_engine.start()
    assert not rubbish.exists()


def test_an_image_that_a_power_failure_left_without_its_files_is_gone(own_engine: EngineProcess) -> None:
    """Built, recorded, in use, and not on disk when the machine stopped: it can be built again."""

    def build(text: str, name: str) -> str:
        lines = ["FROM busybox", f"COPY <<E /f\n{text}\nE", ""]
        image, _ = client.images.build(fileobj=io.BytesIO("\n".join(lines).encode()), tag=name)
        return str(image.attrs["RootFS"]["Layers"][-1]).removeprefix("sha256:")

    client = own_engine.start().client()
    build("stays", "kept")
    lost = build("goes", "lost")
    always = client.containers.run("lost", "sleep 1000", detach=True, restart_policy={"Name": "always"})
    always.reload()
    own_engine.stop()
    layers = own_engine.data_root / "layers"
    assert list((layers / "unwritten").iterdir()) == [], (
        "an engine that ends well leaves nothing to the kernel"
    )
    os.kill(always.attrs["State"]["Pid"], signal.SIGKILL)
    _await_file(own_engine.data_root / "containers" / always.id / "exit.json")
    (layers / "unwritten" / lost).symlink_to("another-boot")
    os.truncate(layers / lost / "fs/f", 0)

    client = own_engine.start().client()
    tags = {tag for image in client.images.list() for tag in image.tags}
    assert "kept:latest" in tags and "lost:latest" not in tags
    log = own_engine.data_root.with_name(f"{own_engine.data_root.name}.log").read_text()
    assert f"layer {lost} was lost: the machine stopped before it was on disk" in log
    assert "is lost with a layer of it: lost" in log
    (container,) = client.containers.list(all=True)
    assert container.wait() == {"StatusCode": 128}  # its policy has had its try
    container.reload()
    assert (container.status, container.attrs["State"]["Error"]) == (
        "exited",
        f"layer does not exist: sha256:{lost}",
    )
    with pytest.raises(docker.errors.APIError, match=f"layer does not exist: sha256:{lost}"):
        container.start()
    container.remove()
    assert (layers / build("goes", "lost") / "fs/f").read_text() == "goes\n"


def test_stopped_engine_leaves_running_containers_alone(own_engine: EngineProcess) -> None:
    client = own_engine.start().client()
    client.images.pull("busybox:latest")
    client.containers.run("busybox", ["sleep", "1000"], detach=True, name="stays")
    own_engine.stop()
    assert not own_engine.socket.exists()
    client = own_engine.start().client()
    assert client.containers.get("stays").status == "running"


def test_idle_engine_uses_no_processor_time(engine: EngineProcess, client: docker.DockerClient) -> None:
    client.images.pull("busybox:latest")
    client.containers.run("busybox", ["sleep", "1000"], detach=True)
    client.close()

    def ticks() -> int:
        fields = Path(f"/proc/{engine.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    # The measure itself is time passing; nothing is awaited.
    time.sleep(3)
    assert ticks() - before <= 1


def _is_dead(pid: int) -> bool:
    """Gone, or waiting for whoever inherited it to collect it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _await_file(path: Path, seconds: float = 20) -> None:
    """Poll: the writer is a process that nobody here is the parent of."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_socket_of_a_dead_engine_is_replaced(own_engine: EngineProcess) -> None:
    own_engine.start()
    own_engine.kill()
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(str(own_engine.socket))
    assert own_engine.start().client().ping()


def test_engine_that_died_before_it_could_note_a_start(own_engine: EngineProcess) -> None:
    """The moment between the start of a program and the record of it, brought about in the database."""
    client = own_engine.start().client()
    client.images.pull("busybox:latest")
    client.containers.create("busybox", ["sleep", "1000"], name="runs")
    client.containers.create("busybox", ["sh", "-c", "exit 9"], name="ended")
    before = _records(own_engine)
    client.containers.get("runs").start()
    client.containers.get("ended").start()
    assert client.containers.get("ended").wait()["StatusCode"] == 9
    own_engine.kill()
    with sqlite3.connect(own_engine.data_root / "engine.db") as database:
        database.executemany("UPDATE containers SET record = ? WHERE id = ?", before)
    client = own_engine.start().client()
    assert client.containers.get("runs").status == "running"
    assert client.containers.get("runs").exec_run(["echo", "yes"]).output == b"yes\n"
    assert client.api.inspect_container("ended")["State"]["ExitCode"] == 9


def _records(engine: EngineProcess) -> list[tuple[str, str]]:
    with sqlite3.connect(engine.data_root / "engine.db") as database:
        return database.execute("SELECT record, id FROM containers").fetchall()


def test_open_streams_do_not_hold_up_the_end(own_engine: EngineProcess) -> None:
    client = own_engine.start().client()
    stream = client.events(filters={"container": "nobody"})
    started = time.monotonic()
    own_engine.stop()
    assert time.monotonic() - started < 10
    stream.close()
