"""Real containers from a busybox root made in the test's own directory; every test leaves nothing behind."""

import asyncio
import itertools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.kernel.cgroups import Cgroup, layout
from dockmagic_runtime.oci.runtime import default_spec
from dockmagic_runtime.oci.seccomp_profile import default_profile
from dockmagic_runtime.process.client import LogSpec, RunRequest
from dockmagic_runtime.process.messages import Exit
from dockmagic_runtime.process.spawner import Spawner
from dockmagic_runtime.storage.overlay import Rootfs

CAPABILITIES = frozenset(
    [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ]
)
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.fail("these tests need a static busybox: apt install busybox-static")
    root = tmp_path_factory.mktemp("image")
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        (root / name).mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    subprocess.run(["/usr/sbin/chroot", root, "/bin/busybox", "--install", "-s", "/bin"], check=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\n"
    )
    return root


_benches = itertools.count()


class Bench:
    """Makes requests and remembers what they used, to look afterwards whether it is gone."""

    def __init__(self, directory: Path, image: Path, spawner: Spawner):
        self.directory, self.image, self.spawner = directory, image, spawner
        self.group = f"/dmk-{os.getpid()}-{next(_benches)}"
        self._numbers = itertools.count()

    def request(
        self,
        *args: str,
        terminal: bool = False,
        change: Change | None = None,
        image: Path | None = None,
        **more: Any,
    ) -> RunRequest:
        name = f"c{next(self._numbers)}"
        bundle = self.directory / name
        for part in ("upper", "work"):
            (bundle / part).mkdir(parents=True)
        config: dict[str, Any] = json.loads(json.dumps(default_spec()))
        config["root"]["readonly"] = False
        process = config["process"]
        process["args"], process["terminal"] = list(args), terminal
        process["capabilities"] = {k: sorted(CAPABILITIES) for k in ("bounding", "effective", "permitted")}
        process["noNewPrivileges"] = False
        config["linux"]["cgroupsPath"] = f"{self.group}/{name}"
        config["linux"]["seccomp"] = default_profile(set(CAPABILITIES))
        if change:
            change(config)
        return RunRequest(
            id=name,
            bundle=bundle,
            config=config,
            rootfs=Rootfs((str(image or self.image),), str(bundle / "upper"), str(bundle / "work")),
            socket=bundle / "shim.sock",
            log=LogSpec("json-file", bundle / "log", more.pop("max_size", None), more.pop("max_file", 1)),
            **more,
        )

    async def run(self, *args: str, **more: Any) -> tuple[Exit, str]:
        """Run to the end: how it ended, and everything it wrote."""
        request = self.request(*args, **more)
        shim = await self.spawner.run(request)
        ended = await asyncio.wait_for(shim.exited, 20)
        return ended, output(request)


def output(request: RunRequest, stream: str | None = None) -> str:
    entries = [json.loads(line) for line in request.log.path.read_text().splitlines()]
    return "".join(e["log"] for e in entries if stream in (None, e["stream"]))


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


async def read_all(sock: socket.socket) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while chunk := await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), 10):
        data += chunk
    sock.close()
    return data


def _mounts_below(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]


async def _until(true: Callable[[], bool], otherwise: str) -> None:
    for _ in range(300):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(otherwise)


@pytest.fixture
async def bench(tmp_path: Path, image: Path) -> AsyncIterator[Bench]:
    spawner = Spawner.fork()
    bench = Bench(tmp_path, image, spawner)
    yield bench
    spawner.close()
    await _until(lambda: not _groups(bench.group), f"control groups were left behind: {bench.group}")
    Cgroup.open(bench.group).remove()
    assert _mounts_below(tmp_path) == [], "mounts were left behind"
    await _gone(tmp_path)
    assert list(tmp_path.glob("*/shim.sock")) == [], "sockets were left behind"


async def _gone(directory: Path) -> None:
    """The shims of these containers end by themselves; wait for each that was written down."""
    for note in directory.glob("*/shim.json"):
        pid = json.loads(note.read_text())["shim"]
        for _ in range(500):
            if not Path(f"/proc/{pid}").exists():
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError(f"shim {pid} of {note.parent.name} is still there")


def _groups(parent: str) -> list[str]:
    roots = [*layout().v1_mounts, *([layout().v2] if layout().v2 else [])]
    return [str(p) for root in roots for p in Path(f"{root}{parent}").glob("*/") if p.is_dir()]


@pytest.fixture
def hostile(image: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the image that a test may spoil."""
    root = tmp_path / "hostile"
    shutil.copytree(image, root, symlinks=True)
    yield root
