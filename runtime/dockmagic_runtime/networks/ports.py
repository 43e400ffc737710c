"""Published ports: who may have which port of this host.

A port is *reserved* by a real socket that the engine binds and never reads: the kernel then refuses the port
to every other process, and tells us when one has it already. Packets never reach that socket; the map
`published` of the ruleset rewrites their destination before.
"""

import errno
import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import Conflict, InvalidParameter
from dockmagic_runtime.networks import ipam
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.ruleset import Publication

ANY: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_HAS_IPV6 = Path("/proc/net/if_inet6")

# Protocol -> socket type and number. A kernel without SCTP refuses the socket, and so the port.
_PROTOCOLS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),
}
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PORT = re.compile(r"(\d+)(?:/(\w+))?")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Wish:
    """A container's port to publish, on any host port of `host_ports` (empty: a random one).

    `host_ip` None stands for all addresses of this host, in the families that the container has.
    """

    protocol: str
    container_port: int
    host_ip: Address | None
    host_ports: range

    def pairs(self, addresses: Sequence[Address]) -> list[tuple[Address, Address]]:
        """Host address and the container's, of one family each. Raises InvalidParameter if there is none."""
        if self.host_ip is None:
            families = {4, 6} if _HAS_IPV6.exists() else {4}
            return [(ANY[each.version], each) for each in addresses if each.version in families]
        found = [(self.host_ip, each) for each in addresses if each.version == self.host_ip.version]
        if not found:
            raise InvalidParameter(
                f"port {self.container_port}/{self.protocol} can't be published on {self.host_ip}: "
                "the container's network has no IPv6 (docker network create --ipv6 makes one that has)"
            )
        return found


def wishes(
    bindings: dict[str, list[dict[str, str]] | None] | None,
    exposed: Iterable[str] = (),
    *,
    publish_all: bool = False,
    default_ip: str = "0.0.0.0",
) -> list[Wish]:
    """What `HostConfig.PortBindings` (and `-P`: each of `exposed`) asks for. Raises InvalidParameter."""
    found = []
    asked = dict(bindings or {})
    if publish_all:
        asked |= {port: [{}] for port in exposed if port not in asked}
    for key, entries in asked.items():
        protocol, container_port = parse(key)
        for entry in entries or []:
            given = entry.get("HostIp") or (default_ip if default_ip != "0.0.0.0" else "")
            host_ip = ipam.address(given) if given else None
            found.append(Wish(protocol, container_port, host_ip, _host_ports(entry.get("HostPort") or "")))
    return found


def parse(key: str) -> tuple[str, int]:
    """`80/tcp` or `80` as protocol and number."""
    match = _PORT.fullmatch(key)
    protocol = (match and match[2]) or "tcp"
    if not match or protocol not in _PROTOCOLS or not 0 < int(match[1]) < 65536:
        raise InvalidParameter(f"invalid port specification: {key}")
    return protocol, int(match[1])


def inspect(exposed: Iterable[str], publications: Iterable[Publication]) -> dict[str, Any]:
    """Docker's `NetworkSettings.Ports`: exposed ports that are not published are null."""
    shown: dict[str, Any] = {"/".join(map(str, reversed(parse(port)))): None for port in exposed}
    for publication in publications:
        key = f"{publication.container_port}/{publication.protocol}"
        shown[key] = shown.get(key) or []
        shown[key].append({"HostIp": str(publication.host_ip), "HostPort": str(publication.host_port)})
    return shown


