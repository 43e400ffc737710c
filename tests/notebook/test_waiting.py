"""Waits: order and batching of output, Stop at every moment, and nothing left behind."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dockmagic import waiting
from dockmagic.errors import Interrupted
from dockmagic.waiting import Cell, wait_async, wait_blocking

Wait = Callable[[Cell, Callable[[Cell], Any]], Any]


def wait_in_loop(cell: Cell, work: Callable[[Cell], Any]) -> Any:
    coroutine: Coroutine[Any, Any, Any] = wait_async(cell, work)
    return asyncio.run(coroutine)


@pytest.fixture(params=[wait_blocking, wait_in_loop])
def wait(request: pytest.FixtureRequest) -> Wait:
    return request.param


def press_stop(after: float) -> list[float]:
    """Press Stop in `after` seconds; the answer gets the moment."""
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(after, press).start()
    return pressed


def test_value_and_error(wait: Wait) -> None:
    def fails(_cell: Cell) -> None:
        raise KeyError("inside")

    assert wait(Cell(), lambda cell: 42) == 42
    with pytest.raises(KeyError, match="inside"):
        wait(Cell(), fails)


def test_output_keeps_its_order_and_comes_while_the_command_runs(
    wait: Wait, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    seen = threading.Event()

    def work(cell: Cell) -> None:
        cell.write("a")
        cell.write("b")
        cell.write("!", "stderr")
        cell.call(calls.append, "shown")
        cell.call(seen.set)
        assert seen.wait(5)
        cell.write("c")

    wait(Cell(), work)
    captured = capsys.readouterr()
    assert (captured.out, captured.err, calls) == ("abc", "!", ["shown"])


def test_neighbouring_writes_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(waiting, "_write", lambda stream, text: written.append((stream, text)))
    cell = Cell()
    for word in ("a", "b", "c"):
        cell.write(word)
    cell.write("x", "stderr")
    cell.write("d")
    cell.flush()
    assert written == [("stdout", "abc"), ("stderr", "x"), ("stdout", "d")]


def test_a_command_far_ahead_of_the_notebook_waits() -> None:
    cell = Cell()
    done = threading.Event()

    def flood() -> None:
        for _ in range(3):
            cell.write("x" * waiting.BACKLOG)
        done.set()

    threading.Thread(target=flood, daemon=True).start()
    assert not done.wait(0.2)
    deadline = time.monotonic() + 5
    while not done.wait(0.01):
        assert time.monotonic() < deadline
        cell.flush()


def test_stop_ends_a_wait_on_the_engine_within_100_ms(wait: Wait) -> None:
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    def work(_cell: Cell) -> bytes:
        waiting.track(ours)
        try:
            return ours.recv(1)
        finally:
            ended.set()

    pressed = press_stop(0.2)
    with pytest.raises(Interrupted):
        wait(Cell(), work)
    assert time.monotonic() - pressed[0] < 0.1
    assert ended.wait(1), "the command's thread must end too"
    assert theirs.recv(1) == b"", "the engine must see the connection end"
    ours.close()
    theirs.close()


def test_a_command_that_knows_what_stop_means_finishes_by_itself(wait: Wait) -> None:
    told = threading.Event()

    def work(cell: Cell) -> str:
        with cell.on_interrupt(told.set):
            assert told.wait(5)
        return "ended"

    pressed = press_stop(0.2)
    assert wait(Cell(), work) == "ended"
    assert time.monotonic() - pressed[0] < 0.2


def test_the_second_stop_does_not_wait(wait: Wait) -> None:
    ours, theirs = socket.socketpair()

    def work(cell: Cell) -> bytes:
        waiting.track(ours)
        with cell.on_interrupt(lambda: None):
            return ours.recv(1)

    press_stop(0.1)
    pressed = press_stop(0.4)
    with pytest.raises(Interrupted):
        wait(Cell(), work)
    assert time.monotonic() - pressed[0] < 0.1
    ours.close()
    theirs.close()


def test_the_handler_of_sigint_is_given_back(wait: Wait) -> None:
    before = signal.getsignal(signal.SIGINT)
    wait(Cell(), lambda cell: None)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_is_no_exception_that_a_loop_swallows() -> None:
    assert not issubclass(Interrupted, Exception)
    assert issubclass(Interrupted, KeyboardInterrupt)


async def test_the_loop_lives_while_a_cell_awaits() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    task = asyncio.create_task(other())
    await wait_async(Cell(), lambda cell: time.sleep(0.3))
    task.cancel()
    assert turns > 5
