"""Writing out what the kernel still keeps of a file system in memory: syncfs(2)."""

import ctypes
import os
from pathlib import Path

from dockmagic_runtime.kernel import paths
from dockmagic_runtime.kernel.libc import fail

_syncfs = ctypes.CDLL(None, use_errno=True).syncfs


def syncfs(path: Path) -> None:
    """Return when all that was written to the file system of `path` is on its disk.

    One call, instead of an fsync for each of many files. Raises OSError.
    """
    with paths.opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        if _syncfs(fd) == -1:
            raise fail(os.fspath(path))
