"""Which subnet a network gets, and which address in it a container gets.

Subnets come from Docker's default pools, skipping every one that this host already has a route to or that
another network holds. Within a subnet the lowest free address is given out, so that a course's "the first
container has 172.18.0.2" holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Any

from dockmagic_runtime.errors import Conflict, Forbidden, InvalidParameter, NotImplementedHere

DEFAULT_POOLS = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)


@dataclass
class AddressPool:
    """The addresses of one network; `span` is the part of the subnet that unasked-for addresses come from."""

    subnet: IPv4Network
    gateway: IPv4Address
    span: IPv4Network
    auxiliary: dict[str, IPv4Address] = field(default_factory=dict)
    taken: set[IPv4Address] = field(default_factory=set)

    def __post_init__(self) -> None:
        ends = {self.subnet.network_address, self.subnet.broadcast_address}
        self._reserved = {self.gateway, *self.auxiliary.values(), *ends}

    def allocate(self, wanted: IPv4Address | None = None) -> IPv4Address:
        """Take `wanted`, or the lowest free address. Raises InvalidParameter, Forbidden or Conflict."""
        if wanted is not None:
            if wanted not in self.subnet:
                raise InvalidParameter(
                    f"Invalid address {wanted}: It does not belong to any of this network's subnets"
                )
            if wanted in self.taken or wanted in self._reserved:
                raise Forbidden("Address already in use")
            address: IPv4Address | None = wanted
        else:
            address = next((a for a in self.span if a not in self.taken and a not in self._reserved), None)
            if address is None:
                raise Conflict("no available IPv4 addresses on this network's address pools")
        assert address is not None
        self.taken.add(address)
        return address

    def release(self, address: IPv4Address) -> None:
        self.taken.discard(address)

    def document(self) -> dict[str, Any]:
        """The `IPAM.Config` entry of Docker's JSON."""
        entry: dict[str, Any] = {"Subnet": str(self.subnet), "Gateway": str(self.gateway)}
        if self.span != self.subnet:
            entry["IPRange"] = str(self.span)
        if self.auxiliary:
            entry["AuxiliaryAddresses"] = {name: str(address) for name, address in self.auxiliary.items()}
        return entry


def pool(
    config: list[dict[str, Any]], held: Iterable[IPv4Network], routed: Iterable[IPv4Network]
) -> AddressPool:
    """The pool that an `IPAM.Config` list asks for, or, if it asks for none, a free default one.

    `held` are the subnets of the other networks, `routed` those this host has a route to.
    """
    if len(config) > 1:
        raise NotImplementedHere("a network has one IPv4 subnet here: several subnets are not supported")
    entry = config[0] if config else {}
    if not entry.get("Subnet"):
        if any(entry.get(key) for key in ("Gateway", "IPRange", "AuxiliaryAddresses")):
            raise InvalidParameter("invalid network config: a gateway or range needs a subnet")
        subnet = _free([*held, *routed])
        return AddressPool(subnet, subnet[1], subnet)
    subnet = _subnet(entry["Subnet"])
    if any(subnet.overlaps(other) for other in held):
        raise Forbidden("Pool overlaps with other one on this address space")
    span = _subnet(entry["IPRange"]) if entry.get("IPRange") else subnet
    if not span.subnet_of(subnet):
        raise InvalidParameter(f"invalid ip-range {span}: it is not within the subnet {subnet}")
    first = subnet[1] if subnet.num_addresses > 1 else subnet[0]
    gateway = address(entry["Gateway"]) if entry.get("Gateway") else first
    if gateway not in subnet:
        raise InvalidParameter(f"no matching subnet for gateway {gateway}")
    auxiliary = {name: address(text) for name, text in (entry.get("AuxiliaryAddresses") or {}).items()}
    for text in auxiliary.values():
        if text not in subnet:
            raise InvalidParameter(f"no matching subnet for aux-address {text}")
    return AddressPool(subnet, gateway, span, auxiliary)


def address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        if ":" in text:
            raise NotImplementedHere(f"IPv6 addresses are not supported: {text}") from None
        raise InvalidParameter(f"invalid IP address: {text}") from None


def _subnet(text: str) -> IPv4Network:
    """A subnet in CIDR notation; host bits are dropped, as Docker does."""
    if ":" in text:
        raise NotImplementedHere(f"IPv6 subnets are not supported: {text}")
    try:
        if "/" not in text:
            raise ValueError(text)
        return IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise InvalidParameter(f"invalid CIDR address: {text}") from None


def _free(taken: list[IPv4Network]) -> IPv4Network:
    for candidate in DEFAULT_POOLS:
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise Conflict(
        "could not find an available, non-overlapping IPv4 address pool "
        "among the defaults to assign to the network"
    )
