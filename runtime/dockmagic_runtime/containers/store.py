"""Containers: what each verb of `docker container` does.

    create ──> created ──start──> running ──exit──> exited ──rm──> gone
                                   │   ^
                                 pause unpause

The order within a start is: network, files of /etc, OCI configuration, spawner; undone in reverse if one of
them fails, so that a failed start leaves a container that can be started again and nothing in the kernel.
One lock per container orders its verbs. A container is its shim's child, not ours: when the engine dies
nothing happens to it, and `restore` takes it up again.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.containers import creation, names, reshaping, restarts, settings, updating
from dockmagic_runtime.containers.launch import Launcher
from dockmagic_runtime.containers.live import Live
from dockmagic_runtime.containers.places import Places
from dockmagic_runtime.containers.record import Container, Records, State
from dockmagic_runtime.containers.volumeuse import VolumeUse
from dockmagic_runtime.errors import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotModified,
    SystemFailure,
)
from dockmagic_runtime.events import EventBus
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.kernel import trees
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.process.client import Attachment, Shim, read_exit
from dockmagic_runtime.process.messages import Exit, StartFailed
from dockmagic_runtime.process.spawner import Spawner
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.storage.overlay import Rootfs
from dockmagic_runtime.storage.snapshots import SnapshotStore
from dockmagic_runtime.volumes.store import VolumeStore

Json = dict[str, Any]
log = logging.getLogger(__name__)

STOP_TIMEOUT = 10  # seconds; Docker's default between the stop signal and SIGKILL
_LOST = 255  # exit code of a container whose shim was killed: nobody saw how it ended


class Containers:
    """All containers of one engine."""

    def __init__(
        self,
        config: EngineConfig,
        database: Database,
        images: ImageStore,
        snapshots: SnapshotStore,
        volumes: VolumeStore,
        networks: Networks,
        spawner: Spawner,
        events: EventBus,
        records: Records,
    ) -> None:
        self.places = Places(config)
        self._launcher = Launcher(self.places, snapshots, networks, spawner, records)
        self.account_for = self._launcher.account_for
        self.link_environment = self._launcher.link_environment
        self._images = images
        self._snapshots = snapshots
        self._volumes = volumes
        self.volumes = VolumeUse(volumes, events)
        self._networks = networks
        self._events = events
        self.records = records
        self._live: dict[str, Live] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._reshaping = asyncio.Lock()
        self._closing = False
        self.on_run: list[Callable[[Container], None]] = []
        self.on_exit: list[Callable[[Container], None]] = []

    # Looking up

    def get(self, reference: str) -> Container:
        return self.records.get(reference)

    def live(self, container: Container) -> Live:
        return self._live.setdefault(container.id, Live())

    def shim(self, container: Container) -> Shim:
        """The handle of a running container; raises Conflict in Docker's words if it is not running."""
        live = self._live.get(container.id)
        if container.state.status == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.state.running or live is None or live.shim is None:
            raise Conflict(f"container {container.id} is not running")
        return live.shim

    def cgroup(self, container: Container) -> Cgroup:
        return Cgroup.open(self.places.cgroup(container))

    def rootfs(self, container: Container) -> Rootfs:
        return self._snapshots.get(container.id)

    # create, remove, rename

    async def create(self, body: Json, name: str = "") -> tuple[Container, list[str]]:
        """Make a container from a create request; returns it and the warnings for the client.

        Raises NotFound for an unknown image, Conflict for a taken name.
        """
        reference = body.get("Image") if isinstance(body, dict) else None
        if not isinstance(reference, str) or not reference:
            raise InvalidParameter("no image specified")
        image = self._images.get(reference)
        container, warnings = creation.new_container(body, name, image, self.records, self._volumes)
        rootfs = self._snapshots.prepare(container.id, container.layers, host=image.host)
        try:
            await self.volumes.fill(container, rootfs)
            self.records.insert(container)
        except (EngineError, OSError):
            self._discard(container)
            raise
        self._publish(container, "create")
        return container, warnings

    async def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, killing it first if `force`; with `volumes` its anonymous volumes too."""
        live = self.live(container)
        if container.state.running:
            if not force:
                state = container.state.status
                hint = "Unpause and then stop" if state == "paused" else "Stop"
                raise Conflict(
                    f'cannot remove container "/{container.name}": container is {state}: '
                    f"{hint.lower()} the container before removing or force remove"
                )
            await self.end(container, timeout=0)
        async with live.lock:
            if live.release:
                await live.release
            self.records.delete(container)
            self._live.pop(container.id, None)
            self._discard(container)
            live.tell_removal(container.state.exit_code)
            self._publish(container, "destroy")
            if volumes:
                self.volumes.remove_anonymous(container)

    def _discard(self, container: Container) -> None:
        """The container's directory; renamed first, so that what a crash leaves of it is known as rubbish.

        Nobody waits for the files: they are gone by name, and a thread takes them off the disk.
        """
        directory = self.places.directory(container)
        doomed = directory.with_name(f".removed-{container.id}")
        try:
            directory.rename(doomed)
        except FileNotFoundError:
            return
        self._in_background(asyncio.to_thread(trees.remove, doomed))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that nobody waits for but the engine's end."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def rename(self, container: Container, name: str) -> None:
        if not name:
            raise InvalidParameter("Neither old nor new names may be empty")
        old = container.name
        self.records.rename(container, names.check(name))
        for parent, _ in self.records.parents(container.id):
            # What a link shows when its child is gone is the child's last name.
            parent.links = [
                [child, container.name if child == container.id else last, alias]
                for child, last, alias in parent.links
            ]
            self.records.save(parent)
        if sandbox := self._networks.sandbox(container.id):
            self._networks.rename(container.id, container.name)
            container.networks = sandbox.settings()
            self.records.save(container)
        self._publish(container, "rename", oldName=f"/{old}")

    async def unlink(self, name: str) -> None:
        """Remove the link `parent/alias`, not the container that it leads to."""
        parent_name, _, alias = name.strip("/").rpartition("/")
        if not parent_name:
            raise Conflict("Conflict, cannot remove the default link name of the container")
        child, parent = self.records.get(name), self.records.get(parent_name)
        parent.links = [link for link in parent.links if link[0] != child.id or link[2] != alias]
        self.records.save(parent)
        self._launcher.tell_links(parent)

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
            await self.volumes.hold(container)
            shim = await self._launcher.launch(container, live)
        except (EngineError, OSError) as error:
            await self._start_failed(container, live, error)
        container.state = State("running", shim.pid, started_at=timestamps.now())
        self._watch(container, live, shim)
        self.records.save(container)
        self.volumes.tell(container, "mount")
        self._publish(container, "start")

    async def _start_failed(self, container: Container, live: Live, error: EngineError | OSError) -> None:
        """Undo what was done, note it in the record, and raise the error in Docker's words."""
        self._launcher.give_back(container)
        await self.volumes.release(container)
        await self._networks.release(container.id)
        for attachment in live.waiting_attachments:
            attachment.socket.close()
        live.waiting_attachments.clear()
        code = error.exit_code if isinstance(error, StartFailed) else 128
        message = _runtime_sentence(error) if isinstance(error, StartFailed) else str(error)
        container.state = State("created" if container.state.status == "created" else "exited")
        container.state.exit_code = 128 if code == 125 else code
        container.state.error = message
        self.records.save(container)
        live.tell_exit(container.state.exit_code)
        if container.host_config["AutoRemove"]:
            self._after_exit(container, live)
        if isinstance(error, StartFailed):
            kind = InvalidParameter if error.exit_code in (126, 127) else SystemFailure
            raise kind(message) from error
        raise error

    # the end of a run

    def _watch(self, container: Container, live: Live, shim: Shim) -> None:
        live.shim = shim
        live.cleaned = shim.cleaned
        shim.on_oom = lambda: self._publish(container, "oom")
        live.watcher = asyncio.create_task(self._await_exit(container, live, shim))
        for told in self.on_run:
            told(container)

    async def _await_exit(self, container: Container, live: Live, shim: Shim) -> None:
        ended = await shim.exited
        self._ended(container, live, ended)

    def _ended(self, container: Container, live: Live, ended: Exit) -> None:
        container.state.pid = 0
        container.state.exit_code = ended.code
        container.state.oom_killed = ended.oom_killed
        container.state.finished_at = ended.finished_at
        again = not live.stopping and restarts.wanted(container)
        container.state.status = "restarting" if again else "exited"
        live.shim = None
        self.records.save(container)
        self._publish(container, "die", exitCode=str(ended.code))
        self.volumes.tell(container, "unmount")
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
                self.records.save(container)
                return
            container.restart_count += 1
            try:
                await self._launch(container, live)
            except (EngineError, OSError) as error:
                log.warning("container %s could not be restarted: %s", container.short_id, error)

    def _after_exit(self, container: Container, live: Live) -> None:
        """Behind the back of waiters: give the network back; remove the container if it was meant to go."""
        live.release = asyncio.create_task(self._release(container, live))

    async def _release(self, container: Container, live: Live) -> None:
        if live.cleaned:
            await live.cleaned
        self._launcher.give_back(container)
        await self.volumes.release(container)
        await self._networks.release(container.id)  # it may have left all its networks by now
        container.networks = {}
        if container.host_config["AutoRemove"] and container.id in self._live:
            # Its own task: remove() awaits this one.
            self._in_background(self.remove(container, volumes=True))

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
            self._publish(container, "kill", signal=str(number))
        done = asyncio.shield(shim.exited)
        try:
            await asyncio.wait_for(done, None if timeout < 0 else timeout)
        except TimeoutError:
            await shim.signal(9)
            self._publish(container, "kill", signal="9")
            await shim.exited
        if live.watcher:
            await live.watcher

    async def _expect_the_end(self, container: Container, live: Live) -> None:
        """No policy applies to the end that is to come, and a restart that was to come does not."""
        live.stopping = True
        if not container.manually_stopped:
            container.manually_stopped = True
            self.records.save(container)
        if live.restart:
            live.no_restart.set()
            await asyncio.wait([live.restart])

    async def stop(
        self, container: Container, *, signal: int | None = None, timeout: int | None = None
    ) -> None:
        if not container.state.running:
            raise NotModified("container already stopped")
        await self.end(container, signal=signal, timeout=timeout)
        self._publish(container, "stop")

    async def restart(
        self, container: Container, *, signal: int | None = None, timeout: int | None = None
    ) -> None:
        await self.end(container, signal=signal, timeout=timeout)
        await self.start(container)
        self._publish(container, "restart")

    async def reshape(self, container: Container, body: Json) -> None:
        """Other ports or mounts (see `reshaping`), with a stop and a start if it runs.

        What cannot be started is put back as it was, and started again; the error is raised then.
        """
        async with self._reshaping:
            before = reshaping.Shape.of(container)
            shape = reshaping.reshaped(container, body, self._volumes, self.records)
            running = container.state.running
            await self.end(container)
            shape.put_on(container)
            try:
                await self.volumes.fill(container, self.rootfs(container))
                self.records.save(container)
                if running:
                    await self.start(container)
            except (EngineError, OSError):
                before.put_on(container)
                self.records.save(container)
                if running:
                    await self.start(container)
                raise
        self._publish(container, "update")

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
        self._publish(container, "kill", signal=str(signal))
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

    async def pause(self, container: Container) -> None:
        self.shim(container)
        if container.state.status == "paused":
            raise Conflict(f"Container {container.id} is already paused")
        await asyncio.to_thread(self.cgroup(container).freeze)
        container.state.status = "paused"
        self.records.save(container)
        self._publish(container, "pause")

    async def unpause(self, container: Container) -> None:
        if container.state.status != "paused":
            raise Conflict(f"Container {container.id} is not paused")
        await asyncio.to_thread(self.cgroup(container).thaw)
        container.state.status = "running"
        self.records.save(container)
        self._publish(container, "unpause")

    async def resize(self, container: Container, height: int, width: int) -> None:
        await self.shim(container).resize(height, width)
        self._publish(container, "resize", height=str(height), width=str(width))

    async def attach(self, container: Container, attachment: Attachment) -> None:
        """Connect a client now, or at the next start if the container does not run."""
        if container.state.running:
            await self.shim(container).attach(attachment)
        else:
            self.live(container).waiting_attachments.append(attachment)
        self._publish(container, "attach")

    async def connect(self, container: Container, reference: str, endpoint: Json) -> None:
        """Put it into one more network, now or at its next start."""
        network = self._networks.get(reference)
        if network.name in container.endpoints:
            raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
        async with self.live(container).lock:
            if self._networks.sandbox(container.id):
                joined = await self._networks.connect(container.id, reference, endpoint)
                self._launcher.record_networks(container, joined)
            container.endpoints[network.name] = endpoint
            self.records.save(container)

    async def disconnect(self, container: Container, reference: str) -> None:
        """Take it out of a network, now and for its next start."""
        network = self._networks.get(reference)
        if network.name not in container.endpoints:
            raise Forbidden(f"container {container.id} is not connected to network {network.name}")
        async with self.live(container).lock:
            if self._networks.sandbox(container.id):
                left = await self._networks.disconnect(container.id, reference)
                self._launcher.record_networks(container, left)
            del container.endpoints[network.name]
            self.records.save(container)

    async def update(self, container: Container, body: Json) -> list[str]:
        """Change limits (`docker update`), in the record and in the kernel if it runs; gives warnings."""
        refused = f"Cannot update container {container.id}: "
        try:
            host, warnings = updating.changed(container.host_config, body)
        except Conflict as error:
            raise Conflict(refused + str(error)) from None
        if self.live(container).shim:
            try:
                self.cgroup(container).apply(updating.resources(host))
            except OSError as error:
                with contextlib.suppress(OSError):
                    self.cgroup(container).apply(updating.resources(container.host_config))
                kind = InvalidParameter if error.errno in (errno.EINVAL, errno.ERANGE) else SystemFailure
                raise kind(f"{refused}{error.filename}: {error.strerror}") from error
        container.host_config = host
        self.records.save(container)
        self._publish(container, "update")
        return warnings

    # the engine's own start

    async def restore(self) -> None:
        """Find the last engine's containers: running ones by their shim, ended ones by their exit file.

        The networks come up in between: they need to know who runs, and the ends of the others release
        theirs.
        """
        root = self.places.root
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
        self.places.shims.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep(root)
        lost: list[tuple[Container, Exit]] = []
        for container in self.records.all():
            if ended := await self._take_up(container):
                lost.append((container, ended))
        gone = {container.id for container, _ in lost}
        running = self.records.running()
        await self._networks.start([each.id for each in running if each.id not in gone])
        self.volumes.take_up(running)
        for container, ended in lost:
            self._ended(container, self.live(container), ended)

    def start_by_policy(self) -> None:
        """With the engine come, behind its back, the containers whose policy says so."""
        self._in_background(self._start_all_by_policy())

    async def _start_all_by_policy(self) -> None:
        # Those that join the network of another one come after it.
        due = [each for each in self.records.all() if not each.state.running and restarts.wanted(each)]
        joined = [each for each in due if each.network_mode.startswith("container:")]
        for group in ([each for each in due if each not in joined], joined):
            await asyncio.gather(*(self._start_again(container) for container in group))

    async def _start_again(self, container: Container) -> None:
        try:
            await self.start(container)
        except (NotModified, NotFound):
            log.debug("container %s: somebody was faster", container.short_id)
        except (EngineError, OSError) as error:
            log.warning("container %s could not be started: %s", container.short_id, error)

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

    async def _take_up(self, container: Container) -> Exit | None:
        """Watch a container that runs; say how it ended if it does no more and its record doesn't know.

        The record may also not know that it began: the last engine died between its start and the note of it.
        """
        try:
            shim = await Shim.connect(self.places.shim_socket(container))
        except OSError:
            if container.state.status == "restarting":
                container.state.status = "exited"  # until its policy is asked again
                return None
            if container.state.running:
                return await self._how_it_ended(container)
            left = read_exit(self.places.directory(container))
            known = timestamps.parse(container.state.finished_at)
            return left if left and timestamps.parse(left.finished_at) > known else None
        if container.state.status not in ("running", "paused"):
            container.state = State("running", shim.pid, started_at=timestamps.now())
            self.records.save(container)
        self._watch(container, self.live(container), shim)
        return None

    async def _how_it_ended(self, container: Container) -> Exit:
        """From its exit file; a shim that was killed has written none, and took the container with it."""
        group = self.cgroup(container)
        if group.exists():
            await asyncio.to_thread(group.remove, kill=True)
        return read_exit(self.places.directory(container)) or Exit(_LOST, False, timestamps.now())

    def _sweep(self, root: Path) -> None:
        """Directories that no record knows: half-made or half-removed when the last engine died."""
        known = {container.id for container in self.records.all()}
        for entry in os.scandir(root):
            if entry.name not in known:
                log.info("sweeping %s, which no container owns", entry.name)
                trees.remove(Path(entry.path))

    def usage(self, container: Container) -> int:
        """Bytes in the container's writable layer."""
        return self._snapshots.usage(container.id).size

    def image_family(self, reference: str) -> set[str]:
        """The ids of an image and of all images that have its layers below their own."""
        try:
            base = self._images.get(reference)
        except NotFound:
            return set()
        depth = len(base.diff_ids)
        return {image.id for image in self._images.list() if image.diff_ids[:depth] == base.diff_ids}

    def image_size(self, container: Container) -> int:
        image = self._images.by_id(container.image)
        return image.size if image else 0

    def note(self, container: Container, action: str, **attributes: str) -> None:
        """Tell what was done with a container elsewhere."""
        self._publish(container, action, **attributes)

    def _publish(self, container: Container, action: str, **attributes: str) -> None:
        self._events.publish("container", action, container.id, container.event_attributes(**attributes))

    def image_name(self, container: Container) -> str:
        """What `docker ps` shows: the name the user gave, or the id if that name now means another image."""
        given = container.config["Image"]
        try:
            current = self._images.get(given).id
        except (NotFound, InvalidParameter):
            return container.image
        return given if current == container.image else container.image


def _runtime_sentence(error: StartFailed) -> str:
    return (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"runc create failed: unable to start container process: {error}: unknown"
    )
