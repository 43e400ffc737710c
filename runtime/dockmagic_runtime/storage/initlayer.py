"""The init layer (Docker's word): the mount points that every container needs, between image and upper.

`/proc`, `/sys`, `/dev/pts`, `/etc/hosts` and the like must exist to be mounted on. Were they made in the
upper directory, they would turn up in `docker diff` and in every layer that is built. So they are in a
read-only layer of their own, which has just what an image lacks, and the image's own attributes on the
directories that it shares with it. Images that lack the same things share one.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from dockmagic_runtime.kernel import trees
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs

_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
_FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
_LINKS = {"etc/mtab": "/proc/mounts"}

_Fact = tuple[str, int, int, int, int]
"""Path, and for a directory that the image has: mode, uid, gid, mtime in nanoseconds; else -1 and zeros."""


class InitLayers:
    """Made when first asked for, under `root`; each a few empty files, never removed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[tuple[str, ...], Path] = {}
        self._lock = Lock()
        root.mkdir(parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Remove what a crash left half-made."""
        for path in self._root.glob("tmp-*"):
            trees.remove(path)

    def for_image(self, lower: tuple[str, ...]) -> Path:
        """The init layer of the image with these lower directories (topmost first)."""
        with self._lock:
            if lower not in self._known:
                self._known[lower] = self._make(_facts(lower))
            return self._known[lower]

    def _make(self, facts: list[_Fact]) -> Path:
        target = self._root / hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        if target.exists():
            return target
        temporary = Path(tempfile.mkdtemp(prefix="tmp-", dir=self._root))
        for path, *_ in facts:
            _make_mount_point(temporary, path)
        for path, mode, uid, gid, mtime in reversed(facts):
            if mode >= 0:
                os.chown(temporary / path, uid, gid)
                (temporary / path).chmod(mode)
                os.utime(temporary / path, ns=(mtime, mtime))
        temporary.chmod(0o755)
        try:
            temporary.rename(target)
        except OSError:
            # Another store of the same engine was faster, and made the same.
            if not target.exists():
                raise
            trees.remove(temporary)
        return target


def _make_mount_point(root: Path, path: str) -> None:
    if path in _LINKS:
        (root / path).symlink_to(_LINKS[path])
    elif path in _DIRECTORIES:
        (root / path).mkdir(mode=0o755)
    else:
        (root / path).touch(mode=0o755)


def _facts(lower: tuple[str, ...]) -> list[_Fact]:
    """What to make, parents first."""
    if not lower:
        return [(path, -1, 0, 0, 0) for path in sorted((*_DIRECTORIES, *_FILES, *_LINKS))]
    view = mount_rootfs(Rootfs(lower))
    try:
        return list(_missing(view))
    finally:
        os.close(view)


def _missing(view: int) -> Iterator[_Fact]:
    """Walks in order of path, so that a parent has been seen before what is in it."""
    blocked: set[str] = set()
    present: dict[str, os.stat_result] = {}
    told: set[str] = set()
    for path in sorted((*_DIRECTORIES, *_FILES, *_LINKS)):
        parent = path.rpartition("/")[0]
        if parent in blocked:
            # Not a directory: nothing can be mounted in it, and whoever tries is told.
            continue
        if not parent or parent in present:
            status = _status(view, path)
            if status:
                present[path] = status
                if path in _DIRECTORIES and not stat.S_ISDIR(status.st_mode):
                    blocked.add(path)
                continue
        if parent in present and parent not in told:
            told.add(parent)
            above = present[parent]
            yield parent, stat.S_IMODE(above.st_mode), above.st_uid, above.st_gid, above.st_mtime_ns
        yield path, -1, 0, 0, 0


def _status(view: int, path: str) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=view, follow_symlinks=False)
    except FileNotFoundError:
        return None
