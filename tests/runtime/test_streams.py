"""Bytes on their way between the event loop and threads: all of them, in order, and either end may go."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from typing import BinaryIO

import pytest
from dockmagic_runtime import streams

PIECES = [bytes([number]) * (number * 4000) for number in range(1, 60)]


async def given(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def summed(source: BinaryIO) -> str:
    return hashlib.sha256(source.read()).hexdigest()


async def test_all_that_is_fed_arrives() -> None:
    assert await streams.feed(given(*PIECES), summed) == hashlib.sha256(b"".join(PIECES)).hexdigest()
    assert await streams.feed(given(), summed) == hashlib.sha256().hexdigest()


async def test_reads_are_as_long_as_asked_for() -> None:
    def read(source: BinaryIO) -> list[int]:
        return [len(source.read(size)) for size in (1, 10_000, 3_000_000, 1)]

    whole = sum(map(len, PIECES))
    assert await streams.feed(given(*PIECES), read) == [1, 10_000, 3_000_000, 1]
    assert await streams.feed(given(*PIECES), lambda source: len(source.read())) == whole


async def test_what_is_not_read_waits_outside() -> None:
    """A thread that does not read holds back whoever sends; nothing is piled up in memory."""
    taken, go = [], threading.Event()

    async def endless() -> AsyncIterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield bytes(1 << 20)

    def read(source: BinaryIO) -> int:
        go.wait(10)
        return len(source.read())

    feeding = asyncio.ensure_future(streams.feed(endless(), read))
    while len(taken) < 2:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(taken) <= 3
    go.set()
    assert await feeding == 100 << 20


async def test_a_thread_that_stops_reading_ends_it() -> None:
    sent = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent.append(1)
            yield bytes(1 << 16)

    assert await streams.feed(endless(), lambda source: len(source.read(10))) == 10
    assert sent


async def test_what_the_thread_raises_is_raised() -> None:
    def fails(source: BinaryIO) -> None:
        raise ValueError(source.read(3))

    with pytest.raises(ValueError, match="b'abc'"):
        await streams.feed(given(b"abcdef"), fails)


async def test_an_error_of_the_sender_ends_the_stream_and_is_raised() -> None:
    read: list[bytes] = []

    async def breaks() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await streams.feed(breaks(), lambda source: read.append(source.read()))
    assert read == [b"abc"]


async def test_an_interrupt_waits_for_the_thread() -> None:
    reading, ended = threading.Event(), threading.Event()

    async def silent() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    def read(source: BinaryIO) -> None:
        reading.set()
        source.read()
        ended.set()

    feeding = asyncio.ensure_future(streams.feed(silent(), read))
    await asyncio.to_thread(reading.wait, 10)
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding
    assert ended.is_set()


async def test_all_that_is_tapped_arrives() -> None:
    def write(sink: BinaryIO) -> None:
        for piece in PIECES:
            sink.write(piece)

    assert b"".join([piece async for piece in streams.tap(write)]) == b"".join(PIECES)


async def test_a_reader_that_stops_is_told_to_the_thread() -> None:
    told = threading.Event()

    def write(sink: BinaryIO) -> None:
        try:
            while True:
                sink.write(bytes(1 << 16))
        except BrokenPipeError:
            told.set()
            raise

    tapped = streams.tap(write)
    assert await anext(tapped)
    await tapped.aclose()
    assert told.is_set()
