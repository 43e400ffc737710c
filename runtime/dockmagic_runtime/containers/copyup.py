"""Copy-up: an empty volume mounted over a directory of the image starts with that directory's content.

Docker's rule: named and anonymous volumes only, when a container is created with them, only while the
volume is empty, never with `nocopy`. The image's side is read through a detached read-only mount and by
descriptor, so that its symbolic links lead nowhere else.
"""

import os
from typing import Any

from dockmagic_runtime.containers.mountpoints import option
from dockmagic_runtime.kernel.paths import open_in_root
from dockmagic_runtime.process import copyup
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs

Json = dict[str, Any]


def wanting(points: list[Json]) -> list[Json]:
    """Those among `points` that are empty volumes to be filled."""
    return [
        point
        for point in points
        if point["Type"] == "volume" and not option(point, "NoCopy") and _empty(point["Source"])
    ]


def copy_up(points: list[Json], rootfs: Rootfs) -> None:
    """Fill the volumes of `points`, which are empty, from the image below `rootfs`."""
    if rootfs.host:
        return
    root = mount_rootfs(Rootfs(lower=rootfs.lower))
    try:
        for point in points:
            _copy(root, point["Destination"], point["Source"])
    finally:
        os.close(root)


def _empty(path: str) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is None


def _copy(root: int, source: str, target: str) -> None:
    try:
        image = open_in_root(root, source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # the image has no such directory
    volume = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        copyup.copy_up(image, volume)
    finally:
        os.close(volume)
        os.close(image)
