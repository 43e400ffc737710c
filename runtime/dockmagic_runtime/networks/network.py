"""A network: what `docker network create` makes and `inspect` shows."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from dockmagic_runtime.networks import ipam
from dockmagic_runtime.networks.ipam import AddressPool

# The three every engine has. A name of these is the network's and its mode's at once.
PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}

SCHEMA = (
    """CREATE TABLE networks (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        driver TEXT NOT NULL,
        interface TEXT NOT NULL,
        created TEXT NOT NULL,
        document TEXT NOT NULL
    )""",
)

# The drivers whose containers have an interface and addresses of the network.
_ADDRESSED = ("bridge", "macvlan", "ipvlan")
_OPTION = "com.docker.network.bridge."
_MTU = "com.docker.network.driver.mtu"


@dataclass(eq=False)
class Network:
    """`pools` are its subnets, the IPv4 one first; the drivers `host` and `null` have none.

    `interface` is what the engine made for it on this host: a bridge, or what other drivers hang their
    interfaces on unless they were told of one (`parent`). A network is `leaving` while that is being removed:
    nobody may join it any more.
    """

    id: str
    name: str
    driver: str
    created: str
    interface: str = ""
    pools: list[AddressPool] = field(default_factory=list)
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ipam_options: dict[str, str] = field(default_factory=dict)
    user_subnet: bool = False
    leaving: bool = False

    @property
    def predefined(self) -> bool:
        return self.name in PREDEFINED

    @property
    def bridged(self) -> bool:
        return self.driver == "bridge"

    @property
    def addressed(self) -> bool:
        return self.driver in _ADDRESSED

    @property
    def pool(self) -> AddressPool:
        """That of IPv4."""
        return self.pools[0]

    @property
    def pool6(self) -> AddressPool | None:
        return next((each for each in self.pools if each.subnet.version == 6), None)

    @property
    def parent(self) -> str:
        """What the interfaces of macvlan and ipvlan hang on."""
        return self.options.get("parent") or self.interface

    @property
    def resolves(self) -> bool:
        """Whether containers find each other by name: in user-defined networks only, as with Docker."""
        return self.addressed and not self.predefined

    @property
    def icc(self) -> bool:
        return self.options.get(_OPTION + "enable_icc", "true") != "false"

    @property
    def masquerade(self) -> bool:
        return self.options.get(_OPTION + "enable_ip_masquerade", "true") != "false"

    @property
    def host_binding(self) -> str:
        """The host address for ports published without one."""
        return self.options.get(_OPTION + "host_binding_ipv4", "0.0.0.0")

    @property
    def mtu(self) -> int:
        return int(self.options.get(_MTU, "1500"))

    def inspect(self, containers: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
        """Docker's network JSON; `containers` is its `Containers` part."""
        return {
            "Name": self.name,
            "Id": self.id,
            "Created": self.created,
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv4": True,
            "EnableIPv6": self.pool6 is not None,
            "IPAM": {
                "Driver": "default",
                "Options": self.ipam_options or (None if self.predefined else {}),
                "Config": [each.document() for each in self.pools] or None,
            },
            "Internal": self.internal,
            "Attachable": self.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": containers or {},
            "Options": self.options,
            "Labels": self.labels,
        }

    def row(self) -> tuple[str, ...]:
        """The columns of `networks`, in order."""
        document = {
            "pools": [each.document() for each in self.pools],
            "internal": self.internal,
            "attachable": self.attachable,
            "options": self.options,
            "labels": self.labels,
            "ipam_options": self.ipam_options,
            "user_subnet": self.user_subnet,
        }
        return self.id, self.name, self.driver, self.interface, self.created, json.dumps(document)

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> Network:
        document = json.loads(row["document"])
        pools = ipam.restored(document.pop("pools"))
        return cls(
            id=row["id"],
            name=row["name"],
            driver=row["driver"],
            created=row["created"],
            interface=row["interface"],
            pools=pools,
            **document,
        )
