"""Blocking work of a build, in threads."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from dockmagic_runtime.images import pipes

Result = TypeVar("Result")


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run blocking work in a thread. An interrupt waits for its end, so that what it uses can be removed."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


@asynccontextmanager
async def beside(function: Callable[..., Any], *arguments: Any) -> AsyncIterator[None]:
    """Blocking work in a thread beside the block, which waits for it at its end and raises what it raised."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        yield
    finally:
        await pipes.settled(work)
    work.result()
