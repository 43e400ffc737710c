"""How a cell waits: output while it comes, Stop within 100 ms, and widgets that stay alive.

A command does its requests in a thread of its own. The cell's thread meanwhile ticks every 50 ms: it
writes what has come (so a flood of output becomes at most 20 messages a second) and looks whether Stop
was pressed. There are two ways to tick:

* `wait_async`, when the cell is a coroutine. The extension rewrites a magic at the top of a cell into
  `await …` (see magics.py). Measured with ipykernel 7.4: while a cell awaits, the kernel dispatches
  comm messages on its main loop, so buttons and live views work; while a cell blocks, it does not.
* `wait_blocking`, everywhere else: inside a function, under `%%capture` or `%%time`, in terminal IPython.

Stop is SIGINT. ipykernel turns the first one of an async cell into a cancellation and ignores the
rest, so both waits install their own handler for as long as they last (main thread only; from a
subshell the cancellation is what we see).

What Stop does, in this order: (1) if the command said what an interrupt means (`on_interrupt`; a
foreground run forwards SIGINT to its container), that is done and the wait goes on until the command
ends by itself; (2) otherwise, or on the second Stop, the command's connections are shut down, which
is also what tells the engine to give up a pull or a build; live pictures get their last state, and the cell
ends at once with `Interrupted`.
"""

import asyncio
import contextvars
import signal
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_futures
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from dockmagic.errors import DockmagicError, Interrupted, translate

T = TypeVar("T")

TICK = 0.05  # seconds
BACKLOG = 1 << 18  # characters a command may be ahead of the notebook before it has to wait

_current: contextvars.ContextVar["Cell | None"] = contextvars.ContextVar("dockmagic_cell", default=None)


class Abandoned(BaseException):
    """Ends the thread of a command that nobody waits for any more."""


class Picture(Protocol):
    """What is on the page while a command runs, and changes: a LiveView."""

    def show(self) -> None: ...
    def refresh(self) -> None: ...
    def close(self) -> None: ...


