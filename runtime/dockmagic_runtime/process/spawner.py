"""The spawner: a small, warm Python that forks a shim whenever the engine orders a container.

It is why a container starts in milliseconds: nothing is executed and nothing imported on the way. The engine
makes a channel for each container and passes one end to the spawner, which forks and is done with it; the
shim reads its request from the channel. So no start waits for another one's.

The spawner (`forge.py`) is executed afresh from a read-only mount of the interpreter, has one thread, no
loop, and only what a start needs. When the engine is gone it ends, and the shims stay. When *it* is gone,
the engine makes a new one.
"""

import asyncio
import base64
import contextlib
import os
import socket
import subprocess
from typing import Any

from dockmagic_runtime.kernel import seccomp
from dockmagic_runtime.process import interpreter
from dockmagic_runtime.process.client import RunRequest, Shim
from dockmagic_runtime.process.messages import Message, StartFailed, rights
from dockmagic_runtime.process.spare import shape

_ATTEMPTS = 10
_PAUSE = 0.003  # seconds


class Spawner:
    """The engine's handle on its spawner."""

    def __init__(self) -> None:
        self._next: Shim | None = None
        self._like: Message | None = None
        self._closed = False
        self._start()

    @classmethod
    def fork(cls) -> "Spawner":
        """Start the spawner; returns at once, while it warms up."""
        return cls()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self, request: RunRequest) -> Shim:
        """Start a container; returns when its program has been executed.

        Raises StartFailed with the words and the exit code of `docker run` (125, 126, 127).
        """
        message = _message(request)
        connection = await self._waiting_shim()
        try:
            connection.adopt(await connection.request(message, [stream.socket for stream in request.streams]))
        finally:
            # Not before the container is under way: the machine may have no third processor.
            self._like = message["shape"]
            asyncio.get_running_loop().call_later(_PAUSE, self._prepare)
        return connection

    async def _waiting_shim(self) -> Shim:
        """A shim that has begun to listen: the one that was ordered ahead, or a new one."""
        connection, self._next = self._next, None
        for _ in range(_ATTEMPTS):
            if connection is None or connection.closed:
                connection = self._order()
            try:
                await connection.ready
            except asyncio.CancelledError:
                if not connection.closed:
                    raise  # it is us who are cancelled
                continue  # the spawner was killed before it could fork
            return connection
        raise StartFailed("the spawner does not stay alive")

    def _order(self) -> Shim:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._pass(theirs)
        return Shim(ours)

    def _prepare(self) -> None:
        """Order the next shim, and have it get ready for a container like the last one."""
        if self._next is None and not self._closed:
            self._next = self._order()
            if self._like:
                with contextlib.suppress(OSError):  # killed meanwhile: the next start notices
                    self._next.tell({"do": "prepare", "like": self._like})

    def close(self) -> None:
        """End the spawner; containers keep running."""
        self._closed = True
        if self._next:
            self._next.close()
            self._next = None
        self._stop()

    def _stop(self) -> None:
        self._channel.close()
        self._process.wait()

    def _start(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handle = interpreter.open_sealed()
        try:
            statement = f"from dockmagic_runtime.process import forge; forge.main({theirs.fileno()})"
            self._process = subprocess.Popen(
                interpreter.command(statement),
                executable=f"/proc/self/fd/{handle}",
                pass_fds=(theirs.fileno(), handle),
                stdin=subprocess.DEVNULL,
                # Out of reach of the terminal's and the notebook's interrupts.
                start_new_session=True,
            )
        finally:
            os.close(handle)
            theirs.close()

    def _pass(self, sock: socket.socket) -> None:
        try:
            self._channel.sendmsg([b"+"], rights([sock.fileno()]))
        except (BrokenPipeError, ConnectionResetError):
            self._stop()
            self._start()
            with contextlib.suppress(BrokenPipeError):  # seen by the caller as a shim that does not answer
                self._channel.sendmsg([b"+"], rights([sock.fileno()]))


def _message(request: RunRequest) -> dict[str, Any]:
    """The request as the shim gets it. The filter goes compiled: the shim needs no library for it."""
    config = dict(request.config)
    linux = config["linux"] = dict(config.get("linux") or {})
    profile = linux.get("seccomp")
    program = None
    if profile:
        program = base64.b64encode(seccomp.compile(profile)).decode()
        linux["seccomp"] = {"flags": profile.get("flags") or []}
    if not config.get("process", {}).get("args"):
        raise StartFailed("no command specified")
    return {
        "do": "run",
        "bundle": os.fspath(request.bundle),
        "config": config,
        "shape": shape(config),
        "seccomp": program,
        "rootfs": request.rootfs.as_json() if request.rootfs else None,
        "socket": os.fspath(request.socket),
        "log": {
            "driver": request.log.driver,
            "path": os.fspath(request.log.path),
            "max_size": request.log.max_size,
            "max_file": request.log.max_file,
            "compress": request.log.compress,
            "attrs": request.log.attrs,
        },
        "open_stdin": request.open_stdin,
        "stdin_once": request.stdin_once,
        "init": request.init,
        "streams": [stream.flags for stream in request.streams],
    }
