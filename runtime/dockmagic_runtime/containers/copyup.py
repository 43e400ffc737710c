"""Copy-up: an empty volume mounted over a directory of the image starts with that directory's content.

Docker's rule: named and anonymous volumes only, only while the volume is empty, never with `nocopy`. The
image's side is read through a detached read-only mount and by descriptor, so that its symbolic links lead
nowhere else.
"""

import os
import shutil
import stat
from typing import Any

from dockmagic_runtime.kernel.paths import open_in_root
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs

Json = dict[str, Any]


def copy_up(points: list[Json], rootfs: Rootfs) -> None:
    """Fill the empty volumes among `points` from the image below `rootfs`."""
    wanting = [
        point
        for point in points
        if point["Type"] == "volume" and "nocopy" not in point["Mode"].split(",") and _empty(point["Source"])
    ]
    if not wanting:
        return
    root = mount_rootfs(Rootfs(lower=rootfs.lower, host=rootfs.host))
    try:
        for point in wanting:
            _copy(root, point["Destination"], point["Source"])
    finally:
        os.close(root)


def _empty(path: str) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is None


def _copy(root: int, source: str, target: str) -> None:
    try:
        directory = open_in_root(root, source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # the image has no such directory
    try:
        here = f"/proc/self/fd/{directory}"
        _copy_tree(here, target)
        _own(os.fstat(directory), target)
    finally:
        os.close(directory)


def _copy_tree(source: str, target: str) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            copy = f"{target}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)  # noqa: PTH115, PTH211
                os.chown(copy, status.st_uid, status.st_gid, follow_symlinks=False)
            elif entry.is_dir(follow_symlinks=False):
                os.mkdir(copy)  # noqa: PTH102
                _copy_tree(entry.path, copy)
                _own(status, copy)
            elif stat.S_ISREG(status.st_mode):
                shutil.copyfile(entry.path, copy)
                _own(status, copy)
            else:
                os.mknod(copy, status.st_mode, status.st_rdev)
                _own(status, copy)


def _own(status: os.stat_result, path: str) -> None:
    # chown first: it clears the setuid bit that chmod then brings back.
    os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode))  # noqa: PTH101
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