class Cell:
    """The cell that a command runs in, as the command sees it: where it writes, and how it is stopped."""

    def __init__(self, body: str | None = None) -> None:
        self.body = body
        self.interrupts = 0
        self._interrupt_actions: list[Callable[[], None]] = []
        self._pictures: list[Picture] = []
        self._refreshed = 0.0
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._abandoned = False
        self._backlog = 0
        self._queue: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._room = threading.Condition()

    # -- the command's side (its own thread) --

    def write(self, text: str, stream: str = "stdout") -> None:
        """Show `text` in the cell, in order, with the next tick."""
        self._put(len(text), _write, (stream, text))

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Run `function` in the cell's thread with the next tick: displays and widgets belong there."""
        self._put(0, function, args)

    def ask(self, question: str) -> str:
        """What whoever looks at the cell types in answer. Raises DockmagicError where nobody can be asked."""
        answer: Future[str] = Future()
        self.call(_ask, question, answer)
        return answer.result()

    @contextmanager
    def showing(self, picture: Picture) -> Iterator[None]:
        """While inside, `picture` is on the page; afterwards, and after a Stop, with its last state."""
        self._pictures.append(picture)
        self.call(picture.show)
        try:
            yield
        finally:
            self.call(picture.close)
            self._pictures.remove(picture)

    @contextmanager
    def on_interrupt(self, action: Callable[[], None]) -> Iterator[None]:
        """While inside, the first Stop does `action` (in its own thread) and does not end the command."""
        self._interrupt_actions.append(action)
        try:
            yield
        finally:
            self._interrupt_actions.remove(action)

    def _put(self, size: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        with self._room:
            while self._backlog > BACKLOG and not self._abandoned:
                self._room.wait()
            if self._abandoned:
                raise Abandoned
            self._backlog += size
            self._queue.append((function, args))

    # -- the cell's side --

    def flush(self) -> None:
        """Do what the command has queued, joining neighbouring writes to the same stream."""
        with self._room:
            todo = list(self._queue)
            self._queue.clear()
            self._backlog = 0
            self._room.notify_all()
        parts: list[str] = []
        for index, (function, args) in enumerate(todo):
            if function is not _write:
                function(*args)
                continue
            parts.append(args[1])
            following = todo[index + 1] if index + 1 < len(todo) else None
            if following is None or following[0] is not _write or following[1][0] != args[0]:
                _write(args[0], "".join(parts))
                parts.clear()

    def tick(self) -> None:
        """What has come gets out; once a second also what pictures count by themselves, as seconds."""
        self.flush()
        now = time.monotonic()
        if now - self._refreshed >= 1:
            self._refreshed = now
            for picture in list(self._pictures):
                picture.refresh()

    def leave(self) -> None:
        """After `abandon`: what was written still gets out, and no picture stays as if it went on."""
        self.flush()
        for picture in list(self._pictures):
            picture.close()

    def interrupt(self) -> bool:
        """Handle one Stop. True if the command may finish by itself, False if it was abandoned."""
        self.interrupts += 1
        if self.interrupts == 1 and self._interrupt_actions:
            action = self._interrupt_actions[-1]
            threading.Thread(target=action, name="dockmagic-interrupt", daemon=True).start()
            return True
        self.abandon()
        return False

    def abandon(self) -> None:
        """Shut down the command's connections: its thread ends with the next read or write."""
        with self._room:
            self._abandoned = True
            self._room.notify_all()
        for connection in list(self._sockets):
            shut_down(connection)


def use(cell: Cell) -> None:
    """From now on, connections made in this context belong to `cell`."""
    _current.set(cell)


def track(connection: socket.socket) -> None:
    """Note that the command of this thread uses `connection`, so that Stop can shut it down."""
    cell = _current.get()
    if cell is None:
        return
    cell._sockets.add(connection)
    if cell._abandoned:
        shut_down(connection)


def shut_down(connection: socket.socket) -> None:
    """End both directions of `connection`: a thread that reads from it sees the end of the stream."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # not connected any more: nothing waits on it


def _ask(question: str, answer: "Future[str]") -> None:
    """In the cell's thread. Stop ends the question as in any other cell, and with it the command."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler) if main else None
    try:
        answer.set_result(input(question))
    except KeyboardInterrupt:
        answer.set_exception(Interrupted("interrupted"))
    except (NotImplementedError, EOFError, OSError):  # a notebook without stdin; an end of it; a test run
        answer.set_exception(
            DockmagicError(
                "nobody can be asked here: say --force (-f) if it is to be done without a question"
            )
        )
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _write(stream: str, text: str) -> None:
    target = getattr(sys, stream)
    target.write(text)
    target.flush()


def _start(cell: Cell, work: Callable[[Cell], T]) -> "Future[T]":
    """Run `work` in a thread that carries this cell's context; errors of the SDK come back translated."""
    future: Future[T] = Future()

    def run() -> None:
        use(cell)
        try:
            future.set_result(work(cell))
        except Abandoned:
            future.set_exception(Interrupted("interrupted"))
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that waits, none is lost
            if cell._abandoned:
                future.set_exception(Interrupted("interrupted"))
            else:
                future.set_exception(translate(error) or error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="dockmagic-command", daemon=True).start()
    return future


class _Stops:
    """Counts presses of Stop while a wait lasts."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counted(self) -> Iterator["_Stops"]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGINT, self._stop)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def _stop(self, _signal: int, _frame: Any) -> None:
        self.count += 1


def _handle(stops: _Stops, cell: Cell) -> None:
    while cell.interrupts < stops.count:
        if not cell.interrupt():
            cell.leave()
            raise Interrupted("interrupted")


def wait_blocking(cell: Cell, work: Callable[[Cell], T]) -> T:
    """Run `work` and wait for it in this thread."""
    with _Stops().counted() as stops:
        future = _start(cell, work)
        while not wait_futures([future], timeout=TICK).done:
            cell.tick()
            _handle(stops, cell)
        cell.flush()
    return _result(future)


async def wait_async(cell: Cell, work: Callable[[Cell], T]) -> T:
    """Run `work` and wait for it without blocking the event loop of this thread."""
    with _Stops().counted() as stops:
        future = _start(cell, work)
        done = asyncio.wrap_future(future)
        done.add_done_callback(lambda ended: ended.exception())  # seen, even when nobody waits any more
        while not done.done():
            try:
                await asyncio.wait({done}, timeout=TICK)
            except asyncio.CancelledError:
                stops.count += 1
            cell.tick()
            if not done.done():
                _handle(stops, cell)
        cell.flush()
    return _result(future)


def _result(future: "Future[T]") -> T:
    """The command's value; or its error, raised from here so that it carries no frames of the thread."""
    error = future.exception()
    if error is not None:
        raise error
    return future.result()
