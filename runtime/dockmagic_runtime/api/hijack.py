"""Turning an HTTP connection into a raw stream: attach and exec.

The client asks with `Upgrade: tcp` and gets `101 UPGRADED`, or without and gets a `200` whose body lasts as
long as the connection. From then on the connection is not HTTP's any more. We write the head of the answer,
take the socket away from aiohttp and hand a duplicate of it to the container's shim, which reads stdin from
it and writes output to it. So no byte of a container passes through the engine, and an attached client
outlives it.

aiohttp closes its own copy of the socket when the handler returns; a stream lives until the last copy is
closed.
"""

import os
import socket

from aiohttp import web

from dockmagic_runtime.api.call import Call

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


class Taken(web.StreamResponse):
    """The answer that has been given already; returned so that aiohttp writes no second one."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def stream_type(call: Call, tty: bool) -> str:
    """Since API 1.42 the client is told whether the stream is multiplexed."""
    return MULTIPLEXED if call.version >= (1, 42) and not tty else RAW


def take_socket(call: Call, content_type: str) -> socket.socket:
    """Answer the request and return the connection, which is the caller's to close."""
    transport = call.request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    connection = transport.get_extra_info("socket")
    transport.pause_reading()
    duplicate = socket.socket(fileno=os.dup(connection.fileno()))
    upgrade = call.request.headers.get("Upgrade")
    head = "HTTP/1.1 101 UPGRADED\r\n" if upgrade else "HTTP/1.1 200 OK\r\n"
    head += f"Content-Type: {content_type}\r\n"
    head += "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else "Connection: close\r\n"
    # Nothing of ours is buffered before the first answer on a connection, so this can't overtake anything.
    duplicate.setblocking(False)
    duplicate.send((head + "\r\n").encode())
    return duplicate
