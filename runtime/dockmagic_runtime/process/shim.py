"""The shim: parent and keeper of one container, for as long as it runs; it outlives the engine.

It owns the container's streams and log, serves attach, exec, signals and resizes, and writes the exit code to
`<bundle>/exit.json`. One thread, one poll loop, no ticks. Engines come and go: the one that ordered the
container talks over the channel it was ordered on, later ones connect to the shim's socket.

How things die:
- the engine or the spawner: the shim does not notice, but for a closed connection;
- the container: all of its output is read and logged, exit.json is written, the group is removed, then
  engines are told, and the shim ends when its attached clients have taken what is theirs;
- the shim itself (kill -9): the kernel kills the container's first process with it (PR_SET_PDEATHSIG), and
  whatever may be left, a program with set-uid bits that cleared that, the engine finds in the container's
  group.
"""

import base64
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from dockmagic_runtime.errors import EngineError
from dockmagic_runtime.kernel import libc, pidfd
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.kernel.seccomp import flags as seccomp_flags
from dockmagic_runtime.process.create import Created, create
from dockmagic_runtime.process.exec import exec_in
from dockmagic_runtime.process.logfile import JsonLog, timestamp
from dockmagic_runtime.process.messages import Decoder, Message, StartFailed, encode, receive
from dockmagic_runtime.process.stdio import Client, Poller, Streams
from dockmagic_runtime.storage.overlay import Rootfs

_LEFT_OVER_OUTPUT = 2.0
"""Seconds that a stranger may keep our end of a pipe busy after its process has ended, as with Docker."""


class Control:
    """A connection to an engine."""

    def __init__(self, shim: "Shim", sock: socket.socket):
        sock.setblocking(False)
        self._shim, self.sock = shim, sock
        self._decoder = Decoder()
        self._pending = bytearray()
        self._watch()

    def send(self, message: Message) -> None:
        self._pending += encode(message)
        self._flush()

    @property
    def idle(self) -> bool:
        return not self._pending

    def close(self) -> None:
        self._decoder.close()
        self._shim.poller.forget(self.sock.fileno())
        self.sock.close()
        if self in self._shim.controls:
            self._shim.controls.remove(self)

    def _watch(self) -> None:
        events = select.POLLIN | (select.POLLOUT if self._pending else 0)
        self._shim.poller.watch(self.sock.fileno(), events, self._on_event)

    def _flush(self) -> None:
        try:
            while self._pending:
                del self._pending[: self.sock.send(self._pending)]
        except BlockingIOError:
            pass
        except OSError:
            return self.close()  # this engine is gone; the next one will ask
        self._watch()

    def _on_event(self, events: int) -> None:
        if events & select.POLLOUT:
            self._flush()
        if self.sock.fileno() < 0 or not events & ~select.POLLOUT:
            return
        try:
            data, descriptors = receive(self.sock)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            return self.close()
        for message, files in self._decoder.feed(data, descriptors):
            self._shim.serve(self, message, files)


class Running:
    """A process of the container that we are the parent of, and its streams."""

    def __init__(self, created: Created, streams: Streams | None):
        self.pid, self.pidfd, self.streams = created.pid, created.pidfd, streams
        self.code: int | None = None


