"""Turning an HTTP connection into a raw stream: attach and exec.

The client asks with `Upgrade: tcp` and gets `101 UPGRADED`, or without and gets a `200` whose body lasts as
long as the connection. From then on the connection is not HTTP's any more. We write the head of the answer,
take the socket away from aiohttp and hand a duplicate of it to the container's shim, which reads stdin from
it and writes output to it. So no byte of a container passes through the engine, and an attached client
outlives it.

aiohttp closes its own copy of the socket when the handler returns; a stream lives until the last copy is
closed.
"""

import asyncio
import fcntl
import os
import select
import socket
import struct
import termios

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


async def take_socket(call: Call, content_type: str) -> socket.socket:
    """Answer the request and return the connection, which is the caller's to close.

    Returns when the client has read the head of the answer: clients that parse it through a buffer and then
    read the bare socket (docker-py) would lose what came right behind it.
    """
    transport = call.request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    connection = transport.get_extra_info("socket")
    transport.pause_reading()
    duplicate = socket.socket(fileno=os.dup(connection.fileno()))
    duplicate.setblocking(False)
    upgrade = call.request.headers.get("Upgrade")
    head = "HTTP/1.1 101 UPGRADED\r\n" if upgrade else "HTTP/1.1 200 OK\r\n"
    head += f"Content-Type: {content_type}\r\n"
    head += "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else "Connection: close\r\n"
    # Nothing of ours is buffered before the first answer on a connection, so this can't overtake anything.
    await _send_and_see_read(duplicate, (head + "\r\n").encode())
    return duplicate


async def _send_and_see_read(connection: socket.socket, data: bytes) -> None:
    """Each time the peer of a unix socket takes bytes out, an edge-triggered epoll(7) tells the sender."""
    loop = asyncio.get_running_loop()
    with select.epoll() as edges:
        edges.register(connection, select.EPOLLOUT | select.EPOLLET)
        edges.poll(0)
        connection.send(data)
        while _unread(connection):
            told = loop.create_future()
            loop.add_reader(edges.fileno(), _tell, told)
            try:
                await told
            finally:
                loop.remove_reader(edges.fileno())
            if any(events & select.EPOLLHUP for _, events in edges.poll(0)):
                return


def _tell(told: "asyncio.Future[None]") -> None:
    if not told.done():
        told.set_result(None)


def _unread(connection: socket.socket) -> int:
    """Bytes sent that the peer has not read (SIOCOUTQ, unix(7))."""
    (count,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))
    return int(count)
