"""`network create --subnet --gateway --ip-range --aux-address`: which of them belong together.

The flags may be given several times, in any order; what lies in a subnet belongs to it (docker/cli,
`createIPAMConfig`).
"""

import ipaddress
from typing import Any

from dockmagic.errors import UsageMistake

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def pools(
    subnets: tuple[str, ...], gateways: tuple[str, ...], ranges: tuple[str, ...], auxiliary: tuple[str, ...]
) -> list[dict[str, Any]]:
    """One address pool for each subnet, with what lies in it. Raises UsageMistake."""
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise UsageMistake("every ip-range or gateway must have a corresponding subnet")
    found: list[tuple[Network, dict[str, Any]]] = []
    for text in subnets:
        network = _network(text)
        if any(_overlap(network, other) for other, _ in found):
            raise UsageMistake("multiple overlapping subnet configuration is not supported")
        found.append((network, {"Subnet": text}))
    for text in ranges:
        _pool(found, _network(text), "range", text)["IPRange"] = text
    for text in gateways:
        _pool(found, _address(text), "gateway", text)["Gateway"] = text
    for text in auxiliary:
        name, _, address = text.partition("=")
        pool = _pool(found, _address(address), "aux-address", address)
        pool.setdefault("AuxiliaryAddresses", {})[name] = address
    return [pool for _, pool in found]


def _pool(
    found: list[tuple[Network, dict[str, Any]]], part: Network | None, what: str, text: str
) -> dict[str, Any]:
    for network, pool in found:
        if part is not None and _overlap(network, part) and network.prefixlen <= part.prefixlen:
            return pool
    raise UsageMistake(f"no matching subnet for {what} {text}")


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageMistake(f"invalid CIDR address: {text}") from None


def _address(text: str) -> Network | None:
    """An address as the network of one; None for a word that is none: it lies nowhere."""
    try:
        return ipaddress.ip_network(ipaddress.ip_address(text))
    except ValueError:
        return None


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
