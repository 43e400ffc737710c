"""The networks of one engine: made, removed, and shown as the kernel has them.

What it takes to put a container into one is the affair of `Sandboxes`. Kernel work that may wait runs in
threads; records are changed on the event loop only.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

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
    topology,
    tracing,
)
from dockmagic_runtime.networks.catalogue import Catalogue
from dockmagic_runtime.networks.coexistence import Coexistence
from dockmagic_runtime.networks.drivers import DRIVERS
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.network import Network
from dockmagic_runtime.networks.ruleset import Ruleset
from dockmagic_runtime.networks.sandbox import Sandbox
from dockmagic_runtime.networks.sandboxes import Sandboxes
from dockmagic_runtime.networks.tracing import Hop, Tracer
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.threads import Pool

Json = dict[str, Any]


class Publisher(Protocol):
    """How an event is told: as `EventBus.publish`."""

    def __call__(self, kind: str, action: str, actor_id: str, attributes: dict[str, str], /) -> None: ...


class Networks:
    """All networks of one engine. `sandboxes` are those of the containers that run."""

    def __init__(self, db: Database, config: EngineConfig, publish_event: Publisher) -> None:
        self._config = config
        self._publish_event = publish_event
        self._directory = config.run_root / "netns"
        self._catalogue = Catalogue(db)
        self._threads = Pool(4, "networks")
        self.sandboxes = Sandboxes(db, self._directory, self._catalogue, self._threads, self._tell)
        self._started = False
        # Creating, removing and what follows in the kernel is one network at a time.
        self._changing = asyncio.Lock()
        self._tracing = asyncio.Lock()
        self._tracer = Tracer(config.nft_table)

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
        self._catalogue.load()
        self.sandboxes.drop_all_but(set(running))
        interfaces = [link.name for link in self._route.links()]
        self._catalogue.predefine(self._config.bridge, interfaces, self._route.subnets())
        self.sandboxes.load(self._route, self._ruleset)
        try:
            bridge.enable_forwarding()
            for each in self._catalogue.addressed:
                DRIVERS[each.driver].ensure(self._route, each)
            self._ruleset.install(self._catalogue.bridged, self.sandboxes.reserve_again())
            self._tracer.remove()  # of a trace that was killed
            self._coexistence.admit([each.interface for each in self._catalogue.bridged])
            await self._threads.run(self.sandboxes.sweep)
        except OSError as error:
            raise SystemFailure(f"networks: {error}") from error
        await self.sandboxes.serve_again()

    async def stop(self) -> None:
        """Let go. Running containers keep their networking; without any, nothing of ours stays behind."""
        if not self._started:  # the engine failed before it came to us
            self._threads.close()
            return
        self.sandboxes.let_go()
        if not any(self.sandboxes):
            self._ruleset.remove()
            self._coexistence.withdraw()
            for each in self._catalogue.addressed:
                await self._threads.run(DRIVERS[each.driver].remove, each)
            self._directory.rmdir()
        self._threads.close()
        self._ruleset.close()
        self._coexistence.close()
        self._route.close()

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
        for each in self.sandboxes:
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
            if self.sandboxes.members(wanted):
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
            each
            for each in self.list()
            if not each.predefined and not self.sandboxes.members(each) and matches(each)
        ]

    async def _dismantle_network(self, wanted: Network) -> None:
        """Bridge first, record last: a crash in between leaves a network that can be removed again."""
        if wanted.bridged:
            self._coexistence.withdraw([wanted.interface])
        await self._threads.run(DRIVERS[wanted.driver].remove, wanted)
        self._catalogue.forget(wanted)

    # as the kernel has them

    def published_ports(self) -> Sequence[Json]:
        """Every published port, read from the kernel's map."""
        owners = {
            address: each.container_id
            for each in self.sandboxes
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
        return await self._threads.run(self._read_topology)

    def _read_topology(self) -> Json:
        with Route() as route:
            return topology.read(self.list(), list(self.sandboxes), route)

    async def trace(self, source: str | None, target: str | Address, port: int) -> Sequence[Hop]:
        """The way of a packet from a container (its id; None: this host) to a TCP port of another.

        Raises Conflict: one of them does not run, or has no network.
        """
        begin = None if source is None else self.sandboxes.running(source)
        end = self.sandboxes.running(target) if isinstance(target, str) else target
        resolved = None
        if begin and isinstance(end, Sandbox):
            resolved = self.sandboxes.addresses(begin, end.name.lower())
        async with self._tracing:
            return await self._threads.run(self._tracer.trace, tracing.aim(begin, end, port, resolved))

    def _tell(self, action: str, about: Network, container_id: str | None = None) -> None:
        attributes = {"name": about.name, "type": about.driver}
        if container_id:
            attributes["container"] = container_id
        self._publish_event("network", action, about.id, attributes)
