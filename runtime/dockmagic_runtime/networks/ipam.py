"""Which subnets a network gets, and which addresses in them a container gets.

IPv4 subnets come from Docker's default pools, IPv6 ones from a unique local prefix of the engine's own
(RFC 4193), skipping every one that this host already has a route to or that another network holds. Within a
subnet the lowest free address is given out, so that a course's "the first container has 172.18.0.2" holds.

The sentences of refusals are those of moby's `api/types/network/ipam.go`.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from dockmagic_runtime.errors import Conflict, Forbidden, InvalidParameter

Json = dict[str, Any]
Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network

DEFAULT_POOLS = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)


@dataclass
class AddressPool:
    """The addresses of one network; `span` is the part of the subnet that unasked-for addresses come from."""

    subnet: Subnet
    gateway: Address
    span: Subnet
    auxiliary: dict[str, Address] = field(default_factory=dict)
    taken: set[Address] = field(default_factory=set)

    def __post_init__(self) -> None:
        # In IPv6 the last address is one like any other.
        ends = {self.subnet.network_address}
        if self.subnet.version == 4:
            ends.add(self.subnet.broadcast_address)
        self._reserved = {self.gateway, *self.auxiliary.values(), *ends}

    def allocate(self, wanted: Address | None = None) -> Address:
        """Take `wanted`, or the lowest free address. Raises InvalidParameter, Forbidden or Conflict."""
        if wanted is not None:
            if wanted not in self.subnet:
                raise InvalidParameter(
                    f"Invalid address {wanted}: It does not belong to any of this network's subnets"
                )
            if wanted in self.taken or wanted in self._reserved:
                raise Forbidden("Address already in use")
            address: Address | None = wanted
        else:
            address = next((a for a in self.span if a not in self.taken and a not in self._reserved), None)
            if address is None:
                raise Conflict(
                    f"no available IPv{self.subnet.version} addresses on this network's address pools"
                )
        assert address is not None
        self.taken.add(address)
        return address

    def release(self, address: Address) -> None:
        self.taken.discard(address)

    def document(self) -> Json:
        """The `IPAM.Config` entry of Docker's JSON."""
        entry: Json = {"Subnet": str(self.subnet), "Gateway": str(self.gateway)}
        if self.span != self.subnet:
            entry["IPRange"] = str(self.span)
        if self.auxiliary:
            entry["AuxiliaryAddresses"] = {name: str(address) for name, address in self.auxiliary.items()}
        return entry


def pools(
    config: Iterable[Json],
    held: Iterable[Subnet],
    routed: Iterable[Subnet],
    *,
    ipv6: bool,
    identity: str = "",
) -> list[AddressPool]:
    """One pool for each family: as an `IPAM.Config` list asks, or, where it does not, a free default one.

    `held` are the subnets of the other networks, `routed` those this host has a route to, and IPv6
    subnets are cut from the prefix of `identity`. Raises InvalidParameter, Forbidden or Conflict.
    """
    asked: dict[int, Json] = {}
    for entry in config:
        if version := _version(entry):
            if version in asked:
                raise Forbidden("bridge driver doesn't support multiple subnets")
            asked[version] = entry
    held = [*held]
    return [
        _asked(asked[version], held) if version in asked else _free([*held, *routed], version, identity)
        for version in ((4, 6) if ipv6 else (4,))
    ]


def restored(documents: Iterable[Json]) -> list[AddressPool]:
    """From what `AddressPool.document` gave."""
    return [_asked(document, []) for document in documents]


def _local_prefix(identity: str) -> IPv6Network:
    """fd and forty bits that are this engine's own."""
    return IPv6Network((b"\xfd" + hashlib.sha256(identity.encode()).digest()[:5] + bytes(10), 48))


def _version(entry: Json) -> int:
    """4, 6, or 0 for an entry that names no subnet. Raises InvalidParameter."""
    if not entry.get("Subnet"):
        if any(entry.get(key) for key in ("Gateway", "IPRange", "AuxiliaryAddresses")):
            raise InvalidParameter("invalid network config:\ninvalid subnet : invalid CIDR block notation")
        return 0
    return _network("subnet", entry["Subnet"]).version


def _asked(entry: Json, held: Iterable[Subnet]) -> AddressPool:
    subnet = _network("subnet", entry["Subnet"])
    if any(subnet.overlaps(other) for other in held):
        raise Forbidden("Pool overlaps with other one on this address space")
    span = _network("ip-range", entry["IPRange"]) if entry.get("IPRange") else subnet
    if span.version != subnet.version:
        raise _bad("ip-range", span, f"parent subnet is an IPv{subnet.version} block")
    if span.prefixlen < subnet.prefixlen:
        raise _bad("ip-range", span, f"CIDR block is bigger than its parent subnet {subnet}")
    if not span.overlaps(subnet):
        raise _bad("ip-range", span, f"parent subnet {subnet} doesn't contain ip-range")
    first = subnet[1] if subnet.num_addresses > 1 else subnet[0]
    gateway = _within("gateway", entry["Gateway"], subnet) if entry.get("Gateway") else first
    auxiliary = {
        name: _within("auxiliary address", text, subnet)
        for name, text in (entry.get("AuxiliaryAddresses") or {}).items()
    }
    return AddressPool(subnet, gateway, span, auxiliary)


def _network(what: str, text: object) -> Subnet:
    try:
        if "/" not in str(text):
            raise ValueError(text)
        found = ip_network(str(text), strict=False)
    except ValueError:
        raise _bad(what, text, "invalid CIDR block notation") from None
    if ip_address(str(text).partition("/")[0]) != found.network_address:
        raise _bad(what, text, f"it should be {found}")
    return found


def _within(what: str, text: object, subnet: Subnet) -> Address:
    try:
        found = ip_address(str(text))
    except ValueError:
        raise _bad(what, text, "invalid address") from None
    if found.version != subnet.version:
        raise _bad(what, text, f"parent subnet is an IPv{subnet.version} block")
    if found not in subnet:
        raise _bad(what, text, f"parent subnet {subnet} doesn't contain this address")
    return found


def _bad(what: str, given: object, why: str) -> InvalidParameter:
    return InvalidParameter(f"invalid network config:\ninvalid {what} {given}: {why}")


def address(text: str) -> Address:
    """Raises InvalidParameter."""
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidParameter(f"invalid IP address: {text}") from None


def _free(taken: list[Subnet], version: int, identity: str) -> AddressPool:
    candidates: Iterator[Subnet] = (
        iter(DEFAULT_POOLS) if version == 4 else _local_prefix(identity).subnets(new_prefix=64)
    )
    for candidate in candidates:
        if not any(candidate.overlaps(other) for other in taken):
            return AddressPool(candidate, candidate[1], candidate)
    raise Conflict(
        f"could not find an available, non-overlapping IPv{version} address pool "
        "among the defaults to assign to the network"
    )
