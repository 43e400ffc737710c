"""What a container changed: `docker diff`, from its upper directory and a view of what lies below.

Docker's rules (moby `pkg/archive`, `changes.go`): a file is modified if its mode, owner, device, size or time
differ, a directory if its mode or owner do; what was deleted or replaced is reported at its top only; and
every directory above a change counts as modified.
"""

import os
import stat

from dockmagic_runtime.kernel import paths
from dockmagic_runtime.storage import overlayform

MODIFIED, ADDED, DELETED = 0, 1, 2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def changes(upper: int, below: int) -> list[tuple[int, str]]:
    """(kind, absolute path), parents first, by name. Both are directory descriptors."""
    found: dict[bytes, int] = {}
    pending = [(b"", True)]
    while pending:
        path, exists_below = pending.pop()
        pending += _directory(upper, below if exists_below else None, path, found)
    for path in list(found):
        while (path := path.rpartition(b"/")[0]) and path not in found:
            found[path] = MODIFIED
    ordered = sorted(found, key=lambda path: path.split(b"/"))
    return [(found[path], "/" + os.fsdecode(path)) for path in ordered]


def _directory(
    upper: int, below: int | None, path: bytes, found: dict[bytes, int]
) -> list[tuple[bytes, bool]]:
    """Compare one directory; returns the subdirectories to go on with, and whether each is one below too."""
    inside = path + b"/" if path else b""
    subdirectories: list[tuple[bytes, bool]] = []
    over = _open(upper, path)
    under = _open(below, path) if below is not None else None
    try:
        names = overlayform.names(over)
        for name in names:
            new = os.stat(name, dir_fd=over, follow_symlinks=False)
            old = _status(under, name)
            if overlayform.is_whiteout(new):
                if old:
                    found[inside + name] = DELETED
                continue
            if old is None:
                found[inside + name] = ADDED
            elif _differ(old, new):
                found[inside + name] = MODIFIED
            if stat.S_ISDIR(new.st_mode):
                subdirectories.append((inside + name, bool(old and stat.S_ISDIR(old.st_mode))))
        if under is not None and path and overlayform.is_opaque(over):
            for name in overlayform.names(under) - names:
                found[inside + name] = DELETED
    finally:
        os.close(over)
        if under is not None:
            os.close(under)
    return subdirectories


def _open(root: int, path: bytes) -> int:
    return paths.openat2(root, os.fsdecode(path) or ".", _DIRECTORY, paths.RESOLVE_NO_SYMLINKS)


def _status(directory: int | None, name: bytes) -> os.stat_result | None:
    if directory is None:
        return None
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _differ(old: os.stat_result, new: os.stat_result) -> bool:
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (
        new.st_mode,
        new.st_uid,
        new.st_gid,
        new.st_rdev,
    ):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return old.st_size != new.st_size or old.st_mtime_ns != new.st_mtime_ns
