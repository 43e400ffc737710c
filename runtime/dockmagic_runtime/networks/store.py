"""The networks of one engine, and what it takes to put a container into them.

How a container gets its networking, and in which order it is undone: a record of it with its addresses in
the database; its ports of the host, reserved; the namespace, with an interface on each bridge; the ports in
the kernel's map; a resolver. Whatever the moment of a crash, the next `start` finds the record and sweeps.

Kernel work that may wait runs in threads; records are changed on the event loop only.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.errors import (
    Conflict,
    Forbidden,
    SystemFailure,
)
from dockmagic_runtime.kernel.netlink import Route
from dockmagic_runtime.networks import (
    bridge,
    creation,
    ipam,
    namespace,
    ports,
    sandbox,
    topology,
    tracing,
    wiring,
)
from dockmagic_runtime.networks.catalogue import Catalogue
from dockmagic_runtime.networks.coexistence import Coexistence
from dockmagic_runtime.networks.drivers import DRIVERS
from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.nameservice import NameService
from dockmagic_runtime.networks.network import Network
from dockmagic_runtime.networks.ports import Ports
from dockmagic_runtime.networks.ruleset import Ruleset
from dockmagic_runtime.networks.sandbox import Dns, Sandbox
from dockmagic_runtime.networks.tracing import Hop, Tracer
from dockmagic_runtime.storage.database import Database

_log = logging.getLogger(__name__)

Json = dict[str, Any]
T = TypeVar("T")
Bindings = dict[str, list[dict[str, str]] | None]


class Publisher(Protocol):
    """How an event is told: as `EventBus.publish`."""

    def __call__(self, kind: str, action: str, actor_id: str, attributes: dict[str, str], /) -> None: ...


class Networks:
    """All networks, and the sandbox of every running container."""

    def __init__(self, db: Database, config: EngineConfig, publish_event: Publisher) -> None:
        self._db = db
        self._config = config
        self._publish_event = publish_event
        self._directory = config.run_root / "netns"
        self._catalogue = Catalogue(db)
        self._sandboxes: dict[str, Sandbox] = {}
        self._name_service = NameService()
        self._ports = Ports()
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="networks")
        self._started = False
        # Creating, removing and what follows in the kernel is one network at a time.
        self._changing = asyncio.Lock()
        self._tracing = asyncio.Lock()
        self._tracer = Tracer(config.nft_table)
        db.migrate("sandboxes", *sandbox.SCHEMA)

    # the engine's life

    async def start(self, running: Iterable[str] = ()) -> None:
        """Restore what the database says: bridges, rules, ports and resolvers of the `running` containers
        (ids), and sweep everything else that a crash may have left."""
        try:
            self._route = Route()
            self._ruleset = Ruleset(self._config.nft_table)
            self._coexistence = Coexistence(self._config.nft_table)
        except OSError as error:
            raise SystemFailure(f"networks: {error}") from error
        self._started = True
        self._directory.mkdir(parents=True, exist_ok=True)
        self._load(set(running))
        try:
            bridge.enable_forwarding()
            for each in self._catalogue.addressed:
                DRIVERS[each.driver].ensure(self._route, each)
            self._publish_all()
            self._coexistence.admit([each.interface for each in self._catalogue.bridged])
            await self._in_thread(self._sweep)
        except OSError as error:
            raise SystemFailure(f"networks: {error}") from error
        for running_one in self._sandboxes.values():
            await self._restore_resolver(running_one)

    async def stop(self) -> None:
        """Let go. Running containers keep their networking; without any, nothing of ours stays behind."""
        if not self._started:  # the engine failed before it came to us
            self._threads.shutdown()
            return
        for running in self._sandboxes.values():
            if running.resolver:
                running.resolver.close()
        self._ports.close()
        if not self._sandboxes:
            self._ruleset.remove()
            self._coexistence.withdraw()
            for each in self._catalogue.addressed:
                await self._in_thread(DRIVERS[each.driver].remove, each)
            self._directory.rmdir()
        self._threads.shutdown()
        self._ruleset.close()
        self._coexistence.close()
        self._route.close()

    def _load(self, running: set[str]) -> None:
        """Records into memory; those of containers that run no more are dropped."""
        self._catalogue.load()
        interfaces = [link.name for link in self._route.links()]
        rows = self._db.query("SELECT * FROM sandboxes")
        gone = [(row["container_id"],) for row in rows if row["container_id"] not in running]
        with self._db.transaction() as connection:
            connection.executemany("DELETE FROM sandboxes WHERE container_id = ?", gone)
        self._catalogue.predefine(self._config.bridge, interfaces, self._route.subnets())
        for row in rows:
            if row["container_id"] not in running:
                continue
            endpoints = self._db.query(
                "SELECT * FROM endpoints WHERE container_id = ? ORDER BY rowid", row["container_id"]
            )
            each = Sandbox.from_rows(row, endpoints, self._catalogue.by_id, self._path(row["container_id"]))
            self._sandboxes[each.container_id] = each
            for endpoint in each.plugged:
                endpoint.take_again()
                self._name_service.names.add(endpoint, each.name, each.hostname)

    def _publish_all(self) -> None:
        """The whole table anew, with the ports that running containers had and nobody took meanwhile."""
        for each in self._sandboxes.values():
            if lost := self._ports.restore(each.publications):
                _log.error("%s: ports lost to another process: %s", each.name, ", ".join(p.key for p in lost))
                each.publications = [p for p in each.publications if p not in lost]
        publications = [p for each in self._sandboxes.values() for p in each.publications]
        self._ruleset.install(self._catalogue.bridged, publications)
        self._tracer.remove()  # of a trace that was killed

    def _sweep(self) -> None:
        """Namespaces without a sandbox. (A bridge always has a record: written first, removed last.)"""
        kept = {each.path for each in self._sandboxes.values()}
        for path in self._directory.iterdir():
            if path not in kept:
                namespace.remove(path)

    async def _restore_resolver(self, each: Sandbox) -> None:
        """The name server of a running container died with the former engine; give it a new one."""
        self._name_service.describe(each)
        if not each.resolving or not each.path.exists():
            return
        await self._name_service.serve(each, await self._in_thread(wiring.sockets, each))

    # networks

    def get(self, reference: str) -> Network:
        """By name, id, or a beginning of the id that is unique. Raises NotFound."""
        return self._catalogue.get(reference)

    def list(self) -> Sequence[Network]:
        """All networks, by name."""
        return tuple(self._catalogue)

    def inspect(self, wanted: Network) -> Json:
        """Docker's JSON of a network, with the containers that are in it now."""
        containers = {}
        for each in self._sandboxes.values():
            for endpoint in each.endpoints:
                if endpoint.network is wanted:
                    addresses = [str(interface) for interface in endpoint.interfaces] + ["", ""]
                    containers[each.container_id] = {
                        "Name": each.name,
                        "EndpointID": endpoint.id,
                        "MacAddress": endpoint.mac,
                        "IPv4Address": addresses[0],
                        "IPv6Address": addresses[1],
                    }
        return wanted.inspect(containers)

    async def create(
        self,
        name: str,
        driver: str = "bridge",
        *,
        ipam_config: Sequence[Json] = (),
        ipam_driver: str = "default",
        ipam_options: dict[str, str] | None = None,
        internal: bool = False,
        attachable: bool = False,
        ipv6: bool = False,
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Network:
        """Make a user-defined network; `ipam_config` is the list of Docker's JSON.

        Raises Conflict for a name in use, Forbidden for one of the predefined and for a subnet that overlaps
        that of another network.
        """
        creation.check(name, driver, ipam_driver)
        async with self._changing:
            if name in self._catalogue:
                raise Conflict(f"network with name {name} already exists")
            held, routed = self._catalogue.subnets, self._route.subnets()
            new = creation.new_network(
                name,
                driver,
                ipam.pools(ipam_config, held, routed, ipv6=ipv6, identity=self._config.nft_table),
                ipam_config=ipam_config,
                ipam_options=ipam_options,
                internal=internal,
                attachable=attachable,
                options=options,
                labels=labels,
            )
            creation.check_parent(new, self.list())
            self._catalogue.add(new)
            try:
                DRIVERS[driver].ensure(self._route, new)
                if new.bridged:
                    self._ruleset.add_network(new)
                    self._coexistence.admit([new.interface])
            except OSError as error:
                await self._dismantle_network(new)
                raise SystemFailure(f"Failed to create {driver} {new.interface}: {error}") from error
        self._tell("create", new)
        return new

    async def remove(self, wanted: Network) -> None:
        """Raises Forbidden for a predefined network and for one with containers in it."""
        if wanted.predefined:
            raise Forbidden(f"{wanted.name} is a pre-defined network and cannot be removed")
        async with self._changing:
            if self._members(wanted):
                raise Forbidden(
                    f"error while removing network: network {wanted.name} id {wanted.id} has active endpoints"
                )
            self.get(wanted.id)
            wanted.leaving = True
            self._ruleset.remove_network(wanted)
            await self._dismantle_network(wanted)
        self._tell("destroy", wanted)

    async def prune(self, matches: Callable[[Network], bool] = lambda each: True) -> Sequence[str]:
        """Remove every user-defined network without running containers that `matches`; their names."""
        doomed = self.unused(matches)
        for each in doomed:
            await self.remove(each)
        return [each.name for each in doomed]

    def unused(self, matches: Callable[[Network], bool]) -> Sequence[Network]:
        return [
            each for each in self.list() if not each.predefined and not self._members(each) and matches(each)
        ]

    async def _dismantle_network(self, wanted: Network) -> None:
        """Bridge first, record last: a crash in between leaves a network that can be removed again."""
        if wanted.bridged:
            self._coexistence.withdraw([wanted.interface])
        await self._in_thread(DRIVERS[wanted.driver].remove, wanted)
        self._catalogue.forget(wanted)

    def _members(self, wanted: Network) -> Sequence[Endpoint]:
        return [e for each in self._sandboxes.values() for e in each.endpoints if e.network is wanted]

    # containers

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
        if container_id in self._sandboxes:
            await self.release(container_id)
        new = Sandbox(container_id, name, hostname, self._path(container_id), dns_asked)
        new.exposed = sorted({*exposed, *(bindings or {})})
        self._sandboxes[container_id] = new
        try:
            for reference, settings in endpoints.items():
                joined = self.get(reference)
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

    async def release(self, container_id: str) -> None:
        """Give everything back; no error if there is nothing. The interfaces go in the kernel's own time."""
        old = self._sandboxes.pop(container_id, None)
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
            await self._in_thread(namespace.remove, old.path)
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM sandboxes WHERE container_id = ?", (container_id,))
        for endpoint in old.endpoints:
            self._tell("disconnect", endpoint.network, container_id)

    @property
    def sandboxes(self) -> Sequence[Sandbox]:
        return tuple(self._sandboxes.values())

    def sandbox(self, container_id: str) -> Sandbox | None:
        """The sandbox of a running container."""
        return self._sandboxes.get(container_id)

    async def connect(self, container_id: str, reference: str, settings: Json | None = None) -> Sandbox:
        """Put a running container into one more network. Raises Forbidden, NotFound."""
        joined, each = self.get(reference), self._running(container_id)
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
            sockets = await self._in_thread(wiring.extend, each, new, gateways, serving=serving)
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
        left, each = self.get(reference), self._running(container_id)
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
            await self._in_thread(namespace.unplug, each.path, old)
            old.give_back()
        others = [gateway for other in each.plugged for gateway in each.gateways(other)]
        if lost:
            gateways = [gateway for gateway in others if gateway.version in lost]
            await self._in_thread(namespace.route_out, each.path, gateways)
        self._save(each)
        self._name_service.describe(each)
        self._tell("disconnect", left, container_id)
        return each

    def rename(self, container_id: str, name: str) -> None:
        """A container's new name is what the resolvers answer to from now on."""
        if each := self._sandboxes.get(container_id):
            for endpoint in each.plugged:
                self._name_service.names.remove(endpoint)
                self._name_service.names.add(endpoint, name, each.hostname)
            each.name = name
            self._save(each)

    def published_ports(self) -> Sequence[Json]:
        """Every published port, read from the kernel's map."""
        owners = {
            address: each.container_id
            for each in self._sandboxes.values()
            for endpoint in each.plugged
            for address in endpoint.addresses
        }
        return [
            {
                "protocol": publication.protocol,
                "host_ip": str(publication.host_ip),
                "host_port": publication.host_port,
                "container_ip": str(publication.container_ip),
                "container_port": publication.container_port,
                "container_id": owners.get(publication.container_ip, ""),
            }
            for publication in sorted(self._ruleset.published(), key=lambda p: (p.host_port, p.protocol))
        ]

    async def topology(self) -> Json:
        """What hangs on what; see `topology.read`."""
        return await self._in_thread(self._read_topology)

    def _read_topology(self) -> Json:
        with Route() as route:
            return topology.read(self.list(), list(self._sandboxes.values()), route)

    async def trace(self, source: str | None, target: str | Address, port: int) -> Sequence[Hop]:
        """The way of a packet from a container (its id; None: this host) to a TCP port of another.

        Raises Conflict: one of them does not run, or has no network.
        """
        begin = None if source is None else self._running(source)
        end = self._running(target) if isinstance(target, str) else target
        resolved = None
        if begin and isinstance(end, Sandbox):
            resolved = self._name_service.addresses(begin, end.name.lower())
        async with self._tracing:
            return await self._in_thread(self._tracer.trace, tracing.aim(begin, end, port, resolved))

    async def _connect(self, new: Sandbox) -> None:
        """The kernel's part of a sandbox: namespace, interfaces, published ports, resolver."""
        sockets = await self._in_thread(wiring.build, new)
        if new.publications:
            self._ruleset.publish(new.publications)
        for endpoint in new.plugged:
            self._name_service.names.add(endpoint, new.name, new.hostname)
        if sockets:
            await self._name_service.serve(new, sockets)

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

    def _unpublish(self, old: Sandbox) -> None:
        """Out of the map, then free: never may another process get a port that still leads to a container."""
        self._ruleset.unpublish(old.publications)
        self._ports.release(old.publications)
        old.publications = []

    def _running(self, container_id: str) -> Sandbox:
        if container_id not in self._sandboxes:
            raise Conflict(f"container {container_id} is not running")
        return self._sandboxes[container_id]

    def _save(self, each: Sandbox) -> None:
        with self._db.transaction() as connection:
            each.save(connection)

    def _path(self, container_id: str) -> Path:
        return self._directory / container_id[:16]

    def _tell(self, action: str, about: Network, container_id: str | None = None) -> None:
        attributes = {"name": about.name, "type": about.driver}
        if container_id:
            attributes["container"] = container_id
        self._publish_event("network", action, about.id, attributes)

    async def _in_thread(self, function: Callable[..., T], *arguments: object, **named: object) -> T:
        """Run to the end even if the caller is cancelled meanwhile: only what is complete can be undone."""
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, partial(function, *arguments, **named)
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
