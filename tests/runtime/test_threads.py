"""Work in threads beside the event loop: nothing of it is lost, nor left running."""

import asyncio
import threading

import pytest
from dockmagic_runtime.threads import beside, in_thread


async def test_beside_goes_on_meanwhile_and_is_waited_for() -> None:
    met, ended = threading.Barrier(2, timeout=10), threading.Event()

    def work() -> None:
        met.wait()
        ended.set()

    async with beside(work):
        await in_thread(met.wait)  # it comes to the barrier only if both run at once
    assert ended.is_set()


async def test_what_it_raises_is_raised_at_the_end() -> None:
    def fails() -> None:
        raise OSError(5, "Input/output error")

    reached = False
    with pytest.raises(OSError, match="Input/output"):
        async with beside(fails):
            reached = True
    assert reached


async def test_an_interrupt_waits_for_it() -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(10)
        ended.set()

    async def block() -> None:
        async with beside(work):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await in_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
