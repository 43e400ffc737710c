"""Output of containers as it comes over the wire: Docker's multiplexed frames, and hijacked connections.

Without a tty, stdout and stderr share one connection in frames of an 8-byte header (stream number, three
zero bytes, length as big-endian 32 bits) and a payload; with a tty the bytes are raw (Engine API, "Attach
to a container"). `attach` and `exec start` upgrade the HTTP connection ("hijack"): after the response's
headers both directions are free, and shutting down ours for writing is the end of the program's stdin.
"""

import codecs
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

STREAMS = {0: "stdout", 1: "stdout", 2: "stderr"}
END_OF_TRANSMISSION = b"\x04"  # what Ctrl-D types on a terminal
INTERRUPT = b"\x03"  # what Ctrl-C types on a terminal

Read = Callable[[int], bytes]


class Hijacked:
    """Both directions of an upgraded connection."""

    def __init__(self, response: Any) -> None:
        self._response = response
        # Not the socket itself but the buffer http.client reads the headers from: the first output of a quick
        # program may already be in it.
        self._reader = response.raw._fp.fp
        self._socket: socket.socket = getattr(self._reader.raw, "_sock", self._reader.raw)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end of the stream."""
        try:
            return self._reader.read1(size)
        except ConnectionResetError:
            # How a unix socket ends whose other side left input unread; all output has been read by then.
            return b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def feed(self, data: bytes, *, tty: bool) -> None:
        """Send `data` and the end of stdin, from a thread: the program may write before it has read."""

        def pump() -> None:
            try:
                self._socket.sendall(data + (END_OF_TRANSMISSION if tty else b""))
                if not tty:
                    self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                return  # the program ended without reading all of its input

        threading.Thread(target=pump, name="dockmagic-stdin", daemon=True).start()

    def close(self) -> None:
        self._response.close()


def hijack(api: Any, path: str, *, params: Any = None, body: Any = None) -> Hijacked:
    """POST to `path` of docker-py's `api` and upgrade the connection. Raises docker.errors.APIError."""
    headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
    url = api._url(path)
    if body is None:
        response = api._post(url, headers=headers, params=params, stream=True)
    else:
        response = api._post_json(url, body, headers=headers, params=params, stream=True)
    api._raise_for_status(response)
    return Hijacked(response)


def response_reader(response: Any) -> Read:
    """A `read(size)` over a streamed response that returns what is there instead of waiting for `size`."""
    raw = response.raw
    if getattr(raw, "chunked", False):
        chunks = raw.read_chunked(decode_content=True)
        return lambda _size: next(chunks, b"")
    return lambda size: raw.read1(size)


def output(read: Read, *, tty: bool) -> Iterator[tuple[str, str]]:
    """`(stream, text)` pieces of a program's output, decoded as UTF-8 across the borders of pieces."""
    decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
    pieces = raw_pieces(read) if tty else frames(read)
    held = ""
    for stream, data in pieces:
        text = decoders[stream].decode(data)
        if tty:  # the terminal's line ends are \r\n; a \r at the border may be half of one
            text, held = held + text, ""
            if text.endswith("\r"):
                text, held = text[:-1], "\r"
            text = text.replace("\r\n", "\n")
        if text:
            yield stream, text
    for stream, decoder in decoders.items():
        if rest := (held if stream == "stdout" else "") + decoder.decode(b"", final=True):
            yield stream, rest


def raw_pieces(read: Read) -> Iterator[tuple[str, bytes]]:
    while data := read(65536):
        yield "stdout", data


def frames(read: Read) -> Iterator[tuple[str, bytes]]:
    """Take the multiplexed frames apart. A stream cut in the middle of a frame ends there."""
    buffer = bytearray()
    while data := read(65536):
        buffer += data
        while len(buffer) >= 8:
            end = 8 + int.from_bytes(buffer[4:8], "big")
            if len(buffer) < end:
                break
            yield STREAMS.get(buffer[0], "stdout"), bytes(buffer[8:end])
            del buffer[:end]
