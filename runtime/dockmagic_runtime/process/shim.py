"""The shim: parent and keeper of one container, for as long as it runs; it outlives the engine.

It owns the container's streams and log, serves attach, exec, signals and resizes, and writes the exit code to
`<bundle>/exit.json`. One thread, one poll loop, no ticks. Engines come and go: the one that ordered the
container talks over the channel it was ordered on, later ones connect to the shim's socket.

How things die:
- the engine or the spawner: the shim does not notice, but for a closed connection;
- the container: all of its output is read and logged, exit.json is written, engines are told, the group and
  the root are let go and engines told of that too, and the shim ends when its attached clients have taken
  what is theirs;
- the shim itself (kill -9): the kernel kills the container's first process with it (PR_SET_PDEATHSIG), and
  whatever may be left, a program with set-uid bits that cleared that, the engine finds in the container's
  group.
"""

import os
import select
import signal
import socket
from typing import NoReturn

from dockmagic_runtime.errors import EngineError
from dockmagic_runtime.kernel import libc, namespaces, pidfd
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.process import starter
from dockmagic_runtime.process.exec import exec_in
from dockmagic_runtime.process.logfile import JsonLog, timestamp
from dockmagic_runtime.process.messages import Decoder, Message, StartFailed, encode, receive, receive_packet
from dockmagic_runtime.process.pipes import Pipes
from dockmagic_runtime.process.stdio import Client, Poller, Streams

_MOST_BYTES = 1 << 17

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

    def __init__(self, pid: int, pidfd: int, streams: Streams):
        self.pid, self.pidfd, self.streams = pid, pidfd, streams
        self.code: int | None = None


class Shim:
    """One container that the starter has started; `run` returns when all is over."""

    def __init__(self, started: Message, descriptors: list[int], channel: socket.socket):
        self.poller = Poller()
        self.controls: list[Control] = []
        self._bundle, self._socket_path = started["bundle"], started["socket"]
        self._execs: dict[str, Running] = {}
        self._exit: Message | None = None
        self._kills = 0
        self._kinds = started["kinds"]
        self._group = Cgroup.open(started["group"]) if started["group"] else None
        self._seccomp, self._seccomp_flags = started["seccomp"], started["seccomp_flags"]
        self.warnings: list[str] = []
        self._listener: socket.socket | None = socket.socket(fileno=descriptors[1])
        self._listener.setblocking(False)
        self.poller.watch(descriptors[1], select.POLLIN, lambda _: self._accept())
        # The last to let go of an overlay waits until its whole file system is on the disk. Better we than
        # the container, whose end somebody waits for.
        self._root = descriptors.pop(2) if started["root"] else None
        self._main = self._take_over(started, descriptors[0], descriptors[2:])
        self.controls.append(Control(self, channel))

    # --- start -------------------------------------------------------------------------------------

    def _take_over(self, started: Message, pidfd_: int, descriptors: list[int]) -> Running:
        """The container runs; its streams are ours from here on."""
        spec, log = started["log"], None
        if spec["driver"] != "none":
            log = JsonLog(
                spec["path"],
                spec["max_size"],
                spec["max_file"],
                compress=spec["compress"],
                attrs=spec["attrs"],
            )
        names = ("stdout",) if started["terminal"] else ("stdout", "stderr")
        outputs = dict(zip(descriptors, names))  # noqa: B905 - more descriptors follow
        rest = descriptors[len(names) :]
        stdin = None
        if started["open_stdin"]:
            stdin = descriptors[0] if started["terminal"] else rest.pop(0)
        streams = Streams(
            self.poller,
            outputs,
            stdin,
            tty=started["terminal"],
            stdin_once=started["stdin_once"],
            log=log,
            on_end=self._main_ended,
        )
        for flags, fd in zip(started["streams"], rest, strict=True):
            streams.attach(Client(socket.socket(fileno=fd), *flags))
        self.poller.watch(pidfd_, select.POLLIN, lambda _: self._main_exited())
        if started["memory_limited"] and self._group:
            self._watch_memory(self._group)
        return Running(started["pid"], pidfd_, streams)

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
                self._main.streams.attach(Client(socket.socket(fileno=descriptors[0]), *message["stream"]))
            case "follow":
                self._main.streams.follow_log(socket.socket(fileno=descriptors[0]))
            case "exec":
                return self._exec(message, descriptors)
            case "signal":
                pidfd.send_signal(self._main.pidfd, message["signal"])
            case "resize":
                running = self._main if message["exec"] is None else self._execs[message["exec"]]
                running.streams.resize(message["height"], message["width"])
            case unknown:
                raise ValueError(f"the shim knows no {unknown}")
        return {}

    def describe(self) -> Message:
        return {
            "pid": self._main.pid,
            "bundle": self._bundle,
            "group": self._group.path if self._group else None,
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
        if pipes:
            pipes.close_theirs()
            outputs, stdin = pipes.outputs, pipes.stdin
        else:
            assert created.console is not None
            outputs, stdin = {created.console: "stdout"}, created.console if message["open_stdin"] else None
        streams = Streams(
            self.poller,
            outputs,
            stdin,
            tty=pipes is None,
            stdin_once=True,
            log=None,
            on_end=lambda: self._exec_over(name),
        )
        running = self._execs[name] = Running(created.pid, created.pidfd, streams)
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
        starter.write_json(f"{self._bundle}/exit.json", ended)
        self._exit = ended
        self._tell({"event": "exited", **ended})
        self._clean_up()
        self._tell({"event": "cleaned"})

    def _clean_up(self) -> None:
        if self._listener:
            self.poller.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
            os.unlink(self._socket_path)  # noqa: PTH108
        if self._group:
            # In a pid namespace of their own all have died with the first.
            self._group.remove(kill="pid" not in self._kinds)
        if self._root is not None:
            os.close(self._root)

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


def main(channel: socket.socket) -> NoReturn:
    """The shim's life, from the fork: read the request, start the container, keep it. Never returns."""
    code = 1
    try:
        libc.set_process_name(b"dockmagic-shim")
        os.setsid()
        libc.set_signal(signal.SIGCHLD, ignore=False)
        for number in (signal.SIGTERM, signal.SIGHUP):
            libc.set_signal(number, ignore=True)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        pid, start = _fork_starter(channel)
        started, descriptors = receive_packet(start, _MOST_BYTES)
        if started is None:
            os._exit(0)  # nothing was ordered, or it failed and the engine has been told
        shim = Shim(started, descriptors, channel)
        running, _ = receive_packet(start)
        if running is None:
            os._exit(0)  # it failed after all
        shim.warnings = running["warnings"]
        start.close()
        for child in (*started["reap"], pid):
            os.waitpid(child, 0)
        del started, descriptors
        libc.give_memory_back()
        shim.run()
        code = 0
    finally:
        os._exit(code)


def _fork_starter(channel: socket.socket) -> tuple[int, socket.socket]:
    """Have a starter start what the engine orders on `channel`: its pid, and where it tells the outcome."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    group = f"spare-{os.getpid()}"
    pid, pidfd_ = namespaces.clone(0)
    if pid == 0:
        ours.close()
        starter.main(channel, theirs, group)
    theirs.close()
    os.close(pidfd_)
    return pid, ours


def _reap(running: Running) -> int:
    _, status = os.waitpid(running.pid, 0)
    os.close(running.pidfd)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
