"""Waiting for files to change: inotify(7), on an asyncio loop."""

import asyncio
import ctypes
import os
from pathlib import Path

IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """A watch on one directory: `wait` returns when something in it was written, made or renamed.

    Changes between two calls are not lost: the second returns at once.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = _libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify_init1")
        mask = IN_MODIFY | IN_MOVED_TO | IN_CREATE
        if _libc.inotify_add_watch(self._descriptor, os.fsencode(directory), mask) < 0:
            error = ctypes.get_errno()
            os.close(self._descriptor)
            raise OSError(error, os.strerror(error), str(directory))

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        readable = loop.create_future()

        def wake() -> None:
            if not readable.done():
                readable.set_result(None)

        loop.add_reader(self._descriptor, wake)
        try:
            await readable
            os.read(self._descriptor, 1 << 16)
        finally:
            loop.remove_reader(self._descriptor)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
