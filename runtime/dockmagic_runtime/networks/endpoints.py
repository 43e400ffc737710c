"""An endpoint: one container's place in one network."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.networks import bridge, ipam
from dockmagic_runtime.networks.network import Network

Json = dict[str, Any]

NOWHERE = IPv4Address(0)


@dataclass(eq=False)
class Endpoint:
    """`settings` is what the client asked for (Docker's EndpointSettings); `address` is taken from the pool.

    `interface` is the name inside the container, `host_interface` that of the veth's other end.
    """

    id: str
    container_id: str
    network: Network
    settings: Json = field(default_factory=dict)
    address: IPv4Address = NOWHERE
    mac: str = ""
    interface: str = ""

    @classmethod
    def new(cls, container_id: str, network: Network, settings: Json | None, interface: str) -> Endpoint:
        """Checks what was asked for, and takes the address. Raises the network's or pool's refusal."""
        if network.leaving:
            raise NotFound(f"network {network.name} not found")
        endpoint = cls(secrets.token_hex(32), container_id, network, dict(settings or {}))
        wanted = (endpoint.settings.get("IPAMConfig") or {}).get("IPv4Address")
        if (endpoint.settings.get("IPAMConfig") or {}).get("IPv6Address"):
            raise InvalidParameter(
                "user specified IP address is supported only on networks with IPv6 enabled"
            )
        if wanted and (network.predefined or not network.bridged):
            raise InvalidParameter("user specified IP address is supported on user defined networks only")
        if wanted and not network.user_subnet:
            raise InvalidParameter(
                "user specified IP address is supported only when connecting to networks "
                "with user configured subnets"
            )
        if endpoint.settings.get("Aliases") and not network.resolves:
            raise InvalidParameter(
                "network-scoped alias is supported only for containers in user defined networks"
            )
        if network.bridged:
            mac = endpoint.settings.get("MacAddress") or ""
            try:
                octets = bridge.packed(mac) if mac else b""
            except ValueError:
                raise InvalidParameter(f"invalid MAC address: {mac}") from None
            endpoint.interface = interface
            endpoint.address = network.pool.allocate(ipam.address(wanted) if wanted else None)
            endpoint.mac = ":".join(f"{byte:02x}" for byte in octets) or bridge.mac_of(endpoint.address)
        return endpoint

    @property
    def host_interface(self) -> str:
        return f"veth{self.id[:7]}"

    @property
    def prefix(self) -> int:
        return self.network.pool.subnet.prefixlen if self.network.bridged else 0

    @property
    def gateway(self) -> str:
        """Empty where there is no way out: an internal network, or none."""
        return str(self.network.pool.gateway) if self.network.bridged and not self.network.internal else ""

    def names(self, container: str, hostname: str) -> list[str]:
        """Every name that the container answers to in this network."""
        aliases = self.settings.get("Aliases") or []
        return list(dict.fromkeys([container, *aliases, self.container_id[:12], hostname]))

    def linked(self, name: str) -> str | None:
        """The container that this one calls `name` (`--link CONTAINER:NAME`), in lower case."""
        for link in self.settings.get("Links") or ():
            child, _, alias = link.partition(":")
            if (alias or child).lower() == name:
                return str(child).lower()
        return None

    def inspect(self, container: str, hostname: str) -> Json:
        """One entry of `NetworkSettings.Networks`."""
        bridged, resolves = self.network.bridged, self.network.resolves
        return {
            "IPAMConfig": self.settings.get("IPAMConfig"),
            "Links": self.settings.get("Links"),
            "Aliases": self.settings.get("Aliases"),
            "MacAddress": self.mac,
            "DriverOpts": self.settings.get("DriverOpts"),
            "GwPriority": self.settings.get("GwPriority") or 0,
            "NetworkID": self.network.id,
            "EndpointID": self.id,
            "Gateway": self.gateway,
            "IPAddress": str(self.address) if bridged else "",
            "IPPrefixLen": self.prefix,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": self.names(container, hostname) if resolves else None,
        }
