"""Pseudo-terminals of one devpts instance: pts(4), ioctl_tty(2)."""

import fcntl
import os
import struct
import termios

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_pair(devpts: int) -> tuple[int, int]:
    """A new `(master, slave)` in the devpts mount `devpts`.

    The slave comes from the master itself (TIOCGPTPEER), never from a path that a container could have faked.
    """
    master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def make_controlling(slave: int) -> None:
    """Make `slave` the controlling terminal of this session, whose leader the caller must be."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def resize(terminal: int, height: int, width: int) -> None:
    """Set the window's size in characters; the foreground processes get SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
