"""What containers do with their volumes: fill new ones, hold them while they run, take the nameless along.

When a volume is mounted, and who keeps it from being removed, is the volumes' own affair (`volumes.holders`).
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from dockmagic_runtime.containers import copyup
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.errors import Conflict
from dockmagic_runtime.events import EventBus
from dockmagic_runtime.storage.overlay import Rootfs
from dockmagic_runtime.volumes.store import Volume, VolumeStore

log = logging.getLogger(__name__)


class VolumeUse:
    """That of all containers of one engine."""

    def __init__(self, volumes: VolumeStore, events: EventBus) -> None:
        self.store = volumes
        self._events = events
        self._filling = asyncio.Lock()

    def _of(self, container: Container) -> list[Volume]:
        names = dict.fromkeys(point["Name"] for point in container.mounts if point["Type"] == "volume")
        return [self.store.get(name) for name in names]

    def held(self, container: Container) -> AbstractAsyncContextManager[None]:
        """While it lasts, the files of the container's volumes are at their paths, whether it runs or not."""
        return self.store.held(self._of(container), f"the files of {container.short_id}")

    async def fill(self, container: Container, rootfs: Rootfs) -> None:
        """New volumes get what the image has at their places."""
        async with self.held(container):
            if copyup.wanting(container.mounts):
                async with self._filling:  # one volume may be new to several containers
                    points = copyup.wanting(container.mounts)
                    await asyncio.to_thread(copyup.copy_up, points, rootfs)

    async def hold(self, container: Container) -> None:
        """For a run of the container."""
        for volume in self._of(container):
            await self.store.holders.hold(volume, container.id)

    async def release(self, container: Container) -> None:
        await self.store.holders.release_all(container.id)

    def take_up(self, running: Iterable[Container]) -> None:
        """Hold on to what these have from the last engine, and drop what else it held."""
        for container in running:
            for volume in self._of(container):
                self.store.holders.take_up(volume, container.id)
        self.store.holders.sweep(self.store.list())

    def remove_anonymous(self, container: Container) -> None:
        for point in container.mounts:
            if point["Type"] == "volume" and self.store.get(point["Name"]).anonymous:
                try:
                    self.store.remove(point["Name"])
                except Conflict:
                    log.debug("volume %s stays: another container uses it", point["Name"])

    def tell(self, container: Container, action: str) -> None:
        """Docker's events `mount` and `unmount`."""
        for point in container.mounts:
            if point["Type"] == "volume":
                attributes = {"driver": point["Driver"], "container": container.id}
                if action == "mount":
                    attributes |= {
                        "destination": point["Destination"],
                        "propagation": point["Propagation"],
                        "read/write": str(point["RW"]).lower(),
                    }
                self._events.publish("volume", action, point["Name"], attributes)