class Shim:
    """One container. Made from the request; `run` returns when all is over."""

    def __init__(self, request: Message, descriptors: list[int], channel: socket.socket):
        self.poller = Poller()
        self.controls: list[Control] = []
        self._bundle = request["bundle"]
        self._socket_path = request["socket"]
        self._listener: socket.socket | None = None
        self._execs: dict[str, Running] = {}
        self._exit: Message | None = None
        self._kills = 0
        config = request["config"]
        linux = config.get("linux") or {}
        self._kinds = [entry["type"] for entry in linux.get("namespaces") or ()]
        self._group = Cgroup.open(linux["cgroupsPath"]) if linux.get("cgroupsPath") else None
        filter_ = request.get("seccomp")
        self._seccomp = base64.b64decode(filter_) if filter_ else None
        self._seccomp_flags = seccomp_flags(linux.get("seccomp") or {})
        self._memory_limited = bool(((linux.get("resources") or {}).get("memory") or {}).get("limit"))
        self._main = self._start(request, config, descriptors)
        self.controls.append(Control(self, channel))

    # --- start -------------------------------------------------------------------------------------

    def _start(self, request: Message, config: dict[str, Any], descriptors: list[int]) -> Running:
        log = None
        if request["log"]["driver"] != "none":
            spec = request["log"]
            log = JsonLog(spec["path"], spec["max_size"], spec["max_file"])
        for name in ("exit.json", "shim.json"):
            _remove(f"{self._bundle}/{name}")
        self._listen()
        process = config["process"]
        tty = bool(process.get("terminal"))
        pipes = Pipes(stdin=request["open_stdin"], outputs=True) if not tty else None
        rootfs = request.get("rootfs")
        try:
            created = create(
                config,
                Path(self._bundle),
                rootfs=Rootfs.from_json(rootfs) if rootfs else None,
                stdio=pipes.theirs if pipes else None,
                cgroup=self._group,
                seccomp=self._seccomp,
                reaper=request["init"],
                die_with_parent=True,
            )
        except (EngineError, OSError):
            self._clean_up()
            raise
        self.warnings = created.warnings
        _write(
            f"{self._bundle}/shim.json",
            {
                "pid": created.pid,
                "start_time": pidfd.start_time(created.pid),
                "shim": os.getpid(),
                "cgroup": self._group.path if self._group else None,
            },
        )
        streams = self._streams(
            created, pipes, request["open_stdin"], request["stdin_once"], log, self._main_ended
        )
        for flags, fd in zip(request["streams"], descriptors, strict=True):
            streams.attach(Client(socket.socket(fileno=fd), *flags))
        running = Running(created, streams)
        self.poller.watch(created.pidfd, select.POLLIN, lambda _: self._main_exited())
        if self._memory_limited and self._group:
            self._watch_memory(self._group)
        return running

    def _streams(
        self,
        created: Created,
        pipes: "Pipes | None",
        open_stdin: bool,
        stdin_once: bool,
        log: JsonLog | None,
        on_end: Callable[[], None],
    ) -> Streams:
        if pipes is None:
            assert created.console is not None
            outputs, stdin = {created.console: "stdout"}, created.console if open_stdin else None
        else:
            pipes.close_theirs()
            outputs, stdin = pipes.outputs, pipes.stdin
        return Streams(
            self.poller, outputs, stdin, tty=pipes is None, stdin_once=stdin_once, log=log, on_end=on_end
        )

    def _listen(self) -> None:
        _remove(self._socket_path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self._socket_path)
        os.chmod(self._socket_path, 0o600)  # noqa: PTH101
        self._listener.listen()
        self._listener.setblocking(False)
        self.poller.watch(self._listener.fileno(), select.POLLIN, lambda _: self._accept())

    def _accept(self) -> None:
        assert self._listener
        self.controls.append(Control(self, self._listener.accept()[0]))

    def _watch_memory(self, group: Cgroup) -> None:
        watch = group.oom_watch()
        if watch is None:
            return
        fd, events = watch

        def on_event(_: int) -> None:
            # An eventfd counts until it is read; memory.events is read from its start.
            os.read(fd, 8) if events == select.POLLIN else os.pread(fd, 4096, 0)
            self._check_memory(group)

        self.poller.watch(fd, events, on_event)

    def _check_memory(self, group: Cgroup) -> None:
        kills = group.oom_kills()
        if kills > self._kills:
            self._kills = kills
            self._tell({"event": "oom"})

    # --- requests ----------------------------------------------------------------------------------

    def serve(self, control: Control, message: Message, descriptors: list[int]) -> None:
        """Answer one request; whatever goes wrong is the answer."""
        try:
            result = self._do(message, descriptors)
        except StartFailed as error:
            result = {"error": str(error), "code": error.exit_code}
        except (EngineError, OSError, KeyError, ValueError) as error:
            result = {"error": str(error), "code": 125}
        control.send({"id": message["id"], **result})

    def _do(self, message: Message, descriptors: list[int]) -> Message:
        match message["do"]:
            case "hello":
                return self.describe()
            case "attach":
                assert self._main.streams
                self._main.streams.attach(Client(socket.socket(fileno=descriptors[0]), *message["stream"]))
            case "exec":
                return self._exec(message, descriptors)
            case "signal":
                pidfd.send_signal(self._main.pidfd, message["signal"])
            case "resize":
                running = self._main if message["exec"] is None else self._execs[message["exec"]]
                if running.streams:
                    running.streams.resize(message["height"], message["width"])
            case unknown:
                raise ValueError(f"the shim knows no {unknown}")
        return {}

    def describe(self) -> Message:
        return {
            "pid": self._main.pid,
            "bundle": self._bundle,
            "cgroup": self._group.path if self._group else None,
            "execs": list(self._execs),
            "exit": self._exit,
            "warnings": self.warnings,
        }

    def _exec(self, message: Message, descriptors: list[int]) -> Message:
        process = message["process"]
        tty = bool(process.get("terminal"))
        client = Client(socket.socket(fileno=descriptors[0]), *message["stream"]) if descriptors else None
        pipes = None if tty else Pipes(stdin=message["open_stdin"], outputs=client is not None)
        try:
            created = exec_in(
                self._main.pid,
                self._main.pidfd,
                process,
                self._kinds,
                stdio=pipes.theirs if pipes else None,
                cgroup=self._group,
                seccomp=self._seccomp,
                seccomp_flags=self._seccomp_flags,
                die_with_parent=True,
            )
        except (EngineError, OSError):
            if pipes:
                pipes.close()
            if client:
                client.sock.close()
            raise
        name = message["exec"]
        streams = self._streams(
            created, pipes, message["open_stdin"], True, None, lambda: self._exec_over(name)
        )
        running = self._execs[name] = Running(created, streams)
        if client:
            streams.attach(client)
        if not streams.ended and pipes and not pipes.outputs:
            streams.drain(0)
        self.poller.watch(created.pidfd, select.POLLIN, lambda _: self._exec_exited(name))
        return {"pid": running.pid}

    # --- ends --------------------------------------------------------------------------------------

    def _exec_exited(self, name: str) -> None:
        running = self._execs[name]
        self.poller.forget(running.pidfd)
        running.code = _reap(running)
        assert running.streams
        running.streams.drain(_LEFT_OVER_OUTPUT)
        self._exec_over(name)

    def _exec_over(self, name: str) -> None:
        running = self._execs.get(name)
        if running and running.code is not None and running.streams and running.streams.ended:
            del self._execs[name]
            self._tell({"event": "exec_exited", "exec": name, "code": running.code})

    def _main_exited(self) -> None:
        self.poller.forget(self._main.pidfd)
        self._main.code = _reap(self._main)
        if "pid" not in self._kinds and self._group:
            self._group.kill()  # no namespace of their own dies with it
        assert self._main.streams
        self._main.streams.drain(_LEFT_OVER_OUTPUT)
        self._main_ended()

    def _main_ended(self) -> None:
        """Report the exit when both are over: the process, and its output."""
        if (
            self._exit is not None
            or self._main.code is None
            or not (self._main.streams and self._main.streams.ended)
        ):
            return
        if self._group:
            self._check_memory(self._group)
        ended = {"code": self._main.code, "oom_killed": self._kills > 0, "finished_at": timestamp()}
        _write(f"{self._bundle}/exit.json", ended)
        self._clean_up()
        self._exit = ended
        self._tell({"event": "exited", **ended})

    def _clean_up(self) -> None:
        if self._listener:
            self.poller.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
            _remove(self._socket_path)
        if self._group:
            self._group.remove(kill=True)

    def _tell(self, message: Message) -> None:
        for control in list(self.controls):
            control.send(message)

    def run(self) -> None:
        while self._exit is None or self._unfinished():
            self.poller.turn()

    def _unfinished(self) -> bool:
        """After the container's end: until exec codes are told and clients have what is theirs."""
        clients = self._main.streams.clients if self._main.streams else []
        return bool(clients or self._execs or any(not control.idle for control in self.controls))


