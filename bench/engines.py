"""The two engines under test, each as the socket it answers on and the processes it consists of."""

import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from dockmagic.contexts import answers

DOCKER_SOCKET = Path("/var/run/docker.sock")
_DOCKER_BRIDGE = Path("/sys/class/net/docker0")
_READY_TIMEOUT = 60.0
_DISK = 24 << 30


@dataclass(frozen=True)
class Engine:
    """One engine: `name` for the table, its socket, and a docker-py client of it."""

    name: str
    socket: Path
    api: docker.APIClient

    def another_client(self) -> docker.APIClient:
        """A client of its own for one thread."""
        return connect(self.socket)

    def processes(self) -> list[int]:
        """The process that listens on the socket and its descendants, containers' processes left out."""
        first = listener(self.socket)
        parents = {pid: parent_of(pid) for pid in _all_processes()}
        found = [first]
        for pid in found:
            found.extend(child for child, parent in parents.items() if parent == pid)
        home = _pid_namespace(first)
        return [pid for pid in found if _pid_namespace(pid) == home]


def connect(path: Path) -> docker.APIClient:
    return docker.APIClient(base_url=f"unix://{path}", version="auto", timeout=120)


def listener(path: Path) -> int:
    """The process that listens on the unix socket at `path` (SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def parent_of(pid: int) -> int:
    """The parent's process id, 0 if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(status.rpartition(")")[2].split()[1])


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _pid_namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except FileNotFoundError:
        return ""


@contextmanager
def ending(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """At the end, SIGTERM to the process, which gets 30 s to tidy up."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


@contextmanager
def started(data_root: Path, log: Path) -> Iterator[Path]:
    """Our engine on a data root of its own; the value is its socket. Returns when it serves."""
    path = data_root / "engine.sock"
    read_end, write_end = os.pipe()
    command = [
        sys.executable,
        "-m",
        "dockmagic_runtime",
        "--socket",
        str(path),
        "--data-root",
        str(data_root),
    ]
    with log.open("ab") as output, os.fdopen(read_end, "rb") as ready:
        process = subprocess.Popen(
            [*command, "--ready-fd", str(write_end)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(write_end,),
        )
        os.close(write_end)
        with ending(process):
            if not select.select([ready], [], [], _READY_TIMEOUT)[0]:
                raise TimeoutError(
                    f"our engine does not serve after {_READY_TIMEOUT:.0f} s: {log.read_text()}"
                )
            line = ready.readline().decode(errors="replace").strip()
            if not answers(path):
                raise RuntimeError(f"our engine did not start: {line} {log.read_text()}")
            yield path


@contextmanager
def started_dockerd(root: Path, log: Path, *options: str) -> Iterator[Path]:
    """Debian's dockerd on a data root of its own; the value is its socket. Returns when it answers."""
    path = root / "docker.sock"
    command = ["dockerd", "--host", f"unix://{path}", "--data-root", str(root / "data")]
    command += ["--exec-root", str(root / "run"), "--pidfile", str(root / "pid"), *options]
    had_bridge = _DOCKER_BRIDGE.exists()
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        with ending(process):
            deadline = time.monotonic() + _READY_TIMEOUT
            while not answers(path):  # dockerd tells nobody that it is ready
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("dockerd did not start: " + log.read_text()[-2000:])
                time.sleep(0.005)
            yield path
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        mounted = line.split()[4]
        if root in Path(mounted).parents:  # dockerd does not undo the mount of its data root on itself
            subprocess.run(["umount", mounted], check=True)
    if _DOCKER_BRIDGE.exists() and not had_bridge:
        subprocess.run(["ip", "link", "delete", _DOCKER_BRIDGE.name], check=True)


@contextmanager
def both(ours: Path | None, dockers: Path | None) -> Iterator[tuple[Engine, Engine]]:
    """Our engine and Docker's. A socket that is given is used as it is; else one is found or started."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dockmagic-bench-")))
        if ours is None:
            folder = stack.enter_context(own_disk(root / "ours"))
            ours = stack.enter_context(started(folder, folder / "log"))
        if dockers is None:
            if answers(DOCKER_SOCKET):
                dockers = DOCKER_SOCKET
            else:
                folder = stack.enter_context(own_disk(root / "docker"))
                dockers = stack.enter_context(started_dockerd(folder, folder / "log"))
        pair = []
        for name, path in (("ours", ours), ("Docker", dockers)):
            api = connect(path)
            stack.callback(api.close)
            pair.append(Engine(name, path, api))
        yield pair[0], pair[1]


@contextmanager
def own_disk(path: Path) -> Iterator[Path]:
    """A file system of its own at `path`, in a file that takes no more room than what is written.

    What one engine deletes would slow the other down: ext4 looks long for inodes where many were just freed.
    """
    path.mkdir(parents=True)
    image = path.with_suffix(".ext4")
    with image.open("wb") as file:
        file.truncate(_DISK)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        image.unlink()


def private_memory(pid: int) -> int:
    """Bytes of memory that only this process holds: Private_* and SwapPss of its smaps_rollup."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(kib) for kib in re.findall(r"^(?:Private_\w+|SwapPss):\s+(\d+) kB", rollup, re.M))


def processor_time(pids: list[int]) -> int:
    """Nanoseconds on a processor that the threads of these processes have had so far."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that ended; it was idle
    return total


def pull(api: docker.APIClient, mirror: str, tag: str) -> None:
    """Pull the busybox stand-in from the loopback registry and call it `tag`."""
    source = f"{mirror.removeprefix('http://')}/library/busybox"
    api.pull(source, tag="latest")
    if not api.tag(f"{source}:latest", tag, force=True):
        raise RuntimeError(f"the image could not be tagged {tag}")
    api.remove_image(f"{source}:latest")
