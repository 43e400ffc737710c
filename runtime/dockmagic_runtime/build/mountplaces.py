"""Mount points for `RUN --mount` that the image lacks.

Made in the step's own upper directory they would be part of its layer, and to take them out again is to
walk a tree that a step has written (CVE-2024-23652). So they are made in a read-only layer of the step's,
below its upper directory, with the image's own attributes on the directories that it shares with it:
as the init layer is (`storage/initlayer.py`).
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dockmagic_runtime.kernel import paths
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs

# Here the container has file systems of its own.
_KERNELS = ("/dev", "/proc", "/sys")


def with_places(rootfs: Rootfs, targets: Iterable[tuple[str, bool]], directory: Path) -> Rootfs:
    """`rootfs` with a place for each target (path, whether a directory), made in the new `directory`."""
    wanted = [
        (target, is_directory)
        for target, is_directory in targets
        if not any(target == top or target.startswith(f"{top}/") for top in _KERNELS)
    ]
    if not wanted:
        return rootfs
    directory.mkdir(parents=True, mode=0o755)
    shared: dict[str, os.stat_result] = {}
    with _view(rootfs) as view:
        for target, is_directory in wanted:
            _make(view, target, is_directory, directory, shared)
        status = os.stat(".", dir_fd=view)
    for path, found in sorted(shared.items(), reverse=True):
        _as(directory / path, found)
    _as(directory, status)
    return replace(rootfs, lower=(str(directory), *rootfs.lower))


def _make(
    view: int, target: str, is_directory: bool, directory: Path, shared: dict[str, os.stat_result]
) -> None:
    parts = [part for part in target.split("/") if part]
    for count in range(len(parts), -1, -1):
        try:
            fd = paths.open_in_root(view, "/".join(parts[:count]) or ".")
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            missing = parts[count:]
            if not missing or not stat.S_ISDIR(os.fstat(fd).st_mode) or paths.exists_at(fd, missing[0]):
                # It is there; or in its way is a file, of which the mount will complain, or a link into
                # nothing, which the mount will follow.
                return
            top = Path(f"/proc/self/fd/{view}").readlink()
            above = Path(f"/proc/self/fd/{fd}").readlink().relative_to(top)
        finally:
            os.close(fd)
        for number in range(1, len(above.parts) + 1):
            path = "/".join(above.parts[:number])
            shared[path] = os.stat(path, dir_fd=view)
            (directory / path).mkdir(mode=0o755, exist_ok=True)
        place = directory / above
        for name in missing if is_directory else missing[:-1]:
            place /= name
            place.mkdir(mode=0o755, exist_ok=True)
        if not is_directory:
            (place / missing[-1]).touch(mode=0o644)
        return


def _as(path: Path, status: os.stat_result) -> None:
    os.chown(path, status.st_uid, status.st_gid)
    path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def _view(rootfs: Rootfs) -> Iterator[int]:
    view = mount_rootfs(Rootfs(rootfs.lower))
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=view)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(view)