class Ports:
    """The reservations of all containers of this engine."""

    def __init__(self) -> None:
        self._held: dict[Publication, socket.socket] = {}
        self._next = 0

    def reserve(self, wishes: Iterable[Wish], addresses: Sequence[Address]) -> list[Publication]:
        """Reserve them all, or none, for the container with these addresses.

        Raises Conflict with Docker's sentence for the first it can't have.
        """
        got: list[Publication] = []
        try:
            for wish in wishes:
                got += self._reserve(wish, wish.pairs(addresses))
        except Exception:
            self.release(got)
            raise
        return got

    def restore(self, publications: Iterable[Publication]) -> list[Publication]:
        """Reserve again what a former engine had; returns those that another process has taken meanwhile."""
        lost = []
        for publication in publications:
            try:
                self._held[publication] = _bind(publication)
            except OSError:
                lost.append(publication)
        return lost

    def release(self, publications: Iterable[Publication]) -> None:
        for publication in publications:
            if held := self._held.pop(publication, None):
                held.close()

    def close(self) -> None:
        self.release(list(self._held))

    def _reserve(self, wish: Wish, pairs: list[tuple[Address, Address]]) -> list[Publication]:
        """One port of this host, the same for each pair of addresses."""
        candidates = wish.host_ports or self._ephemeral()
        single = len(candidates) == 1
        for port in candidates:
            wanted = [
                Publication(wish.protocol, host_ip, port, container_ip, wish.container_port)
                for host_ip, container_ip in pairs
            ]
            if taken := next((each for each in wanted if self._allocated(each)), None):
                if single:
                    raise Conflict(f"Bind for {taken.host_ip}:{port} failed: port is already allocated")
                continue
            if not self._hold(wanted, single=single):
                continue
            if not wish.host_ports:
                self._next = port + 1
            return wanted
        where = pairs[0][0] if pairs else ""
        raise Conflict(f"Bind for {where}:{wish.host_ports.start} failed: all ports are allocated")

    def _hold(self, wanted: list[Publication], *, single: bool) -> bool:
        """False if another process has one of them and there are others to try."""
        for each in wanted:
            try:
                self._held[each] = _bind(each)
            except OSError as error:
                self.release(wanted)
                if error.errno == errno.EADDRINUSE and not single:
                    return False
                where = f"{_text(each.host_ip)}:{each.host_port}:{_text(each.container_ip)}"
                reason = os.strerror(error.errno or 0).lower()
                raise Conflict(
                    f"failed to bind host port for {where}:{each.container_port}/{each.protocol}: {reason}"
                ) from error
        return True

    def _allocated(self, wanted: Publication) -> bool:
        """Whether a container of ours has the port, on the same address or where one of the two means all."""
        return any(
            held.host_port == wanted.host_port
            and held.protocol == wanted.protocol
            and held.host_ip.version == wanted.host_ip.version
            and (
                held.host_ip == wanted.host_ip or ANY[held.host_ip.version] in (held.host_ip, wanted.host_ip)
            )
            for held in self._held
        )

    def _ephemeral(self) -> list[int]:
        """The host's ephemeral ports, from after the last that was given out, as Docker walks them."""
        first, last = map(int, _EPHEMERAL.read_text().split())
        start = min(max(self._next, first), last)
        return [*range(start, last + 1), *range(first, start)]


def _bind(publication: Publication) -> socket.socket:
    """A socket that holds the port. Bound but not listening, it refuses what the ruleset should not cover."""
    try:
        return _bound(publication)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or publication.protocol != "tcp":
            raise
    # Take a port with nothing but closing connections (TIME_WAIT) on it; EADDRINUSE if there is more.
    held = _bound(publication, reuse=True)
    try:
        # Only a listening socket keeps a port to itself once addresses may be reused.
        held.listen(1)
    except OSError:
        held.close()
        raise
    return held


def _bound(publication: Publication, *, reuse: bool = False) -> socket.socket:
    kind, number = _PROTOCOLS[publication.protocol]
    address = publication.host_ip
    held = socket.socket(_FAMILY[address.version], kind, number)
    try:
        if reuse:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.version == 6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.bind((str(address), publication.host_port))
    except OSError:
        held.close()
        raise
    return held


def _text(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _host_ports(text: str) -> range:
    if text in ("", "0"):
        return range(0)
    match = _RANGE.fullmatch(text)
    if not match:
        raise InvalidParameter(f'invalid port specification: "{text}"')
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last < 65536:
        raise InvalidParameter(f'invalid port specification: "{text}"')
    return range(first, last + 1)
