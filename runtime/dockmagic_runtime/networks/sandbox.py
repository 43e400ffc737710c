"""A sandbox: all of one running container's networking, as the engine knows it.

It lives from `allocate` (before the container starts) to `release` (after it has ended), across restarts of
the engine, and is a row in the database before anything is made in the kernel.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockmagic_runtime.networks import ports
from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.network import Network
from dockmagic_runtime.networks.ruleset import Publication

if TYPE_CHECKING:
    from dockmagic_runtime.networks.resolver import Resolver

Json = dict[str, Any]

SCHEMA = (
    "CREATE TABLE sandboxes (container_id TEXT PRIMARY KEY, document TEXT NOT NULL)",
    """CREATE TABLE endpoints (
        id TEXT PRIMARY KEY,
        container_id TEXT NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
        network_id TEXT NOT NULL REFERENCES networks,
        address TEXT NOT NULL,
        mac TEXT NOT NULL,
        interface TEXT NOT NULL,
        settings TEXT NOT NULL
    )""",
    "ALTER TABLE endpoints ADD COLUMN address6 TEXT NOT NULL DEFAULT ''",
)


@dataclass
class Dns:
    """What `--dns`, `--dns-search` and `--dns-option` ask for; empty: as the host has it."""

    servers: list[str] = field(default_factory=list)
    search: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Sandbox:
    """`path` is where the namespace is mounted; the first endpoint that has a way out is the gateway's."""

    container_id: str
    name: str
    hostname: str
    path: Path
    dns: Dns = field(default_factory=Dns)
    exposed: list[str] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
    publications: list[Publication] = field(default_factory=list)
    resolver: Resolver | None = None
    resolv_conf: str = ""

    @property
    def netns_path(self) -> str:
        """Where the namespace is mounted; empty for the host's own, and for one that only processes hold."""
        return "" if self.on_host or self.alone else str(self.path)

    @property
    def namespaces(self) -> dict[str, str | None]:
        """As the OCI config has it: the path of a namespace, None for a new one, or nothing: the host's."""
        return {} if self.on_host else {"network": self.netns_path or None}

    @property
    def on_host(self) -> bool:
        return any(endpoint.network.driver == "host" for endpoint in self.endpoints)

    @property
    def alone(self) -> bool:
        """In `none`: nothing is set up in its namespace, so the start makes it, as it makes the others."""
        return any(endpoint.network.driver == "null" for endpoint in self.endpoints)

    @property
    def plugged(self) -> list[Endpoint]:
        """Those with an interface and addresses."""
        return [endpoint for endpoint in self.endpoints if endpoint.network.addressed]

    @property
    def resolving(self) -> list[Network]:
        """The networks whose containers this one finds by name."""
        return [endpoint.network for endpoint in self.endpoints if endpoint.network.resolves]

    @property
    def outward(self) -> Endpoint | None:
        """The endpoint with the default route and the published ports; highest `GwPriority` first."""
        return self._way_out(4)

    def _way_out(self, version: int) -> Endpoint | None:
        candidates = [each for each in self.plugged if any(g.version == version for g in each.gateways)]
        return max(candidates, key=lambda each: each.settings.get("GwPriority") or 0, default=None)

    def gateways(self, endpoint: Endpoint) -> list[Address]:
        """Those gateways of an endpoint that are the container's; each family has its own."""
        return [each for each in endpoint.gateways if self._way_out(each.version) is endpoint]

    @property
    def hosts(self) -> list[tuple[str, list[str]]]:
        """The container's own lines of /etc/hosts."""
        return [(str(each), [self.hostname]) for endpoint in self.plugged for each in endpoint.addresses]

    def free_interface(self) -> str:
        used = {endpoint.interface for endpoint in self.endpoints}
        return next(name for number in range(len(used) + 1) if (name := f"eth{number}") not in used)

    def settings(self) -> Json:
        """Docker's `NetworkSettings`; the fields outside `Networks` are those of the network `bridge`."""
        default = next((e for e in self.plugged if e.network.predefined), None)
        return {
            "Bridge": "",
            "SandboxID": self.container_id,
            "SandboxKey": self.netns_path,
            "Ports": ports.inspect([] if self.on_host else self.exposed, self.publications),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": default.id if default else "",
            "Gateway": default.gateway if default else "",
            "GlobalIPv6Address": str(default.address6 or "") if default else "",
            "GlobalIPv6PrefixLen": default.prefix6 if default else 0,
            "IPAddress": str(default.address) if default else "",
            "IPPrefixLen": default.prefix if default else 0,
            "IPv6Gateway": default.gateway6 if default else "",
            "MacAddress": default.mac if default else "",
            "Networks": {e.network.name: e.inspect(self.name, self.hostname) for e in self.endpoints},
        }

    def save(self, connection: sqlite3.Connection) -> None:
        document = {
            "name": self.name,
            "hostname": self.hostname,
            "dns": asdict(self.dns),
            "exposed": self.exposed,
            "publications": [
                (p.protocol, str(p.host_ip), p.host_port, str(p.container_ip), p.container_port)
                for p in self.publications
            ],
        }
        connection.execute(
            "INSERT INTO sandboxes VALUES (?, ?) ON CONFLICT DO UPDATE SET document = excluded.document",
            (self.container_id, json.dumps(document)),
        )
        connection.execute("DELETE FROM endpoints WHERE container_id = ?", (self.container_id,))
        connection.executemany(
            "INSERT INTO endpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    e.id,
                    self.container_id,
                    e.network.id,
                    str(e.address),
                    e.mac,
                    e.interface,
                    json.dumps(e.settings),
                    str(e.address6 or ""),
                )
                for e in self.endpoints
            ],
        )

    @classmethod
    def from_rows(
        cls, row: sqlite3.Row, endpoints: list[sqlite3.Row], networks: dict[str, Network], path: Path
    ) -> Sandbox:
        document = json.loads(row["document"])
        return cls(
            row["container_id"],
            document["name"],
            document["hostname"],
            path,
            Dns(**document["dns"]),
            document["exposed"],
            [
                Endpoint(
                    e["id"],
                    e["container_id"],
                    networks[e["network_id"]],
                    json.loads(e["settings"]),
                    IPv4Address(e["address"]),
                    IPv6Address(e["address6"]) if e["address6"] else None,
                    e["mac"],
                    e["interface"],
                )
                for e in endpoints
            ],
            [
                Publication(protocol, ip_address(host_ip), host_port, ip_address(ip), port)
                for protocol, host_ip, host_port, ip, port in document["publications"]
            ],
        )
