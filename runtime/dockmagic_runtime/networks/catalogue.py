"""The records of all networks of one engine: found by name or id, kept in the database."""

from collections.abc import Iterable, Iterator

from dockmagic_runtime import identifiers, timestamps
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.networks import ipam
from dockmagic_runtime.networks.ipam import Subnet
from dockmagic_runtime.networks.network import PREDEFINED, SCHEMA, Network
from dockmagic_runtime.storage.database import Database


class Catalogue:
    """Memory and database always say the same."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._networks: dict[str, Network] = {}
        db.migrate("networks", *SCHEMA)

    def load(self) -> None:
        self._networks = {
            row["id"]: Network.from_row(row) for row in self._db.query("SELECT * FROM networks")
        }

    def predefine(self, interface: str, interfaces: Iterable[str], routed: list[Subnet]) -> None:
        """Have the three networks that every engine has; `interface` is the default bridge's.

        The default bridge gets another subnet if, while it was down, this host got a route there.
        """
        known = {each.name: each for each in self}
        default = known.get("bridge")
        down = default is not None and interface not in interfaces
        if default and down and any(default.pool.subnet.overlaps(other) for other in routed):
            self.forget(known.pop("bridge"))
        for name, driver in PREDEFINED.items():
            if name in known:
                continue
            new = Network(identifiers.new(), name, driver, timestamps.now())
            if new.bridged:
                new.interface = interface
                new.pools = ipam.pools([], self.subnets, routed, ipv6=False)
                new.options = {
                    "com.docker.network.bridge.default_bridge": "true",
                    "com.docker.network.bridge.enable_icc": "true",
                    "com.docker.network.bridge.enable_ip_masquerade": "true",
                    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
                    "com.docker.network.bridge.name": interface,
                    "com.docker.network.driver.mtu": "1500",
                }
            self.add(new)

    def __iter__(self) -> Iterator[Network]:
        return iter(sorted(self._networks.values(), key=lambda each: each.name))

    def __contains__(self, name: str) -> bool:
        return any(each.name == name for each in self._networks.values())

    def get(self, reference: str) -> Network:
        """By name, id, or a beginning of the id that is unique. Raises NotFound."""
        if reference in self._networks:
            return self._networks[reference]
        found = [each for each in self if each.name == reference]
        found = found or [each for each in self if reference and each.id.startswith(reference)]
        if len(found) > 1:
            raise InvalidParameter(
                f"network {reference} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
        if not found:
            raise NotFound(f"network {reference} not found")
        return found[0]

    @property
    def by_id(self) -> dict[str, Network]:
        return dict(self._networks)

    @property
    def bridged(self) -> list[Network]:
        return [each for each in self if each.bridged]

    @property
    def addressed(self) -> list[Network]:
        return [each for each in self if each.addressed]

    @property
    def subnets(self) -> list[Subnet]:
        return [pool.subnet for each in self for pool in each.pools]

    def add(self, new: Network) -> None:
        with self._db.transaction() as connection:
            connection.execute("INSERT INTO networks VALUES (?, ?, ?, ?, ?, ?)", new.row())
        self._networks[new.id] = new

    def forget(self, old: Network) -> None:
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM networks WHERE id = ?", (old.id,))
        self._networks.pop(old.id, None)