class Pipes:
    """Pipes for a process without a terminal: `theirs` becomes its 0, 1 and 2; the rest is ours."""

    def __init__(self, *, stdin: bool, outputs: bool):
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._open = [null]
        self.stdin: int | None = None
        self.outputs: dict[int, str] = {}
        theirs = [null, null, null]
        if stdin:
            theirs[0], self.stdin = self._pipe()
        if outputs:
            for number, name in ((1, "stdout"), (2, "stderr")):
                read, theirs[number] = self._pipe(theirs_first=False)
                self.outputs[read] = name
        self.theirs = (theirs[0], theirs[1], theirs[2])

    def _pipe(self, *, theirs_first: bool = True) -> tuple[int, int]:
        read, write = os.pipe2(os.O_CLOEXEC)
        self._open.append(read if theirs_first else write)
        return read, write

    def close_theirs(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open.clear()

    def close(self) -> None:
        self.close_theirs()
        for fd in (*self.outputs, *(() if self.stdin is None else (self.stdin,))):
            os.close(fd)


def main(channel: socket.socket) -> NoReturn:
    """The shim's life, from the fork: read the request, start the container, keep it. Never returns."""
    code = 1
    try:
        libc.set_process_name(b"dockmagic-shim")
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        request, descriptors = _first_request(channel)
        if request is None:
            os._exit(0)  # the engine died before it said what it wants
        try:
            shim = Shim(request, descriptors, channel)
        except StartFailed as error:
            _answer(channel, {"id": request["id"], "error": str(error), "code": error.exit_code})
        except (EngineError, OSError, KeyError, ValueError) as error:
            _answer(channel, {"id": request["id"], "error": str(error), "code": 125})
        else:
            shim.controls[0].send({"id": request["id"], **shim.describe()})
            del request, descriptors
            libc.give_memory_back()
            shim.run()
        code = 0
    finally:
        os._exit(code)


def _first_request(channel: socket.socket) -> tuple[Message | None, list[int]]:
    decoder = Decoder()
    while True:
        data, descriptors = receive(channel)
        if not data:
            return None, []
        for message, files in decoder.feed(data, descriptors):
            return message, files


def _answer(channel: socket.socket, message: Message) -> None:
    try:
        channel.sendall(encode(message))
    except OSError:
        return  # the engine is gone, and with it whoever wanted to know


def _reap(running: Running) -> int:
    _, status = os.waitpid(running.pid, 0)
    os.close(running.pidfd)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _write(path: str, document: Message) -> None:
    """Beside, then rename. Not synced: after a crash of the machine nothing of this run is true any more."""
    with open(f"{path}.new", "w") as file:  # noqa: PTH123
        json.dump(document, file)
    os.rename(f"{path}.new", path)  # noqa: PTH104


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return
