"""Where something is mounted or made in a container's root: opened as if chrooted there, made if missing.

Each is a descriptor (O_PATH): it stays where it is, whatever is renamed meanwhile.
"""

import errno
import os

from dockmagic_runtime.kernel import paths


def make(root: int, path: str, *, directory: bool) -> int:
    """Open `path`, made if missing. Below /dev and /sys no link is followed, nor is /dev itself one."""
    kernel_owned = any(below(path, top) is not None for top in ("/dev", "/sys", "/proc"))
    try:
        return paths.make_in_root(root, path, directory=directory, symlinks=not kernel_owned)
    except OSError as error:
        if error.errno == errno.ELOOP and kernel_owned:
            raise OSError(error.errno, f"{path} must not be a symbolic link in the image") from None
        raise


def make_ordinary(root: int, path: str, kind: str) -> int:
    """The very directory `path`, for a file system of that `kind`: no link leads to it."""
    try:
        return paths.make_in_root(root, path, directory=True, symlinks=False)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(
                error.errno, f'filesystem "{kind}" must be mounted on ordinary directory: {path}'
            ) from None
        raise


def existing(root: int, path: str) -> int | None:
    """Open `path` without following links, if it is there."""
    try:
        return paths.open_in_root(root, path, symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def clean(path: str) -> str:
    return os.path.normpath("/" + path.lstrip("/"))


def below(path: str, top: str) -> str | None:
    """What follows `top` in `path` (empty for itself), None if it lies elsewhere."""
    cleaned = clean(path)
    if cleaned == top:
        return ""
    return cleaned[len(top) + 1 :] if cleaned.startswith(top + "/") else None
