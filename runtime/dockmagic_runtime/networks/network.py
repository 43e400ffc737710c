"""A network: what `docker network create` makes and `inspect` shows."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from dockmagic_runtime.networks.ipam import AddressPool, pool

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

_OPTION = "com.docker.network.bridge."
_MTU = "com.docker.network.driver.mtu"


@dataclass(eq=False)
class Network:
    """`interface` and `pool` belong to the driver `bridge`; the drivers `host` and `null` have neither.

    A network is `leaving` while its bridge is being removed: nobody may join it any more.
    """

    id: str
    name: str
    driver: str
    created: str
    interface: str = ""
    pool: AddressPool = None  # type: ignore[assignment]  # never asked for where there is none
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
    def resolves(self) -> bool:
        """Whether containers find each other by name: in user-defined networks only, as with Docker."""
        return self.bridged and not self.predefined

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
            "EnableIPv6": False,
            "IPAM": {
                "Driver": "default",
                "Options": self.ipam_options or (None if self.predefined else {}),
                "Config": [self.pool.document()] if self.bridged else None,
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
            "pool": self.pool.document() if self.bridged else None,
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
        config = document.pop("pool")
        return cls(
            id=row["id"],
            name=row["name"],
            driver=row["driver"],
            created=row["created"],
            interface=row["interface"],
            pool=pool([config], (), ()) if config else None,  # type: ignore[arg-type]
            **document,
        )
