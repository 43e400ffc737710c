"""How overlayfs writes deletions on disk, and how OCI layers write them in tar (image-spec, `layer.md`).

    deleted                        on disk                             in tar
    a file or a whole directory    character device 0/0 of its name    `.wh.<name>`
    what a directory had below     xattr trusted.overlay.opaque = y    `<directory>/.wh..wh..opq`

Also which extended attributes belong to a file and travel with it: its capabilities and the user's own.
Overlayfs' private ones never do: from a tar they could point a directory anywhere (`redirect`).
"""

import os
import stat
import sys
from errno import ENODATA, ENOTSUP

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_PATH_CHANGING = ("trusted.overlay.redirect", "trusted.overlay.metacopy")


def names(directory: int) -> set[bytes]:
    """What an open directory has."""
    with os.scandir(directory) as entries:
        return {os.fsencode(entry.name) for entry in entries}


def listed(directory: int) -> list[tuple[bytes, bool]]:
    """What an open directory has, by name, and whether it is a regular file."""
    with os.scandir(directory) as entries:
        found = [
            # As os.fsencode does, which is slow for so many.
            (entry.name.encode(_ENCODING, _ERRORS), entry.is_file(follow_symlinks=False))
            for entry in entries
        ]
    return sorted(found)


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make_whiteout(directory: int, name: bytes) -> None:
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)


def is_opaque(directory: int) -> bool:
    """Whether what lower layers have in this directory (a descriptor) is hidden."""
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError as error:
        if error.errno in (ENODATA, ENOTSUP):
            return False
        raise


def make_opaque(directory: int) -> None:
    os.setxattr(directory, OPAQUE_XATTR, b"y")


def is_portable(xattr: str) -> bool:
    """Whether an extended attribute travels with its file."""
    return xattr == "security.capability" or (
        xattr.startswith("user.") and not xattr.startswith("user.overlay.")
    )


def portable_xattrs(fd: int) -> dict[bytes, bytes]:
    """The extended attributes of an open file or directory that travel with it.

    Raises ValueError if overlayfs keeps part of this file elsewhere, so that its tree does not stand alone.
    """
    try:
        attributes = os.listxattr(fd)
    except OSError as error:
        if error.errno == ENOTSUP:
            return {}
        raise
    if any(name in _PATH_CHANGING for name in attributes):
        raise ValueError("this overlay was mounted with redirect_dir or metacopy")
    return {os.fsencode(name): os.getxattr(fd, name) for name in attributes if is_portable(name)}
