"""The runs of containers: start, stop, and what a restart policy makes of an end.

    created ──start──> running ──exit──> exited ──start──> running …
                        │   ^
                      pause unpause

The order within a start is: volumes, network, files of /etc, OCI configuration, spawner; undone if one of
them fails, so that a failed start leaves a container that can be started again and nothing in the kernel.
One lock per container orders its verbs. A container is its shim's child, not ours: when the engine dies
nothing happens to it, and `restoring` takes it up again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.containers import restarts, settings
from dockmagic_runtime.containers.launch import Launcher
from dockmagic_runtime.containers.live import Live
from dockmagic_runtime.containers.places import Places
from dockmagic_runtime.containers.record import Container, Records, State
from dockmagic_runtime.containers.volumeuse import VolumeUse
from dockmagic_runtime.errors import (
    Conflict,
    EngineError,
    InvalidParameter,
    NotModified,
    SystemFailure,
)
from dockmagic_runtime.events import EventBus
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.networks.sandboxes import Sandboxes
from dockmagic_runtime.process.client import Attachment, Shim
from dockmagic_runtime.process.messages import Exit, StartFailed

log = logging.getLogger(__name__)

STOP_TIMEOUT = 10  # seconds; Docker's default between the stop signal and SIGKILL


class Runs:
    """The runs of all containers of one engine, one at a time each.

    `on_run`, `on_exit` and `on_release` are called with a container when its program runs, when it has ended,
    and when nothing of the run is left.
    """

    def __init__(
        self,
        places: Places,
        records: Records,
        launcher: Launcher,
        volumes: VolumeUse,
        sandboxes: Sandboxes,
        events: EventBus,
    ) -> None:
        self._places = places
        self._records = records
        self._launcher = launcher
        self._volumes = volumes
        self._sandboxes = sandboxes
        self._events = events
        self._live: dict[str, Live] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._closing = False
        self.on_run: list[Callable[[Container], None]] = []
        self.on_exit: list[Callable[[Container], None]] = []
        self.on_release: list[Callable[[Container], None]] = []

    # looking up

    def live(self, container: Container) -> Live:
        return self._live.setdefault(container.id, Live())

    def forget(self, container: Container) -> None:
        """The container is no more."""
        self._live.pop(container.id, None)

    def shim(self, container: Container) -> Shim:
        """The handle of a running container; raises Conflict in Docker's words if it is not running."""
        live = self._live.get(container.id)
        if container.state.status == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.state.running or live is None or live.shim is None:
            raise Conflict(f"container {container.id} is not running")
        return live.shim

    def cgroup(self, container: Container) -> Cgroup:
        return Cgroup.open(self._places.cgroup(container))

    # start

    async def start(self, container: Container) -> None:
        """Start it; returns when its program has been executed. Raises NotModified if it runs already."""
        live = self.live(container)
        async with live.lock:
            if container.state.status == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.state.running:
                raise NotModified("container already started")
            live.stopping = container.manually_stopped = False
            live.restart_delay = container.restart_count = 0
            await self._launch(container, live)

    async def _launch(self, container: Container, live: Live) -> None:
        """Under the container's lock."""
        if live.release:
            await live.release
        try:
            await self._volumes.hold(container)
            shim = await self._launcher.launch(container, live)
        except (EngineError, OSError) as error:
            await self._start_failed(container, live, error)
        container.state = State("running", shim.pid, started_at=timestamps.now())
        self.watch(container, shim)
        self._records.save(container)
        self._volumes.tell(container, "mount")
        self._events.publish(*container.event("start"))

    async def _start_failed(self, container: Container, live: Live, error: EngineError | OSError) -> None:
        """Undo what was done, note it in the record, and raise the error in Docker's words."""
        self._launcher.give_back(container)
        await self._volumes.release(container)
        await self._sandboxes.release(container.id)
        for attachment in live.waiting_attachments:
            attachment.socket.close()
        live.waiting_attachments.clear()
        code = error.exit_code if isinstance(error, StartFailed) else 128
        message = _runtime_sentence(error) if isinstance(error, StartFailed) else str(error)
        container.state = State("created" if container.state.status == "created" else "exited")
        container.state.exit_code = 128 if code == 125 else code
        container.state.error = message
        self._records.save(container)
        live.tell_exit(container.state.exit_code)
        if container.host_config["AutoRemove"]:
            self._after_exit(container, live)
        if isinstance(error, StartFailed):
            kind = InvalidParameter if error.exit_code in (126, 127) else SystemFailure
            raise kind(message) from error
        raise error

    def watch(self, container: Container, shim: Shim) -> None:
        """From now on the container's program runs, and its end will be known."""
        live = self.live(container)
        live.shim = shim
        live.cleaned = shim.cleaned
        shim.on_oom = lambda: self._events.publish(*container.event("oom"))
        live.watcher = asyncio.create_task(self._await_exit(container, shim))
        for told in self.on_run:
            told(container)

    # the end

    async def _await_exit(self, container: Container, shim: Shim) -> None:
        self.note_end(container, await shim.exited)

    def note_end(self, container: Container, ended: Exit) -> None:
        """Its program has ended: in the record, to all who wait for it, and to its restart policy."""
        live = self.live(container)
        container.state.pid = 0
        container.state.exit_code = ended.code
        container.state.oom_killed = ended.oom_killed
        container.state.finished_at = ended.finished_at
        again = not live.stopping and restarts.wanted(container)
        container.state.status = "restarting" if again else "exited"
        live.shim = None
        self._records.save(container)
        self._events.publish(*container.event("die", exitCode=str(ended.code)))
        self._volumes.tell(container, "unmount")
        live.tell_exit(ended.code)
        for told in self.on_exit:
            told(container)
        self._after_exit(container, live)
        if again:
            live.restart_delay = restarts.delay_after(container, live.restart_delay)
            live.restart = asyncio.create_task(self._restart(container, live))

    async def _restart(self, container: Container, live: Live) -> None:
        """What a restart policy does, after its delay; nothing if somebody stops the container meanwhile."""
        live.no_restart.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(live.no_restart.wait(), live.restart_delay)
        async with live.lock:
            if self._closing:
                return  # the record says "restarting", and the next engine goes on from there
            if live.stopping:
                container.state.status = "exited"
                self._records.save(container)
                return
            container.restart_count += 1
            try:
                await self._launch(container, live)
            except (EngineError, OSError) as error:
                log.warning("container %s could not be restarted: %s", container.short_id, error)

    def _after_exit(self, container: Container, live: Live) -> None:
        """Behind the back of waiters: give back what the run had."""
        live.release = asyncio.create_task(self._release(container, live))

    async def _release(self, container: Container, live: Live) -> None:
        if live.cleaned:
            await live.cleaned
        self._launcher.give_back(container)
        await self._volumes.release(container)
        await self._sandboxes.release(container.id)  # it may have left all its networks by now
        container.networks = {}
        for told in self.on_release:
            told(container)

    async def end(
        self, container: Container, *, signal: int | None = None, timeout: int | None = None
    ) -> None:
        """Stop a container: its stop signal, `timeout` seconds, SIGKILL; always waits until it is gone.

        `timeout` None is the container's own (10 s unless set), negative waits without end. An interrupt of
        the waiting client changes nothing: the signal is out and SIGKILL follows.
        """
        live = self.live(container)
        if not container.state.running:
            return
        await self._expect_the_end(container, live)
        if not container.state.running:
            return
        shim = self.shim(container)
        if container.state.status == "paused":
            self.cgroup(container).thaw()
        if timeout is None:
            timeout = container.config.get("StopTimeout")
            timeout = STOP_TIMEOUT if timeout is None else timeout
        if timeout != 0:
            number = signal or settings.parse_signal(container.config.get("StopSignal") or "SIGTERM")
            await shim.signal(number)
            self._events.publish(*container.event("kill", signal=str(number)))
        done = asyncio.shield(shim.exited)
        try:
            await asyncio.wait_for(done, None if timeout < 0 else timeout)
        except TimeoutError:
            await shim.signal(9)
            self._events.publish(*container.event("kill", signal="9"))
            await shim.exited
        if live.watcher:
            await live.watcher

    async def _expect_the_end(self, container: Container, live: Live) -> None:
        """No policy applies to the end that is to come, and a restart that was to come does not."""
        live.stopping = True
        if not container.manually_stopped:
            container.manually_stopped = True
            self._records.save(container)
        if live.restart:
            live.no_restart.set()
            await asyncio.wait([live.restart])

    async def stop(
        self, container: Container, *, signal: int | None = None, timeout: int | None = None
    ) -> None:
        if not container.state.running:
            raise NotModified("container already stopped")
        await self.end(container, signal=signal, timeout=timeout)
        self._events.publish(*container.event("stop"))

    async def restart(
        self, container: Container, *, signal: int | None = None, timeout: int | None = None
    ) -> None:
        await self.end(container, signal=signal, timeout=timeout)
        await self.start(container)
        self._events.publish(*container.event("restart"))

    async def kill(self, container: Container, signal: int) -> None:
        """Send one signal to the container's first process; SIGKILL returns only when it is gone."""
        if not container.state.running:
            raise Conflict(
                f"cannot kill container: {container.name}: container {container.id} is not running"
            )
        live = self.live(container)
        stop_signal = container.config.get("StopSignal")
        if not stop_signal or signal in (9, settings.parse_signal(stop_signal)):
            await self._expect_the_end(container, live)
            if not container.state.running:
                return  # it was waiting for its restart, and will not have one
        shim = self.shim(container)
        if signal == 9 and container.state.status == "paused":
            self.cgroup(container).thaw()
        await shim.signal(signal)
        self._events.publish(*container.event("kill", signal=str(signal)))
        if signal == 9 and live.watcher:
            await live.watcher

    def wait(self, container: Container, condition: str = "not-running") -> Awaitable[int]:
        """The exit code, once `condition` (not-running, next-exit, removed) is true."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        live = self.live(container)
        if condition == "removed":
            live.removal_waiters.append(future)
        elif condition == "next-exit" or container.state.running:
            live.exit_waiters.append(future)
        elif condition == "not-running":
            future.set_result(container.state.exit_code)
        else:
            raise InvalidParameter(f'invalid condition: "{condition}"')
        return future

    # while it runs

    async def pause(self, container: Container) -> None:
        self.shim(container)
        if container.state.status == "paused":
            raise Conflict(f"Container {container.id} is already paused")
        await asyncio.to_thread(self.cgroup(container).freeze)
        container.state.status = "paused"
        self._records.save(container)
        self._events.publish(*container.event("pause"))

    async def unpause(self, container: Container) -> None:
        if container.state.status != "paused":
            raise Conflict(f"Container {container.id} is not paused")
        await asyncio.to_thread(self.cgroup(container).thaw)
        container.state.status = "running"
        self._records.save(container)
        self._events.publish(*container.event("unpause"))

    async def resize(self, container: Container, height: int, width: int) -> None:
        await self.shim(container).resize(height, width)
        self._events.publish(*container.event("resize", height=str(height), width=str(width)))

    async def attach(self, container: Container, attachment: Attachment) -> None:
        """Connect a client now, or at the next start if the container does not run."""
        if container.state.running:
            await self.shim(container).attach(attachment)
        else:
            self.live(container).waiting_attachments.append(attachment)
        self._events.publish(*container.event("attach"))

    # the engine's end

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that nobody waits for but the engine's end."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def let_go(self) -> None:
        """Drop the handles of running containers; the containers don't notice."""
        self._closing = True
        for live in list(self._live.values()):
            if live.restart:
                live.no_restart.set()
                await asyncio.wait([live.restart])
            if live.watcher:
                live.watcher.cancel()
            if live.release:
                await live.release
        while self._background:
            await asyncio.wait(self._background)


def _runtime_sentence(error: StartFailed) -> str:
    return (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"runc create failed: unable to start container process: {error}: unknown"
    )
