"""MAC addresses (IEEE 802): as people write them, and those that Docker gives to containers."""

from ipaddress import IPv4Address


def of(address: IPv4Address) -> str:
    """Docker's for a container: 02:42 and its IPv4 address."""
    return written(b"\x02\x42" + address.packed)


def written(octets: bytes) -> str:
    return octets.hex(":")


def packed(mac: str) -> bytes:
    """The six bytes of a MAC address. Raises ValueError."""
    octets = bytes(int(part, 16) for part in mac.replace("-", ":").split(":"))
    if len(octets) != 6:
        raise ValueError(mac)
    return octets
