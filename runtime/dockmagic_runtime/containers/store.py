"""Containers: what a container is, from `docker create` to `docker rm`, whether it runs or not.

    create ──> created ──start──> running ──exit──> exited ──rm──> gone

Its record (`record.py`), its writable layer and its directory are made and removed here, and here the record
changes: name, links, networks, limits, ports and mounts. Starting and stopping it is the affair of `Runs`.
"""

import asyncio
import contextlib
import errno
from typing import Any

from dockmagic_runtime.containers import creation, names, reshaping, updating
from dockmagic_runtime.containers.launch import Launcher
from dockmagic_runtime.containers.places import Places
from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.containers.runs import Runs
from dockmagic_runtime.containers.volumeuse import VolumeUse
from dockmagic_runtime.errors import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidParameter,
    SystemFailure,
)
from dockmagic_runtime.events import EventBus
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.kernel import trees
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.storage.overlay import Rootfs
from dockmagic_runtime.storage.snapshots import SnapshotStore

Json = dict[str, Any]


class Containers:
    """All containers of one engine."""

    def __init__(
        self,
        places: Places,
        records: Records,
        images: ImageStore,
        snapshots: SnapshotStore,
        volumes: VolumeUse,
        networks: Networks,
        launcher: Launcher,
        runs: Runs,
        events: EventBus,
    ) -> None:
        self.places = places
        self.records = records
        self.images = images
        self.volumes = volumes
        self._snapshots = snapshots
        self._networks = networks
        self._launcher = launcher
        self._runs = runs
        self._events = events
        self._reshaping = asyncio.Lock()
        runs.on_release.append(self._remove_by_itself)

    # looking up

    def get(self, reference: str) -> Container:
        return self.records.get(reference)

    def rootfs(self, container: Container) -> Rootfs:
        return self._snapshots.get(container.id)

    def usage(self, container: Container) -> int:
        """Bytes in the container's writable layer."""
        return self._snapshots.usage(container.id).size

    # its beginning and its end

    async def create(self, body: Json, name: str = "") -> tuple[Container, list[str]]:
        """Make a container from a create request; returns it and the warnings for the client.

        Raises NotFound for an unknown image, Conflict for a taken name.
        """
        reference = body.get("Image") if isinstance(body, dict) else None
        if not isinstance(reference, str) or not reference:
            raise InvalidParameter("no image specified")
        image = self.images.get(reference)
        container, warnings = creation.new_container(body, name, image, self.records, self.volumes.store)
        rootfs = self._snapshots.prepare(container.id, container.layers, host=image.host)
        try:
            await self.volumes.fill(container, rootfs)
            self.records.insert(container)
        except (EngineError, OSError):
            self._discard(container)
            raise
        self._events.publish(*container.event("create"))
        return container, warnings

    async def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, killing it first if `force`; with `volumes` its anonymous volumes too."""
        live = self._runs.live(container)
        if container.state.running:
            if not force:
                state = container.state.status
                hint = "unpause and then stop" if state == "paused" else "stop"
                raise Conflict(
                    f'cannot remove container "/{container.name}": container is {state}: '
                    f"{hint} the container before removing or force remove"
                )
            await self._runs.end(container, timeout=0)
        async with live.lock:
            if live.release:
                await live.release
            self.records.delete(container)
            self._runs.forget(container)
            self._discard(container)
            live.tell_removal(container.state.exit_code)
            self._events.publish(*container.event("destroy"))
            if volumes:
                self.volumes.remove_anonymous(container)

    def _remove_by_itself(self, container: Container) -> None:
        """`--rm`: at the end of its run."""
        if container.host_config["AutoRemove"] and self.records.find(container.id):
            # In a task of its own: remove() awaits the one that calls us.
            self._runs.in_background(self.remove(container, volumes=True))

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
        self._runs.in_background(asyncio.to_thread(trees.remove, doomed))

    # its names and links

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
        if sandbox := self._networks.sandboxes.find(container.id):
            self._networks.sandboxes.rename(container.id, container.name)
            container.networks = sandbox.settings()
            self.records.save(container)
        self._events.publish(*container.event("rename", oldName=f"/{old}"))

    async def unlink(self, name: str) -> None:
        """Remove the link `parent/alias`, not the container that it leads to."""
        parent_name, _, alias = name.strip("/").rpartition("/")
        if not parent_name:
            raise Conflict("Conflict, cannot remove the default link name of the container")
        child, parent = self.records.get(name), self.records.get(parent_name)
        parent.links = [link for link in parent.links if link[0] != child.id or link[2] != alias]
        self.records.save(parent)
        self._launcher.tell_links(parent)

    # its networks, limits, ports and mounts

    async def connect(self, container: Container, reference: str, endpoint: Json) -> None:
        """Put it into one more network, now or at its next start."""
        network = self._networks.get(reference)
        if network.name in container.endpoints:
            raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
        async with self._runs.live(container).lock:
            if self._networks.sandboxes.find(container.id):
                joined = await self._networks.sandboxes.connect(container.id, reference, endpoint)
                self._launcher.record_networks(container, joined)
            container.endpoints[network.name] = endpoint
            self.records.save(container)

    async def disconnect(self, container: Container, reference: str) -> None:
        """Take it out of a network, now and for its next start."""
        network = self._networks.get(reference)
        if network.name not in container.endpoints:
            raise Forbidden(f"container {container.id} is not connected to network {network.name}")
        async with self._runs.live(container).lock:
            if self._networks.sandboxes.find(container.id):
                left = await self._networks.sandboxes.disconnect(container.id, reference)
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
        if self._runs.live(container).shim:
            try:
                self._runs.cgroup(container).apply(updating.resources(host))
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._runs.cgroup(container).apply(updating.resources(container.host_config))
                kind = InvalidParameter if error.errno in (errno.EINVAL, errno.ERANGE) else SystemFailure
                raise kind(f"{refused}{error.filename}: {error.strerror}") from error
        container.host_config = host
        self.records.save(container)
        self._events.publish(*container.event("update"))
        return warnings

    async def reshape(self, container: Container, body: Json) -> None:
        """Other ports or mounts (see `reshaping`), with a stop and a start if it runs.

        What cannot be started is put back as it was, and started again; the error is raised then.
        """
        async with self._reshaping:
            before = reshaping.Shape.of(container)
            shape = reshaping.reshaped(container, body, self.volumes.store, self.records)
            running = container.state.running
            await self._runs.end(container)
            shape.put_on(container)
            try:
                await self.volumes.fill(container, self.rootfs(container))
                self.records.save(container)
                if running:
                    await self._runs.start(container)
            except (EngineError, OSError):
                before.put_on(container)
                self.records.save(container)
                if running:
                    await self._runs.start(container)
                raise
        self._events.publish(*container.event("update"))
