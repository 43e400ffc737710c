"""What the processes of a container say to each other, and how it travels.

    engine  ──"run"──>  spawner   a new channel; the spawner hands it to a fresh shim and is done
    engine  <─────────> shim      requests (attach, exec, signal, resize, …) and events (exited, oom, …)
    shim    <─────────> init      start-up only: one step of the start per message; closed by the exec

A message is a dict, with descriptors beside it (SCM_RIGHTS). Between engine and shim, which may be of
different versions, it is JSON on a stream socket behind a four-byte length; between forks of one process a
packet.
"""

import array
import json
import marshal
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from dockmagic_runtime.errors import EngineError

Message = dict[str, Any]

_MAX_DESCRIPTORS = 64
_PACKET = 1 << 16


class StartFailed(EngineError):
    """A process could not be started; `exit_code` is what `docker run` exits with.

    127: no such program in the container. 126: it is there but can't be executed. 125: everything else.
    """

    def __init__(self, message: str, exit_code: int = 125):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Exit:
    """How a container ended. `code` is 128+n after signal n; `finished_at` is RFC 3339 with nanoseconds."""

    code: int
    oom_killed: bool
    finished_at: str


def encode(message: Message) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return struct.pack("<I", len(body)) + body


class Decoder:
    """Bytes and descriptors in as they arrive, whole messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._descriptors: list[int] = []

    def feed(self, data: bytes, descriptors: list[int]) -> list[tuple[Message, list[int]]]:
        """The messages completed by `data`, each with the descriptors it says it carries."""
        self._buffer += data
        self._descriptors += descriptors
        messages = []
        while len(self._buffer) >= 4:
            (length,) = struct.unpack_from("<I", self._buffer)
            if len(self._buffer) < 4 + length:
                break
            message = json.loads(bytes(self._buffer[4 : 4 + length]))
            del self._buffer[: 4 + length]
            count = message.get("descriptors", 0)
            messages.append((message, self._descriptors[:count]))
            del self._descriptors[:count]
        return messages

    def close(self) -> None:
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors.clear()


def receive(sock: socket.socket, size: int = _PACKET) -> tuple[bytes, list[int]]:
    """Some bytes and the descriptors that came with them; `(b"", [])` at the end."""
    data, ancillary, flags, _ = sock.recvmsg(
        size, socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    if flags & socket.MSG_CTRUNC:
        for fd in descriptors:
            os.close(fd)
        raise OSError("too many descriptors in one message")
    return data, descriptors.tolist()


def rights(descriptors: list[int]) -> list[tuple[int, int, array.array]]:
    """The ancillary data that passes `descriptors`."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []


def send_packet(sock: socket.socket, message: Message, descriptors: list[int] | None = None) -> None:
    """One message between forks of one interpreter: marshal is faster than json and writes to less memory."""
    sock.sendmsg([marshal.dumps(message)], rights(descriptors or []))


def receive_packet(sock: socket.socket, size: int = _PACKET) -> tuple[Message | None, list[int]]:
    """The next message, of at most `size` bytes; None when the other side is gone."""
    try:
        data, descriptors = receive(sock, size)
    except ConnectionResetError:
        # It ended without reading what we sent. The kernel says so once, before what it sent itself.
        data, descriptors = receive(sock, size)
    return (marshal.loads(data) if data else None), descriptors
