"""An endpoint: one container's place in one network."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from typing import Any, cast

from dockmagic_runtime import identifiers
from dockmagic_runtime.errors import EngineError, InvalidParameter, NotFound
from dockmagic_runtime.networks import ipam, mac
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.network import Network

Json = dict[str, Any]

NOWHERE = IPv4Address(0)


@dataclass(eq=False)
class Endpoint:
    """`settings` is what the client asked for (Docker's EndpointSettings); the addresses are the pools'.

    `interface` is the name inside the container, `host_interface` that of the veth's other end.
    """

    id: str
    container_id: str
    network: Network
    settings: Json = field(default_factory=dict)
    address: IPv4Address = NOWHERE
    address6: IPv6Address | None = None
    mac: str = ""
    interface: str = ""

    @classmethod
    def new(cls, container_id: str, network: Network, settings: Json | None, interface: str) -> Endpoint:
        """Checks what was asked for, and takes the addresses. Raises the network's or pool's refusal."""
        if network.leaving:
            raise NotFound(f"network {network.name} not found")
        endpoint = cls(identifiers.new(), container_id, network, dict(settings or {}))
        wanted = endpoint._wanted()
        if endpoint.settings.get("Aliases") and not network.resolves:
            raise InvalidParameter(
                "network-scoped alias is supported only for containers in user defined networks"
            )
        if network.addressed:
            asked = endpoint.settings.get("MacAddress") or ""
            try:
                octets = mac.packed(asked) if asked else b""
            except ValueError:
                raise InvalidParameter(f"invalid MAC address: {asked}") from None
            endpoint.interface = interface
            endpoint.take(*wanted)
            endpoint.mac = mac.written(octets) if octets else mac.of(endpoint.address)
        return endpoint

    def _wanted(self) -> tuple[Address | None, Address | None]:
        """The IPv4 and the IPv6 address that were asked for. Raises InvalidParameter."""
        config, network = self.settings.get("IPAMConfig") or {}, self.network
        texts = [config.get(name) or "" for name in ("IPv4Address", "IPv6Address")]
        if not any(texts):
            return None, None
        if network.predefined or not network.addressed:
            raise InvalidParameter("user specified IP address is supported on user defined networks only")
        if texts[1] and not network.pool6:
            raise InvalidParameter(
                "user specified IP address is supported only on networks with IPv6 enabled"
            )
        if not network.user_subnet:
            raise InvalidParameter(
                "user specified IP address is supported only when connecting to networks "
                "with user configured subnets"
            )
        four, six = (ipam.address(text) if text else None for text in texts)
        return four, six

    def take(self, wanted: Address | None = None, wanted6: Address | None = None) -> None:
        """Addresses from the network's pools: all, or none."""
        pool, pool6 = self.network.pool, self.network.pool6
        self.address = cast(IPv4Address, pool.allocate(wanted))
        if pool6:
            try:
                self.address6 = cast(IPv6Address, pool6.allocate(wanted6))
            except EngineError:
                pool.release(self.address)
                raise

    def take_again(self) -> None:
        """What a former engine gave it."""
        for pool, address in zip(self.network.pools, self.addresses, strict=True):
            pool.taken.add(address)

    def give_back(self) -> None:
        for pool, address in zip(self.network.pools, self.addresses, strict=True):
            pool.release(address)

    @property
    def addresses(self) -> list[Address]:
        """In the order of the network's pools."""
        if not self.network.addressed:
            return []
        return [self.address, self.address6] if self.address6 else [self.address]

    @property
    def gateways(self) -> list[Address]:
        """The ways out, one for each family; none out of an internal network."""
        return [] if self.network.internal else [pool.gateway for pool in self.network.pools]

    @property
    def interfaces(self) -> list[IPv4Interface | IPv6Interface]:
        """Its addresses with the length of the network's prefix."""
        return [
            ip_interface((address, pool.subnet.prefixlen))
            for pool, address in zip(self.network.pools, self.addresses, strict=True)
        ]

    @property
    def host_interface(self) -> str:
        """The other end of its pair, on a bridge."""
        return f"veth{self.id[:7]}"

    @property
    def prefix(self) -> int:
        return self.network.pool.subnet.prefixlen if self.network.addressed else 0

    @property
    def gateway(self) -> str:
        """Empty where there is no way out: an internal network, or none."""
        return str(self.gateways[0]) if self.gateways else ""

    @property
    def gateway6(self) -> str:
        return str(self.gateways[1]) if self.gateways[1:] else ""

    @property
    def prefix6(self) -> int:
        return self.network.pool6.subnet.prefixlen if self.network.pool6 else 0

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
            "IPAddress": str(self.address) if self.network.addressed else "",
            "IPPrefixLen": self.prefix,
            "IPv6Gateway": self.gateway6,
            "GlobalIPv6Address": str(self.address6 or ""),
            "GlobalIPv6PrefixLen": self.prefix6,
            "DNSNames": self.names(container, hostname) if self.network.resolves else None,
        }
