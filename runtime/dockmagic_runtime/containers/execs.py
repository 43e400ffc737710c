"""Exec: a further program in a running container. Made with `create`, run once with `start`.

Sessions are kept in memory only: they end with their container, and Docker forgets them with its daemon too.
The program itself is the shim's child and outlives the engine like everything in the container.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from dockmagic_runtime import identifiers
from dockmagic_runtime.containers import security, settings, spec
from dockmagic_runtime.containers.launch import Launcher
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.containers.runs import Runs
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound
from dockmagic_runtime.events import EventBus
from dockmagic_runtime.process.client import Attachment, Shim
from dockmagic_runtime.process.messages import StartFailed

Json = dict[str, Any]

_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "AttachStdin": ((bool,), False),
    "AttachStdout": ((bool,), False),
    "AttachStderr": ((bool,), False),
    "DetachKeys": ((str,), ""),
    "Tty": ((bool,), False),
    "Env": ((list,), []),
    "Cmd": ((list,), []),
    "Privileged": ((bool,), False),
    "User": ((str,), ""),
    "WorkingDir": ((str,), ""),
    "ConsoleSize": ((list,), None),
}


@dataclass
class Exec:
    """One exec session. `exit_code` is None until the program has ended."""

    id: str
    container: Container
    wanted: Json
    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    ended: "asyncio.Future[int] | None" = None

    def inspect(self) -> Json:
        wanted = self.wanted
        return {
            "ID": self.id,
            "Running": self.running,
            "ExitCode": self.exit_code,
            "ProcessConfig": {
                "tty": wanted["Tty"],
                "entrypoint": wanted["Cmd"][0],
                "arguments": wanted["Cmd"][1:],
                "privileged": wanted["Privileged"],
                **({"user": wanted["User"]} if wanted["User"] else {}),
            },
            "OpenStdin": wanted["AttachStdin"],
            "OpenStderr": wanted["AttachStderr"],
            "OpenStdout": wanted["AttachStdout"],
            "CanRemove": self.exit_code is not None,
            "ContainerID": self.container.id,
            "DetachKeys": "",
            "Pid": self.pid,
        }


class Execs:
    """All exec sessions of one engine."""

    def __init__(self, runs: Runs, launcher: Launcher, events: EventBus) -> None:
        self._runs = runs
        self._launcher = launcher
        self._events = events
        self._sessions: dict[str, Exec] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        runs.on_exit.append(self._forget)

    def get(self, exec_id: str) -> Exec:
        if exec_id not in self._sessions:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self._sessions[exec_id]

    def of(self, container: Container) -> list[str]:
        return [session.id for session in self._sessions.values() if session.container is container]

    def create(self, container: Container, body: Json) -> Exec:
        """Raises Conflict if the container does not run, InvalidParameter without a command."""
        wanted = settings.complete(body, _FIELDS, "ExecConfig")
        if not wanted["Cmd"]:
            raise InvalidParameter("No exec command specified")
        if container.state.status == "paused":
            raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
        self._runs.shim(container)
        session = Exec(identifiers.new(), container, wanted)
        self._sessions[session.id] = session
        command = " ".join(wanted["Cmd"])
        self._publish(session, f"exec_create: {command}")
        return session

    async def start(
        self, session: Exec, attachment: Attachment | None, hold: socket.socket | None = None
    ) -> None:
        """Run it. `attachment` is the client's stream; returns when the program has been executed.

        `hold`, a duplicate of that stream, is closed when the exit code is known.

        Raises StartFailed (126, 127), Conflict if it ran already.
        """
        if session.pid or session.exit_code is not None:
            raise Conflict(f"exec command {session.id} is already running")
        shim = self._runs.shim(session.container)
        session.running = True
        try:
            session.pid = await shim.exec(
                session.id, self._process(session), attachment, open_stdin=session.wanted["AttachStdin"]
            )
        except StartFailed as error:
            session.running, session.exit_code = False, error.exit_code
            raise
        self._publish(session, f"exec_start: {' '.join(session.wanted['Cmd'])}")
        session.ended = shim.exec_exited(session.id)
        watcher = asyncio.create_task(self._await_exit(session, shim, session.ended, hold))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def resize(self, session: Exec, height: int, width: int) -> None:
        await self._runs.shim(session.container).resize(height, width, session.id)

    async def _await_exit(
        self, session: Exec, shim: Shim, exited: "asyncio.Future[int]", hold: socket.socket | None
    ) -> None:
        session.exit_code = await exited
        shim.forget_exec(session.id)
        session.running = False
        if hold:
            hold.close()
        self._publish(session, "exec_die", exitCode=str(session.exit_code))

    def _process(self, session: Exec) -> Json:
        container, wanted = session.container, session.wanted
        host = container.host_config | ({"Privileged": True} if wanted["Privileged"] else {})
        options = security.SecurityOptions.parse(host["SecurityOpt"] or [])
        granted = security.granted_capabilities(host)
        account = self._launcher.account_for(container, wanted["User"] or container.config["User"])
        size = wanted["ConsoleSize"]
        return {
            "terminal": wanted["Tty"],
            **({"consoleSize": {"height": size[0], "width": size[1]}} if size and wanted["Tty"] else {}),
            "user": spec.user(account),
            "args": wanted["Cmd"],
            "env": spec.environment(
                container,
                account,
                wanted["Tty"],
                wanted["Env"],
                links=self._launcher.link_environment(container),
            ),
            "cwd": wanted["WorkingDir"] or container.config["WorkingDir"] or "/",
            "capabilities": security.capability_sets(granted),
            "noNewPrivileges": options.no_new_privileges,
        }

    def forget(self, session: Exec) -> None:
        """One that no client knows of and nobody will ask for."""
        self._sessions.pop(session.id, None)

    def _forget(self, container: Container) -> None:
        for exec_id in self.of(container):
            session = self._sessions.pop(exec_id)
            if session.running:
                session.running, session.exit_code = False, 137

    def _publish(self, session: Exec, action: str, **attributes: str) -> None:
        self._events.publish(*session.container.event(action, execID=session.id, **attributes))
