"""Streams of bytes between the event loop, which has the clients, and threads, which do the blocking work."""

import asyncio
import io
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Any, BinaryIO, TypeVar

from dockmagic_runtime.threads import in_own_thread, settled

Result = TypeVar("Result")

_CHUNK = 1 << 18
_AHEAD = 1 << 20
"""Bytes that may wait for a thread to read them."""


class _Inflow(io.RawIOBase):
    """Bytes that the event loop puts in and a thread reads.

    Not a pipe: of a context of many megabytes the kernel would copy every byte twice. Where more than _AHEAD
    bytes wait to be read, `put` waits.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[memoryview] = deque()
        self._waiting = 0
        self._ended = False
        self._changed = threading.Condition()
        self._room = asyncio.Event()

    async def put(self, piece: bytes) -> None:
        """Raises BrokenPipeError if nobody reads any more."""
        with self._changed:
            if self.closed:
                raise BrokenPipeError
            self._pieces.append(memoryview(piece))
            self._waiting += len(piece)
            self._room.clear()
            full = self._waiting > _AHEAD
            self._changed.notify()
        if full:
            await self._room.wait()

    def end(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Waits for bytes; 0 is the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._ended)
            if not self._pieces:
                return 0
            piece = self._pieces.popleft()
            count = min(len(piece), len(buffer))
            if count < len(piece):
                self._pieces.appendleft(piece[count:])
            was_full = self._waiting > _AHEAD
            self._waiting -= count
            if was_full and self._waiting <= _AHEAD:
                self._loop.call_soon_threadsafe(self._room.set)
        buffer[:count] = piece[:count]
        return count

    def close(self) -> None:
        if not self.closed:
            with self._changed:
                super().close()
                self._loop.call_soon_threadsafe(self._room.set)


async def feed(chunks: AsyncIterable[bytes], work: Callable[[BinaryIO], Result]) -> Result:
    """The result of `work`, called in a thread with `chunks` as a blocking stream.

    If `chunks` raises, or this is cancelled, the stream ends early, `work` is waited for, its result is
    dropped, and the error goes on.
    """
    inflow = _Inflow()

    def run() -> Result:
        with io.BufferedReader(inflow, _CHUNK) as source:
            return work(source)

    working = in_own_thread(run)
    try:
        async for chunk in chunks:
            try:
                await inflow.put(chunk)
            except BrokenPipeError:
                break  # The thread has stopped reading; its result says why.
        inflow.end()
        return await asyncio.shield(working)
    except BaseException:
        inflow.end()
        await settled(working)
        raise


async def tap(work: Callable[[BinaryIO], None]) -> AsyncGenerator[bytes, None]:
    """What `work`, in a thread, writes to the stream it is given.

    If the reader stops early, `work` gets BrokenPipeError at its next write, and is waited for.
    """
    loop = asyncio.get_running_loop()
    read_end, write_end = os.pipe()
    sink = os.fdopen(write_end, "wb", buffering=_CHUNK)

    def run() -> None:
        with sink:
            work(sink)

    reader = asyncio.StreamReader(limit=_CHUNK)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    working = in_own_thread(run)
    try:
        while chunk := await reader.read(_CHUNK):
            yield chunk
        await asyncio.shield(working)
    finally:
        transport.close()
        # The transport closes its end in the next round of the loop; until then a full pipe holds the thread.
        await settled(working)
