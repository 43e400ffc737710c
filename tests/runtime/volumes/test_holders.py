"""Who comes while the last one goes: a volume is mounted as long as anybody holds it, with real mounts."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dockmagic_runtime.kernel import mounts
from dockmagic_runtime.volumes.holders import Holders


@dataclass(frozen=True)
class Tmpfs:
    path: Path
    name: str = "fast"
    options: dict[str, str] = field(default_factory=lambda: {"type": "tmpfs", "device": "tmpfs"})


@pytest.fixture
def volume(tmp_path: Path) -> Tmpfs:
    (tmp_path / "_data").mkdir()
    return Tmpfs(tmp_path / "_data")


async def test_many_come_and_go_at_once(volume: Tmpfs) -> None:
    holders = Holders()

    async def use(number: int) -> None:
        for turn in range(30):
            await holders.hold(volume, f"{number}-{turn}", "use")
            assert mounts.is_mount_point(volume.path) and "use" in holders.of("fast")
            await asyncio.sleep(0)
            assert mounts.is_mount_point(volume.path) and "use" in holders.of("fast")
            await holders.release(volume, f"{number}-{turn}")

    await asyncio.gather(*map(use, range(6)))
    assert holders.of("fast") == [] and not mounts.is_mount_point(volume.path)
    assert not (holders._holders or holders._volumes)


async def test_who_comes_while_it_is_unmounted_is_known(volume: Tmpfs) -> None:
    holders = Holders()
    await holders.hold(volume, "first")
    going = asyncio.create_task(holders.release(volume, "first"))
    await asyncio.sleep(0)  # it has begun
    await holders.hold(volume, "second")
    await going
    assert holders.of("fast") == ["second"] and mounts.is_mount_point(volume.path)
    await holders.release_all("second")
    assert not mounts.is_mount_point(volume.path)
