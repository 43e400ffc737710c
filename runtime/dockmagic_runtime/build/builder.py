"""`docker build`: a context and a Dockerfile become an image.

    text ─parser─> nodes ─instructions─> typed ─planner─> stages ─stage─> states ──> one image record

Everything in the making is under `<data_root>/build/<build id>`. The image exists from one transaction at the
end on. A build that fails, is interrupted or killed leaves the cache records of the steps that were done,
and nothing else: no process, no mount, no network, no file that `sweep` would not remove.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterable, Callable
from pathlib import Path
from typing import Any

from dockmagic_runtime import identifiers, streams, timestamps
from dockmagic_runtime.build.cache import BuildCache
from dockmagic_runtime.build.cachemounts import CacheMounts
from dockmagic_runtime.build.context import unpack_context
from dockmagic_runtime.build.job import Job, Workshop
from dockmagic_runtime.build.options import BuildOptions
from dockmagic_runtime.build.run import shim_socket
from dockmagic_runtime.build.sessions import Sessions
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.errors import EngineError
from dockmagic_runtime.images.pull import Puller
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.kernel import trees
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.process.spawner import Spawner
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.storage.layers import LayerStore
from dockmagic_runtime.threads import in_thread, settled

Json = dict[str, Any]
log = logging.getLogger(__name__)

_SHIM_SECONDS = 5.0
"""A shim ends within milliseconds of its step; one that does not is left to itself."""


class Builder:
    """All builds of one engine. `held_layers` is for ImageStore: what the cache keeps."""

    def __init__(
        self,
        config: EngineConfig,
        database: Database,
        layers: LayerStore,
        images: ImageStore,
        puller: Puller,
        networks: Networks,
        spawner: Spawner,
    ) -> None:
        self._config, self._layers, self._images = config, layers, images
        self._root = config.data_root / "build"
        self._root.mkdir(parents=True, exist_ok=True)
        self._root.chmod(0o700)
        self.cache = BuildCache(database)
        self.cache_mounts = CacheMounts(config.data_root / "build-mounts")
        self.private = config.run_root / "build"
        self._workshop = Workshop(
            config, layers, images, puller, networks, spawner, self.cache, self.cache_mounts, self.private
        )
        self.sessions = Sessions()
        self._running: set[asyncio.Task[Any]] = set()
        self._settling: set[asyncio.Task[None]] = set()

    def held_layers(self) -> set[str]:
        """Diff IDs that must stay though no image has them."""
        return self.cache.layers()

    def sweep(self) -> None:
        """End and remove what builds left that were killed with the engine. Call once, at start."""
        for build in self._root.iterdir():
            for step in (build / "steps").glob("*/upper"):
                self._end_step(step.parent.name)
            trees.remove(build)
        self.cache_mounts.sweep()
        if self.private.exists():
            trees.remove(self.private)

    def _end_step(self, step: str) -> None:
        """Kill what runs of it, and wait for its shim, which writes a last file beside the step's others."""
        group, path = Cgroup.open(f"{self._config.cgroup_parent}/{step}"), shim_socket(self._config, step)
        with socket.socket(socket.AF_UNIX) as shim, contextlib.suppress(ConnectionError, FileNotFoundError):
            shim.settimeout(_SHIM_SECONDS)
            shim.connect(str(path))
            if group.exists():
                group.kill()
            with contextlib.suppress(TimeoutError):
                while shim.recv(1 << 16):
                    pass
        if group.exists():
            group.remove(kill=True)
        path.unlink(missing_ok=True)

    async def stop(self) -> None:
        """Interrupt the builds that run; wait until what builds made is on disk, and nothing else is left."""
        for task in self._running:
            if not task.cancelling():  # its client may have gone already
                task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        await self.settle()

    async def settle(self) -> None:
        """Wait for what builds that have ended left the disk to do."""
        if self._settling:
            await asyncio.wait(self._settling)

    def disk_use(self) -> list[Json]:
        """The `BuildCache` of GET /system/df: each layer that the cache keeps, and each cache mount."""
        in_images = {diff_id for image in self._images.list() for diff_id in image.diff_ids}
        found: list[Json] = []
        for diff_id in sorted(self.cache.layers()):
            if layer := self._layers.get(diff_id):
                name, used = diff_id.partition(":")[2], diff_id in in_images
                with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
                    found.append(_cached(name, "regular", "a step's layer", layer.size, used, layer.path))
        for path, identity, size, used in self.cache_mounts.listed():
            found.append(_cached(path.name, "exec.cachemount", f"cache mount {identity}", size, used, path))
        return found

    async def prune(self) -> Json:
        """Forget the cache, and what cache mounts hold; layers that no image has go.

        Returns Docker's answer to POST /build/prune.
        """
        layers = self.cache.layers()
        space = self._layers.size_of(layers)
        keys = self.cache.clear()
        await self._images.collect()
        # What an image or a container has is still there.
        space -= self._layers.size_of(layers)
        space += await in_thread(self.cache_mounts.prune)
        return {"CachesDeleted": keys, "SpaceReclaimed": space}

    async def build(
        self, context: AsyncIterable[bytes], options: BuildOptions, emit: Callable[[Json], None]
    ) -> str:
        """Build from a context tar, compressed or not; returns the image's ID.

        Nothing is emitted before the Dockerfile is known to make sense, so that an error until then can be
        the whole answer. Raises InvalidParameter, NotFound, StepFailed (with the exit code), SystemFailure.
        An interrupt kills the running step and waits for it; the steps done before stay cached.
        """
        build_id = identifiers.new()
        directory = self._root / build_id
        task = asyncio.current_task()
        assert task
        self._running.add(task)
        try:
            async with self._images.adding():
                files = await streams.feed(
                    context, lambda tar: unpack_context(tar, directory / "context", self._layers.limit)
                )
                return await Job(self._workshop, build_id, directory, files, options, emit).run()
        except BaseException:
            await self._remove(directory)
            raise
        finally:
            self._running.discard(task)
            settling = asyncio.create_task(self._finish(directory))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)

    async def _remove(self, directory: Path) -> None:
        if directory.exists():
            removing = asyncio.ensure_future(asyncio.to_thread(trees.remove, directory))
            await settled(removing)
            removing.result()

    async def _finish(self, directory: Path) -> None:
        """The answer is given, and an image may be used: what the disk has left to do goes on beside that."""
        try:
            await self._remove(directory)
            await in_thread(self._layers.settle)
        except (OSError, EngineError) as error:
            log.error("cannot tidy up after a build, the next start will: %s", error)


def _cached(name: str, kind: str, what: str, size: int, used: bool, path: Path) -> Json:
    """A layer that an image has is shared with it: forgetting the cache frees nothing of it."""
    created = timestamps.render(path.stat().st_mtime_ns)
    told = {"ID": name, "Type": kind, "Description": what, "InUse": used, "Size": size}
    return {**told, "Shared": used and kind == "regular", "CreatedAt": created, "LastUsedAt": None}
