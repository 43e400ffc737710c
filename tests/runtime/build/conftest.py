"""A real builder with a data root of its own; a busybox image to build on; nothing left afterwards."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from dockmagic_runtime.build.builder import Builder
from dockmagic_runtime.build.options import BuildOptions
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.errors import Conflict
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.pull import Puller
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.kernel import trees
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.oci.image import Platform
from dockmagic_runtime.oci.reference import parse_reference
from dockmagic_runtime.process.spawner import Spawner
from dockmagic_runtime.registry.client import Registry
from dockmagic_runtime.storage.content import ContentStore
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.storage.layers import LayerStore
from dockmagic_runtime.storage.overlay import mount_rootfs
from dockmagic_runtime.storage.snapshots import SnapshotStore

APPLETS = "sh ls cat echo mkdir touch rm id pwd env sleep true false stat chmod ln sed grep test wc kill ip"
BASE = f"""
mkdir -p bin etc tmp home/me && chmod 1777 tmp
cp /bin/busybox bin/busybox && for name in {APPLETS}; do ln -s busybox bin/$name; done
printf 'root:x:0:0::/root:/bin/sh\\nme:x:1000:1001::/home/me:/bin/sh\\n' > etc/passwd
printf 'root:x:0:\\nme:x:1001:\\nothers:x:2000:\\n' > etc/group
"""


def context(files: Mapping[str, str | bytes], dockerfile: str | None = None) -> io.BytesIO:
    """A context tar: `name/` is a directory, `name -> target` a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in {**files, **({"Dockerfile": dockerfile} if dockerfile else {})}.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str) and content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:]
                tar.addfile(info)
                continue
            data = content.encode() if isinstance(content, str) else content
            info.size, info.mtime = len(data), 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


async def chunks(stream: BinaryIO) -> AsyncIterator[bytes]:
    """As a client sends it."""
    while data := stream.read(1 << 16):
        yield data


@dataclass
class Bench:
    """What a test of builds works with. `said` is what the last build emitted."""

    config: EngineConfig
    builder: Builder
    images: ImageStore
    layers: LayerStore
    networks: Networks
    snapshots: SnapshotStore
    said: list[dict[str, Any]] = field(default_factory=list)

    async def build(
        self, dockerfile: str, files: Mapping[str, str | bytes] | None = None, **options: Any
    ) -> Image:
        self.said = []
        stream = context(files or {}, dockerfile)
        image_id = await self.builder.build(chunks(stream), BuildOptions(**options), self.said.append)
        return self.images.get(image_id)

    @property
    def text(self) -> str:
        return "".join(message.get("stream", "") for message in self.said)

    @property
    def states(self) -> list[str]:
        """How each step ended."""
        told = [message.get("aux", {}).get("dockmagic.step") for message in self.said]
        return [step["state"] for step in told if step and step["state"] != "running"]

    def sh(self, image: Image, script: str) -> str:
        """Look into an image's files."""
        mount = mount_rootfs(self.snapshots.view(image.diff_ids))
        try:
            return subprocess.run(
                ["/bin/busybox", "chroot", f"/proc/self/fd/{mount}", "/bin/sh", "-ec", script],
                pass_fds=[mount],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        finally:
            os.close(mount)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with machine() as bench:
        yield bench


@asynccontextmanager
async def machine() -> AsyncIterator[Bench]:
    """A builder with a data root of its own, as on another machine."""
    root = Path(tempfile.mkdtemp(prefix="dockmagic-test-", dir="/var/tmp"))
    config = EngineConfig(data_root=root)
    config.run_root.mkdir(parents=True, exist_ok=True)
    (config.run_root / "shims").mkdir(exist_ok=True)
    spawner = Spawner.fork()
    database = Database(root / "engine.db")
    layers = LayerStore(root / "layers")
    images = ImageStore(database, ContentStore(root / "images"), layers)
    networks = Networks(database, config, lambda *event: None)
    registry = Registry(config)
    await networks.start()
    builder = Builder(config, database, layers, images, Puller(images, registry), networks, spawner)
    images.held_layers = builder.held_layers
    bench = Bench(config, builder, images, layers, networks, SnapshotStore(root / "containers", layers))
    add_base(bench, root)
    yield bench
    await builder.settle()
    untrue = [diff_id for diff_id in builder.cache.layers() if not says_what_was_hashed(layers, diff_id)]
    leftovers = [str(path) for path in (root / "build").iterdir()]
    sandboxes = list(networks.sandboxes)
    await networks.stop()
    await registry.close()
    spawner.close()
    database.close()
    trees.remove(root)
    shutil.rmtree(config.run_root, ignore_errors=True)
    parent = Cgroup.open(config.cgroup_parent)
    if parent.exists():
        parent.remove(kill=True)  # as an engine does, with the spare that was just told to end
    assert leftovers == [] and sandboxes == []
    assert untrue == []


def says_what_was_hashed(layers: LayerStore, diff_id: str) -> bool:
    """Whether the layer, read from its disk, still has its diff ID."""
    try:
        layers.tar(diff_id, io.BytesIO())
    except Conflict:
        return False
    return True


def add_base(bench: Bench, root: Path) -> None:
    tree = root / "base"
    tree.mkdir()
    subprocess.run(["sh", "-ec", BASE], cwd=tree, check=True)
    tar = subprocess.run(
        ["tar", "--sort=name", "--mtime=@0", "-c", "-C", tree, "."], capture_output=True, check=True
    ).stdout
    layer = bench.layers.apply(None, io.BytesIO(tar))
    config = {
        "architecture": Platform.host().architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created_by": "base"}],
    }
    bench.images.add(json.dumps(config).encode(), [layer.diff_id], [parse_reference("base")])
