"""A process's three streams, between its pipes (or terminal), its log and the clients that are attached.

What a client receives is Docker's own format, so that the engine passes it on unread: raw bytes from a
terminal, else frames (1 byte stream number, 3 bytes zero, 4 bytes big-endian length, the data).

A slow client slows the process down, as with Docker: while more than a megabyte waits for it, no more is
read from the process. A client that takes nothing at all for five seconds is dropped, so that a stuck one
can neither stop the process for long nor keep anything out of the log; a process never waits because nobody
is attached.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from errno import EAGAIN, EIO

from dockmagic_runtime.process.logfile import JsonLog

_CHUNK = 1 << 16
_CLIENT_BUFFER = 1 << 20
_CLIENT_PATIENCE = 5.0
_NUMBERS = {"stdout": 1, "stderr": 2}

Callback = Callable[[int], None]


class Poller:
    """poll(2) with callbacks and deadlines; sleeps without a tick when nothing is due."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callback] = {}
        self._deadlines: dict[object, tuple[float, Callable[[], None]]] = {}

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call `callback(events)` when there are any; a second call for `fd` replaces the first."""
        self._poll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        if self._callbacks.pop(fd, None):
            self._poll.unregister(fd)

    def after(self, seconds: float, key: object, callback: Callable[[], None]) -> None:
        self._deadlines[key] = (time.monotonic() + seconds, callback)

    def cancel(self, key: object) -> None:
        self._deadlines.pop(key, None)

    def turn(self) -> None:
        """Wait for something, and handle it."""
        timeout = None
        if self._deadlines:
            timeout = max(0.0, min(d for d, _ in self._deadlines.values()) - time.monotonic()) * 1000
        for fd, events in self._poll.poll(timeout):
            callback = self._callbacks.get(fd)
            if callback:
                callback(events)
        if self._deadlines:
            now = time.monotonic()
            for key, (deadline, due) in list(self._deadlines.items()):
                if deadline <= now and key in self._deadlines:
                    del self._deadlines[key]
                    due()


class Client:
    """One attached connection."""

    def __init__(self, sock: socket.socket, stdin: bool, stdout: bool, stderr: bool):
        sock.setblocking(False)
        self.sock = sock
        self.wants = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        self.pending = bytearray()
        self.reading = True  # it may still send
        self.hung_up = False  # it will take nothing any more
        self.closing = False  # nothing will be added to `pending`


class Streams:
    """The streams of one process. `outputs` maps our descriptor of each output to its name.

    `stdin` is our end of its input or None; `stdin_once` closes it when the client's input ends,
    unless it is a terminal.
    `on_end` is called when all output has been read and logged.
    """

    def __init__(
        self,
        poller: Poller,
        outputs: dict[int, str],
        stdin: int | None,
        *,
        tty: bool,
        stdin_once: bool,
        log: JsonLog | None,
        on_end: Callable[[], None],
    ):
        self._poller, self._outputs, self._stdin = poller, outputs, stdin
        self._tty, self._stdin_once, self._log, self._on_end = tty, stdin_once, log, on_end
        self._input = bytearray()
        self._end_input = False
        self._paused = False
        self.clients: list[Client] = []
        self.ended = False
        for fd in {*outputs, *(() if stdin is None else (stdin,))}:
            os.set_blocking(fd, False)
        for fd in outputs:
            self._watch_output(fd)

    def attach(self, client: Client) -> None:
        self.clients.append(client)
        if self.ended:
            client.closing = True
        self._watch_client(client)
        self._after_sending(client)

    def follow_log(self, follower: socket.socket) -> None:
        if self._log and not self.ended:
            self._log.follow(follower)
        else:
            follower.close()

    def resize(self, height: int, width: int) -> None:
        if self._tty and self._outputs:
            from dockmagic_runtime.kernel import pty

            pty.resize(next(iter(self._outputs)), height, width)

    def drain(self, seconds: float) -> None:
        """The process has ended. What it left in the pipes is read; others that hold them get `seconds`."""
        if not self.ended:
            self._poller.after(seconds, self, self._end)

    # --- output ------------------------------------------------------------------------------------

    def _watch_output(self, fd: int) -> None:
        events = select.POLLIN | (select.POLLOUT if fd == self._stdin and self._input else 0)
        self._poller.watch(fd, events, lambda got: self._on_output(fd, got))

    def _on_output(self, fd: int, events: int) -> None:
        if events & select.POLLOUT:
            self._write_input()
        if not events & ~select.POLLOUT or fd not in self._outputs:
            return
        try:
            data = os.read(fd, _CHUNK)
        except OSError as error:
            if error.errno == EAGAIN:
                return
            if error.errno != EIO:  # what a terminal's master says when all its slaves are closed
                raise
            data = b""
        name = self._outputs[fd]
        if not data:
            return self._close_output(fd, name)
        if self._log:
            self._log.write(name, data)
        if self.clients:
            frame = data if self._tty else struct.pack(">BxxxI", _NUMBERS[name], len(data)) + data
            for client in [c for c in self.clients if c.wants[name] and not c.hung_up]:
                self._send(client, frame)

    def _close_output(self, fd: int, name: str) -> None:
        self._poller.forget(fd)
        del self._outputs[fd]
        if fd == self._stdin:
            self._stdin = None
        os.close(fd)
        if self._log:
            self._log.finish(name)
        if not self._outputs:
            self._end()

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._poller.cancel(self)
        for fd, name in list(self._outputs.items()):
            self._close_output(fd, name)
        self._close_stdin()
        if self._log:
            self._log.close()
        for client in list(self.clients):
            client.closing = True
            self._after_sending(client)
        self._on_end()

    # --- clients -----------------------------------------------------------------------------------

    def _send(self, client: Client, data: bytes) -> None:
        if not client.pending:
            try:
                data = data[client.sock.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                return self._drop(client)
        if data:
            if not client.pending:
                self._poller.after(_CLIENT_PATIENCE, client, lambda: self._drop(client))
            client.pending += data
            self._watch_client(client)
            self._balance()

    def _watch_client(self, client: Client) -> None:
        if client.hung_up:
            return self._poller.forget(client.sock.fileno())
        events = select.POLLOUT if client.pending else 0
        if client.reading and not (client.wants["stdin"] and self._input):
            events |= select.POLLIN
        self._poller.watch(client.sock.fileno(), events, lambda got: self._on_client(client, got))

    def _on_client(self, client: Client, events: int) -> None:
        if events & select.POLLOUT and client.pending:
            try:
                sent = client.sock.send(client.pending)
            except BlockingIOError:
                sent = 0
            except OSError:
                return self._drop(client)
            del client.pending[:sent]
            if sent:
                self._poller.after(_CLIENT_PATIENCE, client, lambda: self._drop(client))
            self._balance()
        if events & select.POLLIN:
            self._receive(client)
        if events & (select.POLLHUP | select.POLLERR):
            # What it sent before is still to be read; output it will not take.
            client.hung_up = True
            client.pending.clear()
            self._balance()
        self._after_sending(client)

    def _receive(self, client: Client) -> None:
        try:
            data = client.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not client.wants["stdin"] or self._stdin is None:
            client.reading = bool(data)
        elif data:
            self._input += data
            self._write_input()
        else:
            client.reading = False
            if self._stdin_once and not self._tty:  # who leaves a terminal may come back
                self._end_input = True
                self._write_input()

    def _after_sending(self, client: Client) -> None:
        """Decide what `client` is still here for."""
        if client not in self.clients:
            return
        if not client.pending:
            self._poller.cancel(client)
        while client.hung_up and client.reading and not self._input and not self.ended:
            self._receive(client)
        takes_output = (client.wants["stdout"] or client.wants["stderr"]) and not client.hung_up
        waits_for_input = client.reading and client.wants["stdin"] and self._stdin is not None
        if not client.pending and (client.closing or not (takes_output or waits_for_input)):
            self._drop(client)
        else:
            self._watch_client(client)

    def _drop(self, client: Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
            self._poller.cancel(client)
            self._poller.forget(client.sock.fileno())
            client.sock.close()
            self._balance()

    def _balance(self) -> None:
        """Read from the process exactly while no client is too far behind."""
        full = any(len(client.pending) > _CLIENT_BUFFER for client in self.clients)
        if full != self._paused:
            self._paused = full
            for fd in list(self._outputs):
                if full:
                    self._poller.forget(fd)
                else:
                    self._watch_output(fd)

    # --- input -------------------------------------------------------------------------------------

    def _write_input(self) -> None:
        if self._stdin is None:
            self._input.clear()
            return
        had = bool(self._input)
        try:
            while self._input:
                del self._input[: os.write(self._stdin, self._input[:_CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            # EPIPE, EIO: the process has closed its input. Like Docker, we swallow what comes.
            self._input.clear()
            return self._close_stdin()
        if self._end_input and not self._input:
            return self._close_stdin()
        self._watch_stdin()
        if had and not self._input:
            for client in list(self.clients):
                self._after_sending(client)
        elif self._input:
            for client in self.clients:
                self._watch_client(client)

    def _watch_stdin(self) -> None:
        assert self._stdin is not None
        if self._stdin in self._outputs:
            if not self._paused:
                self._watch_output(self._stdin)
        elif self._input:
            self._poller.watch(self._stdin, select.POLLOUT, lambda _: self._write_input())
        else:
            self._poller.forget(self._stdin)

    def _close_stdin(self) -> None:
        """End of input for the process. A terminal has none: its master stays open for the output."""
        fd, self._stdin = self._stdin, None
        self._input.clear()
        if fd is not None and fd not in self._outputs:
            self._poller.forget(fd)
            os.close(fd)
