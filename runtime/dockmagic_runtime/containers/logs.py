"""What a container wrote: its log, read back whole, from the end, or as it grows.

The shim appends; we only read. Following waits for inotify(7) events on the file's directory and ends when
the container does. Where the log goes on in a new file, the shim hands that file itself to those who follow:
whatever becomes of its name, nothing of it is lost, however slow the client is.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

from dockmagic_runtime.containers.logfiles import LogFile, LogFiles
from dockmagic_runtime.containers.loglines import LogQuery, Rendering
from dockmagic_runtime.kernel.inotify import Watch
from dockmagic_runtime.process.client import Shim
from dockmagic_runtime.process.messages import StartFailed, receive

_SMALL = 1 << 16


async def read(path: Path, query: LogQuery) -> AsyncGenerator[bytes, None]:
    """What the log holds now, oldest first, in pieces of some hundred kilobytes."""
    with LogFiles(path, query.tail) as files:
        if files.size <= _SMALL:
            for piece in _rendered(files, query):
                yield piece
        else:
            async with contextlib.aclosing(_in_thread(_rendered(files, query))) as pieces:
                async for piece in pieces:
                    yield piece


def _rendered(files: LogFiles, query: LogQuery) -> Iterator[bytes]:
    rendering = Rendering(query)
    for block in files.blocks():
        yield rendering.of(block)
        if rendering.over:
            return


async def follow(path: Path, query: LogQuery, shim: Shim) -> AsyncGenerator[bytes, None]:
    """First what `read` gives, then every new line, until the container has ended and all is read.

    The very first piece is empty: it says that the place to begin at is fixed.
    """
    rendering = Rendering(query)
    with _Successors() as successors:
        await successors.order(shim)
        with Watch(path.parent) as watch, LogFiles(path, query.tail) as files:
            yield b""
            while True:
                over = shim.exited.done() or 0 < query.until <= time.time_ns()
                # Before the reading: what is in the file before a new one is complete.
                successors.hand_to(files)
                async with contextlib.aclosing(_in_thread(map(rendering.of, files.rest()))) as pieces:
                    async for piece in pieces:
                        yield piece
                        if rendering.over:
                            return
                if over:
                    return
                await _news(watch, successors, shim, query.until)


async def _news(watch: Watch, successors: "_Successors", shim: Shim, until: int) -> None:
    """Wait for more in the file, a new file, the end of the container, or the time `until`."""
    left = (until - time.time_ns()) / 1e9 if until else None
    news = [asyncio.ensure_future(watch.wait()), asyncio.ensure_future(successors.wait())]
    waits: set[asyncio.Future[Any]] = {*news, shim.exited}
    try:
        await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in news:
            wait.cancel()
        # They are still at descriptors that will be closed.
        await asyncio.gather(*news, return_exceptions=True)


class _Successors:
    """The new files of a log, passed by the shim as it begins them; the channel is where they wait for us."""

    def __init__(self) -> None:
        self._channel, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        self._over = False

    def __enter__(self) -> "_Successors":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._theirs.close()

    async def order(self, shim: Shim) -> None:
        with contextlib.suppress(StartFailed):  # it has just ended
            await shim.request({"do": "follow"}, [self._theirs])

    def hand_to(self, files: LogFiles) -> None:
        """All that have come. After the end there is none, or the shim has given us up as too slow."""
        while not self._over:
            try:
                data, descriptors = receive(self._channel, 1)
            except BlockingIOError:
                return
            for descriptor in descriptors:
                files.add(LogFile(f"/proc/self/fd/{descriptor}"))
                os.close(descriptor)
            self._over = not data
        files.look()

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        if not self._over:
            loop.add_reader(self._channel, _resolve, readable)
        try:
            await readable
        finally:
            loop.remove_reader(self._channel)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def _in_thread(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same pieces, made in threads: nobody else waits, and the next is made while one is sent."""

    def begin() -> "asyncio.Future[bytes | None]":
        return asyncio.ensure_future(asyncio.to_thread(next, pieces, None))

    step = begin()
    try:
        while (piece := await asyncio.shield(step)) is not None:
            step = begin()
            yield piece
    finally:
        # What reads the files must be through with them before they are closed.
        await asyncio.wait([step])
