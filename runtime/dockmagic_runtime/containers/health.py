"""Health checks: a command run in the container every so often, and what its exit codes say of the container.

    starting ──exit 0──> healthy <──exit 0── unhealthy
        └──── `retries` failures in a row ───────^     (those of the start period don't count)

The check is an exec like a user's. Status and the last five results are part of the container's state, so a
restarted engine goes on where the last one was. Defaults and words are those of Docker's HEALTHCHECK.
"""

import asyncio
import contextlib
import os
import signal
import socket
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.containers import healthcheck
from dockmagic_runtime.containers.execs import Exec, Execs
from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.containers.runs import Runs
from dockmagic_runtime.errors import EngineError
from dockmagic_runtime.events import EventBus
from dockmagic_runtime.kernel import pidfd
from dockmagic_runtime.process.client import Attachment
from dockmagic_runtime.process.frames import Frames

Json = dict[str, Any]

_KEPT_RESULTS = 5
_KEPT_OUTPUT = 4096  # bytes of each result
_SECOND = 1_000_000_000


class HealthChecks:
    """All health checks of one engine: one task for each running container that has one."""

    def __init__(self, records: Records, runs: Runs, execs: Execs, events: EventBus) -> None:
        self._records = records
        self._execs = execs
        self._events = events
        self._tasks: dict[str, asyncio.Task[None]] = {}
        runs.on_run.append(self._begin)
        runs.on_exit.append(self._end)

    async def close(self) -> None:
        """The engine ends: the containers go on unchecked until there is another one."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, container: Container) -> None:
        if argv := healthcheck.command(container.config):
            if not container.state.health:
                container.state.health = {"Status": "starting", "FailingStreak": 0, "Log": []}
            self._tasks[container.id] = asyncio.create_task(self._check(container, argv))

    def _end(self, container: Container) -> None:
        if task := self._tasks.pop(container.id, None):
            task.cancel()

    async def _check(self, container: Container, argv: list[str]) -> None:
        """Until the container ends, which cancels this."""
        while True:
            await asyncio.sleep(self._pause(container))
            if container.state.status != "running":
                continue  # paused
            began = timestamps.now()
            code, output = await self._probe(container, argv)
            result = {"Start": began, "End": timestamps.now(), "ExitCode": code, "Output": output}
            self._judge(container, result)

    def _pause(self, container: Container) -> float:
        starting = container.state.health and container.state.health["Status"] == "starting"
        within = starting and _age(container) < _setting(container, "StartPeriod")
        return _setting(container, "StartInterval" if within else "Interval") / _SECOND

    async def _probe(self, container: Container, argv: list[str]) -> tuple[int, str]:
        """Its exit code and output; -1 and a sentence if it could not be run or took too long."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        session: Exec | None = None
        seconds = _setting(container, "Timeout") / _SECOND
        with ours:
            try:
                session = self._execs.create(
                    container, {"Cmd": argv, "AttachStdout": True, "AttachStderr": True}
                )
                await self._execs.start(session, Attachment(theirs))
                assert session.ended is not None
                handle = _handle(session.pid)
                try:
                    async with asyncio.timeout(seconds):
                        output = await _read(ours)
                        return await session.ended, output
                except TimeoutError:
                    if handle is not None:
                        with contextlib.suppress(ProcessLookupError):
                            pidfd.send_signal(handle, signal.SIGKILL)
                    return -1, f"Health check exceeded timeout ({seconds:g}s)"
                finally:
                    if handle is not None:
                        os.close(handle)
            except EngineError as error:
                theirs.close()
                return -1, str(error)
            finally:
                if session:
                    self._execs.forget(session)

    def _judge(self, container: Container, result: Json) -> None:
        health = container.state.health
        if health is None:
            return
        before = health["Status"]
        health["Log"] = [*health["Log"], result][-_KEPT_RESULTS:]
        if result["ExitCode"] == 0:
            health["Status"], health["FailingStreak"] = "healthy", 0
        elif before != "starting" or _age(container) >= _setting(container, "StartPeriod"):
            health["FailingStreak"] += 1
            if health["FailingStreak"] >= _setting(container, "Retries"):
                health["Status"] = "unhealthy"
        self._records.save(container)
        if health["Status"] != before:
            self._events.publish(*container.event(f"health_status: {health['Status']}"))


def _setting(container: Container, name: str) -> int:
    """Times in nanoseconds."""
    return int(container.config["Healthcheck"].get(name) or healthcheck.DEFAULTS[name])


def _age(container: Container) -> int:
    return timestamps.parse(timestamps.now()) - timestamps.parse(container.state.started_at)


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


async def _read(sock: socket.socket) -> str:
    """What the check prints, both streams as they come, cut where Docker cuts it."""
    loop = asyncio.get_running_loop()
    frames, text, cut = Frames(), b"", False
    while data := await loop.sock_recv(sock, 1 << 16):
        for _, piece in frames.feed(data):
            cut = cut or len(text) + len(piece) > _KEPT_OUTPUT
            text = (text + piece)[:_KEPT_OUTPUT]
    return text.decode("utf-8", "replace") + ("..." if cut else "")
