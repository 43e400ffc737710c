"""One request over a unix socket, and what comes back; no client library would send some of these."""

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.fuzz.generator import Request


@dataclass(frozen=True)
class Answer:
    """`status` 0: nothing came in time. `body` is what came of it before the client went away."""

    status: int
    body: bytes
    seconds: float

    @property
    def sentence(self) -> Any:
        """The `message` of an error body."""
        return json.loads(self.body)["message"]


def exchange(path: Path, request: Request, patience: float) -> Answer:
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience)
        connection.connect(str(path))
        # Refused before all of it was read, perhaps; the answer is there.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(_head(request) + request.body)
        data = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while not _complete(data, request.method):
                received = connection.recv(1 << 16)
                if not received:
                    break
                data += received
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    status = int(words[1]) if len(words) > 1 else 0
    return Answer(status, _unchunked(head, body), time.monotonic() - began)


def _head(request: Request) -> bytes:
    lines = [f"{request.method} {request.target} HTTP/1.1", "Host: docker", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if request.body or request.method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(request.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _complete(data: bytes, method: str) -> bool:
    """An error is read whole; of anything else the head is enough, for it may go on for ever."""
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return False
    status = int(head.split(None, 2)[1])
    if status < 400 or method == "HEAD":
        return True
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return False


def _unchunked(head: bytes, body: bytes) -> bytes:
    if b"chunked" not in head.lower():
        return body
    found = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        found, body = found + rest[:length], rest[length + 2 :]
    return found
