"""The engine's side of a shim: requests out, events in, on the engine's asyncio loop."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.process.logfile import timestamp
from dockmagic_runtime.process.messages import (
    Decoder,
    Exit,
    Message,
    StartFailed,
    encode,
    receive,
    rights,
)
from dockmagic_runtime.storage.overlay import Rootfs


@dataclass(frozen=True)
class Attachment:
    """A client's connection: one end of a unix stream socketpair, and which streams it is for.

    What comes out of it is Docker's wire format; what goes in is stdin, whose end is shutdown(SHUT_WR). The
    socket is the shim's once it has been passed, and closed here.
    """

    socket: socket.socket
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True

    @property
    def flags(self) -> list[bool]:
        return [self.stdin, self.stdout, self.stderr]


@dataclass(frozen=True)
class LogSpec:
    """Where the output goes: `driver` is "json-file" or "none".

    At `max_size` bytes a new file is begun; `max_file` of them are kept, all but the newest gzipped with
    `compress`. `attrs` is a JSON object that goes into each entry.
    """

    driver: str
    path: Path
    max_size: int | None = None
    max_file: int = 1
    compress: bool = False
    attrs: str = ""


@dataclass
class RunRequest:
    """One container to be started: `bundle` gets exit.json, `socket` is where the shim listens."""

    id: str
    bundle: Path
    config: Any
    rootfs: Rootfs | None
    socket: Path
    log: LogSpec
    open_stdin: bool = False
    stdin_once: bool = False
    init: bool = False
    streams: list[Attachment] = field(default_factory=list)


def read_exit(bundle: Path) -> Exit | None:
    """How the last run in `bundle` ended; None if it runs, never ran, or its shim was killed."""
    try:
        return Exit(**json.loads((bundle / "exit.json").read_text()))
    except FileNotFoundError:
        return None


class Shim:
    """A running container, through its shim. `exited` is resolved when it has ended and its output is logged.

    If the shim itself is killed, the container dies with it: `exited` is then 137, and its group is removed.
    """

    def __init__(self, sock: socket.socket):
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._decoder = Decoder()
        self._requests: dict[int, asyncio.Future[Message]] = {}
        self._number = 0
        self._execs: dict[str, asyncio.Future[int]] = {}
        self._bundle: Path | None = None
        self._cgroup: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self.pid = 0
        self.warnings: list[str] = []
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        # Set by the first word of a fresh shim's starter; cancelled if it never came.
        self.ready: asyncio.Future[None] = self._loop.create_future()
        # Set when nothing of the container's run is left in the kernel but what clients still read.
        self.cleaned: asyncio.Future[None] = self._loop.create_future()
        self.on_oom: Callable[[], None] | None = None
        self._loop.add_reader(sock, self._readable)

    @classmethod
    async def connect(cls, path: Path) -> "Shim":
        """Find a shim again by its socket. Raises OSError (ConnectionRefusedError, …) if it is gone."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, os.fspath(path))
        except OSError:
            sock.close()
            raise
        shim = cls(sock)
        try:
            shim.adopt(await shim.request({"do": "hello"}))
        except StartFailed as error:
            raise ConnectionRefusedError(f"{path}: {error}") from None
        return shim

    def adopt(self, description: Message) -> None:
        """Take over what the shim says of itself."""
        self.pid = description["pid"]
        self._bundle = Path(description["bundle"])
        self._cgroup = description["group"]
        self.warnings = description["warnings"]
        for name in description["execs"]:
            self._execs.setdefault(name, self._loop.create_future())
        if description["exit"] and not self.exited.done():
            self.exited.set_result(Exit(**description["exit"]))

    async def attach(self, attachment: Attachment) -> None:
        await self.request({"do": "attach", "stream": attachment.flags}, [attachment.socket])

    async def exec(
        self, exec_id: str, process: Any, attachment: Attachment | None = None, *, open_stdin: bool = False
    ) -> int:
        """Start a process in the container; its pid on the host. Raises StartFailed (126, 127, …)."""
        ended: asyncio.Future[int] = self._loop.create_future()
        self._execs[exec_id] = ended
        message = {"do": "exec", "exec": exec_id, "process": process, "open_stdin": open_stdin}
        if attachment:
            message["stream"] = attachment.flags
        try:
            answer = await self.request(message, [attachment.socket] if attachment else [])
        except BaseException:
            del self._execs[exec_id]
            raise
        return int(answer["pid"])

    def exec_exited(self, exec_id: str) -> "asyncio.Future[int]":
        """Resolved with the exit code when the process has ended and its output has been passed on."""
        return self._execs[exec_id]

    def forget_exec(self, exec_id: str) -> None:
        """Its exit code has been taken."""
        self._execs.pop(exec_id, None)

    async def signal(self, signum: int) -> None:
        """Signal the container's first process; no error if it has just ended."""
        with contextlib.suppress(StartFailed):
            await self.request({"do": "signal", "signal": signum})

    async def resize(self, height: int, width: int, exec_id: str | None = None) -> None:
        await self.request({"do": "resize", "height": height, "width": width, "exec": exec_id})

    async def request(self, message: Message, sockets: list[socket.socket] | None = None) -> Message:
        """Send one request and await its answer; the sockets are the shim's from then on."""
        self._number += 1
        number = self._number
        answer = self._requests[number] = self._loop.create_future()
        passed = sockets or []
        data = encode({"id": number, "descriptors": len(passed), **message})
        try:
            async with self._turn:
                await self._send(data, [s.fileno() for s in passed])
        except OSError as error:
            self._requests.pop(number, None)
            raise StartFailed(f"the container's shim does not answer: {error.strerror}") from None
        finally:
            for sock in passed:
                sock.close()
        return await answer

    async def _send(self, data: bytes, descriptors: list[int]) -> None:
        sent = 0
        while sent < len(data):
            try:
                sent += self._socket.sendmsg([data[sent:]], rights(descriptors))
                descriptors = []
            except BlockingIOError:
                writable = self._loop.create_future()
                self._loop.add_writer(self._socket, _resolve, writable)
                try:
                    await writable
                finally:
                    self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data, descriptors = receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            return self._lost()
        for message, _ in self._decoder.feed(data, descriptors):
            self._on_message(message)

    def _on_message(self, message: Message) -> None:
        if "id" in message:
            answer = self._requests.pop(message["id"], None)
            if answer and not answer.done():
                if "error" in message:
                    answer.set_exception(StartFailed(message["error"], message["code"]))
                else:
                    answer.set_result(message)
            return
        match message["event"]:
            case "exited" if not self.exited.done():
                self.exited.set_result(Exit(message["code"], message["oom_killed"], message["finished_at"]))
            case "exec_exited":
                ended = self._execs.get(message["exec"])
                if ended and not ended.done():
                    ended.set_result(message["code"])
            case "ready":
                self.ready.set_result(None)
            case "cleaned":
                _resolve(self.cleaned)
            case "oom" if self.on_oom:
                self.on_oom()

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Let go of the shim; it goes on, unless it had not been told to start anything."""
        if not self.closed:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        if not self.ready.done():
            self.ready.cancel()

    def tell(self, message: Message) -> None:
        """Send a message that has no answer, to a shim that is waiting for one."""
        self._socket.sendall(encode(message))

    def _lost(self) -> None:
        """The connection is closed: the shim's normal end after the exit, before it the shim was killed."""
        self.close()
        for answer in self._requests.values():
            if not answer.done():
                answer.set_exception(StartFailed("the container's shim was killed"))
        self._requests.clear()
        for ended in self._execs.values():
            if not ended.done():
                ended.set_result(137)
        if not self.exited.done() and self._bundle:
            task = self._loop.create_task(self._bury())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            _resolve(self.cleaned)

    async def _bury(self) -> None:
        assert self._bundle
        if self._cgroup:
            await asyncio.to_thread(Cgroup.open(self._cgroup).remove, kill=True)
        _resolve(self.cleaned)
        ended = read_exit(self._bundle) or Exit(137, False, timestamp())
        if not self.exited.done():
            self.exited.set_result(ended)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
