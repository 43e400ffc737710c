"""The floor: what docker-py and aiohttp cost when the engine does nothing.

A server answers the calls of `workloads.lifecycle` and `workloads.execute` at once with fixed documents. No
engine that docker-py talks to through aiohttp can be faster than this.
"""

import asyncio
import fcntl
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from aiohttp import web

from bench.engines import connect, ending

_FRAME = b"\x01\0\0\0\0\0\0\x06hello\n"  # one line of stdout in Docker's stream format


def _json(document: object, status: int = 200) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(document, status=status)

    return answer


async def _nothing(request: web.Request) -> web.Response:
    return web.Response(status=204)


async def _output(request: web.Request) -> web.Response:
    return web.Response(body=_FRAME, content_type="application/vnd.docker.raw-stream")


async def _hijacked(request: web.Request) -> web.StreamResponse:
    await request.read()
    transport = request.transport
    assert transport is not None
    transport.write(
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    # docker-py reads what follows from below http.client's buffer: what came with the head would be lost.
    while _unread(transport.get_extra_info("socket")):
        await asyncio.sleep(0)
    transport.write(_FRAME)
    transport.close()
    return web.Response()


def _unread(connection: socket.socket) -> int:
    """Bytes we have sent on a unix socket that the peer has not read yet."""
    return int(struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])


def application() -> web.Application:
    prefix, identity = "/{version}", "0" * 64
    routes = web.Application()
    routes.router.add_get("/version", _json({"ApiVersion": "1.44", "Version": "floor"}))
    routes.router.add_post(prefix + "/containers/create", _json({"Id": identity, "Warnings": []}, 201))
    routes.router.add_post(prefix + "/containers/{id}/start", _nothing)
    routes.router.add_post(prefix + "/containers/{id}/wait", _json({"StatusCode": 0}))
    routes.router.add_get(prefix + "/containers/{id}/json", _json({"Id": identity, "Config": {"Tty": False}}))
    routes.router.add_get(prefix + "/containers/{id}/logs", _output)
    routes.router.add_delete(prefix + "/containers/{id}", _nothing)
    routes.router.add_post(prefix + "/containers/{id}/exec", _json({"Id": identity}, 201))
    routes.router.add_post(prefix + "/exec/{id}/start", _hijacked)
    routes.router.add_get(prefix + "/exec/{id}/json", _json({"ExitCode": 0}))
    return routes


async def serve(path: str) -> None:
    runner = web.AppRunner(application(), access_log=None)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    print("serving", flush=True)
    await asyncio.Event().wait()


@contextmanager
def floor() -> Iterator[docker.APIClient]:
    """A docker-py client of such a server, in a process of its own as an engine is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "floor.sock"
        command = [sys.executable, "-m", "bench.floor", str(path)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout, ending(process):
            process.stdout.readline()
            yield connect(path)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
