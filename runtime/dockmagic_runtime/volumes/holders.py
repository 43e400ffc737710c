"""Who needs the files of a volume right now, and with that: when one that has options is mounted.

A volume with options is nothing but a mount over its `_data`. It comes with its first holder and goes with
its last, so what was in a tmpfs is gone then, as with Docker. Holders are the ids of running containers, and
for a moment whoever copies something in or out.

The kernel knows what is mounted, and running containers are found again: an engine that was killed needs no
record of this. The next one calls `take_up` for each of them, and `sweep` for the rest.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from dockmagic_runtime.kernel import mounts
from dockmagic_runtime.volumes import options


class Held(Protocol):
    """What is needed of a volume here."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def options(self) -> dict[str, str]: ...


class Holders:
    """The holders of all volumes of one engine."""

    def __init__(self) -> None:
        self._holders: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._volumes: dict[str, Held] = {}
        # Of volumes with options, and never dropped: whoever waits for one must wait for the same one.
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, name: str) -> list[str]:
        """What they are called, which several may share."""
        return sorted(self._holders.get(name, {}).values())

    async def hold(self, volume: Held, holder: str, called: str = "") -> None:
        """The volume's files are at its path until `release`. Raises SystemFailure: it can't be mounted."""
        self.take_up(volume, holder, called)  # at once, so that nobody removes the volume meanwhile
        if volume.options:
            try:
                async with self._locks[volume.name]:
                    await asyncio.to_thread(_mount, volume)
            except BaseException:
                await self.release(volume, holder)
                raise

    async def release(self, volume: Held, holder: str) -> None:
        """Releasing twice is releasing once."""
        name = volume.name
        self._holders[name].pop(holder, None)
        if volume.options:
            async with self._locks[name]:
                if not self._holders[name]:
                    await asyncio.to_thread(_unmount, volume)
        if not self._holders[name]:  # somebody may have come while we waited
            self._holders.pop(name, None)
            self._volumes.pop(name, None)

    async def release_all(self, holder: str) -> None:
        """Whatever it holds."""
        for volume in [self._volumes[name] for name, who in self._holders.items() if holder in who]:
            await self.release(volume, holder)

    def take_up(self, volume: Held, holder: str, called: str = "") -> None:
        """A holder of the last engine's, which has its mount."""
        self._holders[volume.name][holder] = called or holder
        self._volumes[volume.name] = volume

    def sweep(self, volumes: Iterable[Held]) -> None:
        """Unmount what the last engine mounted and nobody holds."""
        for volume in volumes:
            if volume.options and not self._holders.get(volume.name):
                _unmount(volume)


def _mount(volume: Held) -> None:
    if not mounts.is_mount_point(volume.path):
        options.mount(volume.options, volume.path)


def _unmount(volume: Held) -> None:
    while mounts.is_mount_point(volume.path):
        mounts.umount(str(volume.path), mounts.MNT_DETACH)
