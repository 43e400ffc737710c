"""Staying with a container: its terminal becomes ours, our signals its own, and its end our exit code."""

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty
from collections.abc import Iterator
from types import FrameType

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import pidfd, pty

_CHUNK = 65536
_OURS = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGPIPE),
    *(signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP, signal.SIGCONT),
}
"""Signals that mean this process, not the container's."""


def send_console(path: str, master: int) -> None:
    """Pass a terminal's master to who listens at the unix socket `path` (`--console-socket`)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        try:
            channel.connect(path)
        except OSError as error:
            raise InvalidParameter(f"console socket {path}: {os.strerror(error.errno or 0)}") from None
        socket.send_fds(channel, [b"/dev/ptmx"], [master])


def attend(pid: int, process: int, master: int | None) -> int:
    """Wait for our child `pid` (its pidfd: `process`) and return its exit code, 128+n after signal n.

    Meanwhile signals are passed on to it, and with `master` our stdin and stdout are its terminal. What it
    has written is copied to the end before this returns.
    """
    with _signals_to(process, master), _raw(master):
        if master is None:
            select.select([process], [], [])
        else:
            _relay(process, master)
        status = os.waitpid(pid, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _signals_to(process: int, master: int | None) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        # It may have just ended.
        with contextlib.suppress(ProcessLookupError):
            pidfd.send_signal(process, number)

    before = {}
    for number in signal.valid_signals() - _OURS:
        # Two real-time signals belong to the C library.
        with contextlib.suppress(OSError, ValueError):
            before[number] = signal.signal(number, pass_on)
    if master is not None:
        before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: _copy_size(master))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _raw(master: int | None) -> Iterator[None]:
    """Our terminal, if stdin is one, hands every key through; as it was afterwards."""
    if master is None or not os.isatty(0):
        yield
        return
    _copy_size(master)
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed already is meant for the container
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _copy_size(master: int) -> None:
    if os.isatty(0):
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
        pty.resize(master, rows, columns)


def _relay(process: int, master: int) -> None:
    poll = select.poll()
    for descriptor in (process, master, 0):
        poll.register(descriptor, select.POLLIN)
    ended = False
    while True:
        ready = dict(poll.poll(0 if ended else None))
        if master in ready:
            try:
                data = os.read(master, _CHUNK)
            except OSError:
                return  # EIO: the last one who had the other side open has closed it
            _write_all(1, data)
        elif ended:
            return  # something outlives the program and keeps its terminal
        if 0 in ready:
            if data := os.read(0, _CHUNK):
                _write_all(master, data)
            else:
                poll.unregister(0)
                _write_all(master, b"\x04")
        if process in ready:
            ended = True
            poll.unregister(process)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
