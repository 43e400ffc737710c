"""Streams between the event loop, which has the clients, and threads, which do the blocking work.

Each is a pipe(2): the kernel does the buffering and the waiting on both sides, and either end learns by it
that the other is gone.
"""

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import BinaryIO, TypeVar

Result = TypeVar("Result")

_CHUNK = 1 << 18


def in_own_thread(work: Callable[[], Result]) -> "asyncio.Future[Result]":
    """Run `work` in a thread of its own: what may wait for the event loop must not take a place in a pool."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  raised again by whoever awaits the future
            loop.call_soon_threadsafe(_settle, future.set_exception, error, future)
        else:
            loop.call_soon_threadsafe(_settle, future.set_result, result, future)

    threading.Thread(target=run, name="blocking-work").start()
    return future


async def settled(future: "asyncio.Future[Result]") -> None:
    """Wait for a thread that was told to stop, however often we are cancelled meanwhile. Drops its error."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((future,))
    if not future.cancelled():
        future.exception()


def _wide_pipe() -> tuple[int, int]:
    """With room for a megabyte, so that the two sides wait for each other less often."""
    read_end, write_end = os.pipe()
    # More than the limit for users without privileges is refused: then it stays at the usual 64 KB.
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 1 << 20)
    return read_end, write_end


async def feed(chunks: AsyncIterable[bytes], work: Callable[[BinaryIO], Result]) -> Result:
    """The result of `work`, called in a thread with `chunks` as a blocking stream.

    If `chunks` raises, or this is cancelled, the stream ends early, `work` is waited for, its result is
    dropped, and the error goes on.
    """
    loop = asyncio.get_running_loop()
    read_end, write_end = _wide_pipe()
    source = os.fdopen(read_end, "rb", buffering=_CHUNK)

    def run() -> Result:
        with source:
            return work(source)

    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(write_end, "wb", buffering=0)
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    working = in_own_thread(run)
    try:
        async for chunk in chunks:
            try:
                writer.write(chunk)
                await writer.drain()
            except (BrokenPipeError, ConnectionResetError):
                break  # The thread has stopped reading; its result says why.
        writer.close()
        return await asyncio.shield(working)
    except BaseException:
        if not transport.is_closing():
            transport.abort()
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


def _settle(action: Callable[..., None], value: object, future: "asyncio.Future[Result]") -> None:
    if not future.done():
        action(value)
