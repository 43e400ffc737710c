"""The files of a group's directory: small, read and written whole; and the directories themselves.

Each value is one open, one read or write, one close: the start of a container passes through here.
"""

# pathlib would cost more per file than the kernel does.
# ruff: noqa: PTH102, PTH106, PTH120

import contextlib
import errno
import os
import select
import time
from collections.abc import Iterator

SETTLE_SECONDS = 2.0
"""How long we wait for the kernel to finish what it does asynchronously (freezing, the last exit)."""

_V1_UNLIMITED = 1 << 62
"""v1 spells "no limit" as the largest page-aligned number; anything this large means it."""


def read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
        return b"".join(chunks).decode()
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def read_flat(path: str) -> dict[str, int]:
    """A "flat keyed" file: one `key number` per line."""
    pairs = (line.split() for line in read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def read_limit(path: str) -> int | None:
    """The number in a limit's file, None if it says that there is none."""
    text = read(path)
    if text.startswith("max"):
        return None
    value = int(text)
    return None if value >= _V1_UNLIMITED else value


def await_flat(path: str, key: str, wanted: int) -> None:
    """Wait until a v2 events file says so; the kernel signals each change as POLLPRI."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLPRI)
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            lines = os.pread(descriptor, 4096, 0).decode().splitlines()
            if f"{key} {wanted}" in lines:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, f"{key} did not become {wanted}", path)
            poll.poll(left * 1000)
    finally:
        os.close(descriptor)


def make(directory: str) -> None:
    """Make a directory, with its parents only where it fails without."""
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        pass
    except FileNotFoundError:
        make(os.path.dirname(directory))
        make(directory)


def tree(root: str) -> Iterator[str]:
    """A group's directory and those below it, parents first."""
    yield root
    with contextlib.suppress(FileNotFoundError):
        with os.scandir(root) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for directory in below:
            yield from tree(directory)


def remove_tree(root: str, deadline: float) -> None:
    """Remove a group's directory and those below it; absent ones are no error. EBUSY only at the deadline."""
    try:
        os.rmdir(root)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        for directory in reversed(list(tree(root))):
            _remove_when_empty(directory, deadline)


def _remove_when_empty(directory: str, deadline: float) -> None:
    while True:
        try:
            return os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            # v1 has no event for "the last process is gone" that survives without a release agent.
            time.sleep(0.001)
