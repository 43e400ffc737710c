"""Blocking work in threads, beside the event loop that waits for it.

A thread cannot be interrupted: whoever is cancelled while it waits for one waits for its end all the same, so
that what the thread uses is free afterwards.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run blocking work in a thread. An interrupt waits for its end, so that what it uses can be removed."""
    return await _to_its_end(asyncio.ensure_future(asyncio.to_thread(function, *arguments)))


class Pool:
    """A few threads for the work of one part of the engine, which so never waits for another's."""

    def __init__(self, most: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=most, thread_name_prefix=name)

    async def run(self, function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """As `in_thread`."""
        work = partial(function, *arguments, **named)
        return await _to_its_end(asyncio.get_running_loop().run_in_executor(self._executor, work))

    def close(self) -> None:
        self._executor.shutdown()


async def _to_its_end(work: "asyncio.Future[Result]") -> Result:
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()
        raise


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


def _settle(action: Callable[..., None], value: object, future: "asyncio.Future[Result]") -> None:
    if not future.done():
        action(value)
