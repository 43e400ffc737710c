"""The sandboxes of one engine: what it takes to put a container into networks, and to take it out.

In which order, which is undone backwards: a record of it with its addresses in the database; its ports of the
host, reserved; the namespace, with an interface on each bridge; the ports in the kernel's map; a resolver.
Whatever the moment of a crash, the next engine finds the record and sweeps.

Kernel work that may wait runs in threads; records are changed on the event loop only.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import Conflict, Forbidden, SystemFailure
from dockmagic_runtime.kernel.netlink import Route
from dockmagic_runtime.networks import namespace, ports, sandbox, wiring
from dockmagic_runtime.networks.catalogue import Catalogue
from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.nameservice import NameService
from dockmagic_runtime.networks.network import Network
from dockmagic_runtime.networks.ports import Ports
from dockmagic_runtime.networks.ruleset import Publication, Ruleset
from dockmagic_runtime.networks.sandbox import Dns, Sandbox
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.threads import Pool

_log = logging.getLogger(__name__)

Json = dict[str, Any]
Bindings = dict[str, list[dict[str, str]] | None]
Tell = Callable[[str, Network, str], None]
"""Publish an event (`connect`, `disconnect`) of a network with a container's id."""


class Sandboxes:
    """The sandbox of every running container."""

    def __init__(
        self, db: Database, directory: Path, catalogue: Catalogue, threads: Pool, tell: Tell
    ) -> None:
        self._db = db
        self._directory = directory
        self._catalogue = catalogue
        self._threads = threads
        self._tell = tell
        self._all: dict[str, Sandbox] = {}
        self._name_service = NameService()
        self._ports = Ports()
        db.migrate("sandboxes", *sandbox.SCHEMA)

    # the engine's life

    def drop_all_but(self, running: set[str]) -> None:
        """The records of containers that run no more."""
        rows = self._db.query("SELECT container_id FROM sandboxes")
        gone = [(row["container_id"],) for row in rows if row["container_id"] not in running]
        with self._db.transaction() as connection:
            connection.executemany("DELETE FROM sandboxes WHERE container_id = ?", gone)

    def load(self, route: Route, ruleset: Ruleset) -> None:
        """Records into memory. `route` and `ruleset` are for all that follows."""
        self._route, self._ruleset = route, ruleset
        for row in self._db.query("SELECT * FROM sandboxes"):
            endpoints = self._db.query(
                "SELECT * FROM endpoints WHERE container_id = ? ORDER BY rowid", row["container_id"]
            )
            each = Sandbox.from_rows(row, endpoints, self._catalogue.by_id, self._path(row["container_id"]))
            self._all[each.container_id] = each
            for endpoint in each.plugged:
                endpoint.take_again()
                self._name_service.names.add(endpoint, each.name, each.hostname)

    def reserve_again(self) -> list[Publication]:
        """The ports that running containers had and nobody took meanwhile."""
        for each in self._all.values():
            if lost := self._ports.restore(each.publications):
                _log.error("%s: ports lost to another process: %s", each.name, ", ".join(p.key for p in lost))
                each.publications = [p for p in each.publications if p not in lost]
        return [p for each in self._all.values() for p in each.publications]

    def sweep(self) -> None:
        """Namespaces without a sandbox. (A bridge always has a record: written first, removed last.)"""
        kept = {each.path for each in self._all.values()}
        for path in self._directory.iterdir():
            if path not in kept:
                namespace.remove(path)

    async def serve_again(self) -> None:
        """The name servers of running containers died with the former engine; give them new ones."""
        for each in self._all.values():
            self._name_service.describe(each)
            if each.resolving and each.path.exists():
                await self._name_service.serve(each, await self._threads.run(wiring.sockets, each))

    def let_go(self) -> None:
        """The containers keep their networking, but for the resolvers."""
        for each in self._all.values():
            if each.resolver:
                each.resolver.close()
        self._ports.close()

    # looking up

    def __iter__(self) -> Iterator[Sandbox]:
        return iter(tuple(self._all.values()))

    def find(self, container_id: str) -> Sandbox | None:
        """The sandbox of a running container."""
        return self._all.get(container_id)

    def running(self, container_id: str) -> Sandbox:
        """Raises Conflict if the container does not run."""
        if container_id not in self._all:
            raise Conflict(f"container {container_id} is not running")
        return self._all[container_id]

    def members(self, wanted: Network) -> Sequence[Endpoint]:
        return [e for each in self._all.values() for e in each.endpoints if e.network is wanted]

    def addresses(self, asking: Sandbox, name: str) -> Sequence[Address] | None:
        """What a container finds under a name."""
        return self._name_service.addresses(asking, name)

    # changing

    async def allocate(
        self,
        container_id: str,
        name: str,
        hostname: str,
        endpoints: dict[str, Json | None],
        bindings: Bindings | None = None,
        *,
        dns: Sequence[str] | None = None,
        dns_search: Sequence[str] | None = None,
        dns_options: Sequence[str] | None = None,
        exposed: Sequence[str] = (),
        publish_all: bool = False,
    ) -> Sandbox:
        """All the networking of a container about to start; on failure, or when cancelled, nothing is left.

        `endpoints` maps networks (by name or id) to Docker's EndpointSettings, `bindings` is `PortBindings`.
        """
        dns_asked = Dns(list(dns or ()), list(dns_search or ()), list(dns_options or ()))
        if container_id in self._all:
            await self.release(container_id)
        new = Sandbox(container_id, name, hostname, self._path(container_id), dns_asked)
        new.exposed = sorted({*exposed, *(bindings or {})})
        self._all[container_id] = new
        try:
            for reference, settings in endpoints.items():
                joined = self._catalogue.get(reference)
                new.endpoints.append(Endpoint.new(container_id, joined, settings, new.free_interface()))
            self._reserve(new, bindings, publish_all=publish_all)
            self._save(new)
            if new.netns_path:
                await self._connect(new)
            self._name_service.describe(new)
        except OSError as error:
            await self.release(container_id)
            raise SystemFailure(f"failed to create the network of container {name}: {error}") from error
        except BaseException:
            await self.release(container_id)
            raise
        for endpoint in new.endpoints:
            self._tell("connect", endpoint.network, container_id)
        return new

    def _reserve(self, new: Sandbox, bindings: Bindings | None, *, publish_all: bool) -> None:
        outward = new.outward
        if outward is None or not outward.network.bridged:
            return
        asked = ports.wishes(
            bindings, new.exposed, publish_all=publish_all, default_ip=outward.network.host_binding
        )
        try:
            new.publications = self._ports.reserve(asked, outward.addresses)
        except Conflict as error:
            raise Conflict(
                f"driver failed programming external connectivity on endpoint {new.name} "
                f"({outward.id}): {error}"
            ) from error

    async def _connect(self, new: Sandbox) -> None:
        """The kernel's part of a sandbox: namespace, interfaces, published ports, resolver."""
        sockets = await self._threads.run(wiring.build, new)
        if new.publications:
            self._ruleset.publish(new.publications)
        for endpoint in new.plugged:
            self._name_service.names.add(endpoint, new.name, new.hostname)
        if sockets:
            await self._name_service.serve(new, sockets)

    async def release(self, container_id: str) -> None:
        """Give everything back; no error if there is nothing. The interfaces go in the kernel's own time."""
        old = self._all.pop(container_id, None)
        if old is None:
            return
        if old.resolver:
            old.resolver.close()
        self._unpublish(old)
        for endpoint in old.plugged:
            if endpoint.network.bridged:
                namespace.silence(self._route, endpoint)
            self._name_service.names.remove(endpoint)
            endpoint.give_back()
        if old.netns_path:
            # Not in the loop: the kernel lets go of a mount only after a grace period.
            await self._threads.run(namespace.remove, old.path)
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM sandboxes WHERE container_id = ?", (container_id,))
        for endpoint in old.endpoints:
            self._tell("disconnect", endpoint.network, container_id)

    def _unpublish(self, old: Sandbox) -> None:
        """Out of the map, then free: never may another process get a port that still leads to a container."""
        self._ruleset.unpublish(old.publications)
        self._ports.release(old.publications)
        old.publications = []

    async def connect(self, container_id: str, reference: str, settings: Json | None = None) -> Sandbox:
        """Put a running container into one more network. Raises Forbidden, NotFound."""
        joined, each = self._catalogue.get(reference), self.running(container_id)
        if "host" in (joined.driver, *(endpoint.network.driver for endpoint in each.endpoints)):
            raise Forbidden("container cannot be disconnected from host network or connected to host network")
        if not joined.addressed or any(endpoint.network.driver == "null" for endpoint in each.endpoints):
            raise Forbidden(
                "container cannot be connected to multiple networks "
                "with one of the networks in private (none) mode"
            )
        if any(endpoint.network is joined for endpoint in each.endpoints):
            raise Forbidden(f"endpoint with name {each.name} already exists in network {joined.name}")
        new = Endpoint.new(container_id, joined, settings, each.free_interface())
        each.endpoints.append(new)
        try:
            self._save(each)
            ways_out = [gateway for other in each.plugged[:-1] for gateway in other.gateways]
            had = {gateway.version for gateway in ways_out}
            gateways = [gateway for gateway in new.gateways if gateway.version not in had]
            serving = joined.resolves and not each.resolver
            sockets = await self._threads.run(wiring.extend, each, new, gateways, serving=serving)
            if sockets:
                await self._name_service.serve(each, sockets)
        except BaseException as error:
            each.endpoints.remove(new)
            new.give_back()
            self._save(each)
            if isinstance(error, OSError):
                raise SystemFailure(f"failed to connect {each.name} to {joined.name}: {error}") from error
            raise
        self._name_service.names.add(new, each.name, each.hostname)
        self._name_service.describe(each)
        self._tell("connect", joined, container_id)
        return each

    async def disconnect(self, container_id: str, reference: str) -> Sandbox:
        """Take a running container out of a network. Raises Forbidden, NotFound."""
        left, each = self._catalogue.get(reference), self.running(container_id)
        if left.driver == "host":
            raise Forbidden("container cannot be disconnected from host network or connected to host network")
        old = next((endpoint for endpoint in each.endpoints if endpoint.network is left), None)
        if old is None:
            raise Forbidden(f"container {container_id} is not connected to network {left.name}")
        was_outward, lost = each.outward is old, {gateway.version for gateway in each.gateways(old)}
        each.endpoints.remove(old)
        self._name_service.names.remove(old)
        if was_outward:
            self._unpublish(each)
        if left.addressed:
            await self._threads.run(namespace.unplug, each.path, old)
            old.give_back()
        others = [gateway for other in each.plugged for gateway in each.gateways(other)]
        if lost:
            gateways = [gateway for gateway in others if gateway.version in lost]
            await self._threads.run(namespace.route_out, each.path, gateways)
        self._save(each)
        self._name_service.describe(each)
        self._tell("disconnect", left, container_id)
        return each

    def rename(self, container_id: str, name: str) -> None:
        """A container's new name is what the resolvers answer to from now on."""
        if each := self._all.get(container_id):
            for endpoint in each.plugged:
                self._name_service.names.remove(endpoint)
                self._name_service.names.add(endpoint, name, each.hostname)
            each.name = name
            self._save(each)

    def _save(self, each: Sandbox) -> None:
        with self._db.transaction() as connection:
            each.save(connection)

    def _path(self, container_id: str) -> Path:
        return self._directory / container_id[:16]
