"""Published ports: who may have which port of this host.

A port is *reserved* by a real socket that the engine binds and never reads: the kernel then refuses the port
to every other process, and tells us when one has it already. Packets never reach that socket; the map
`published` of the ruleset rewrites their destination before.
"""

import errno
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import Conflict, InvalidParameter, NotImplementedHere
from dockmagic_runtime.networks.ruleset import Publication

ANY = IPv4Address(0)

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
    """A container's port to publish, on any host port of `host_ports` (empty: a random one)."""

    protocol: str
    container_port: int
    host_ip: IPv4Address
    host_ports: range


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
            host_ip = _host_ip(entry.get("HostIp") or default_ip)
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

    def reserve(self, wishes: Iterable[Wish], container_ip: IPv4Address) -> list[Publication]:
        """Reserve them all, or none. Raises Conflict with Docker's sentence for the first it can't have."""
        got: list[Publication] = []
        try:
            for wish in wishes:
                got.append(self._reserve(wish, container_ip))
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

    def _reserve(self, wish: Wish, container_ip: IPv4Address) -> Publication:
        candidates = wish.host_ports or self._ephemeral()
        single = len(candidates) == 1
        for port in candidates:
            publication = Publication(wish.protocol, wish.host_ip, port, container_ip, wish.container_port)
            if self._allocated(publication):
                if single:
                    raise Conflict(f"Bind for {wish.host_ip}:{port} failed: port is already allocated")
                continue
            try:
                self._held[publication] = _bind(publication)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and not single:
                    continue
                where = f"{wish.host_ip}:{port}:{container_ip}:{wish.container_port}/{wish.protocol}"
                reason = os.strerror(error.errno or 0).lower()
                raise Conflict(f"failed to bind host port for {where}: {reason}") from error
            if not wish.host_ports:
                self._next = port + 1
            return publication
        raise Conflict(f"Bind for {wish.host_ip}:{wish.host_ports.start} failed: all ports are allocated")

    def _allocated(self, wanted: Publication) -> bool:
        """Whether a container of ours has the port, on the same address or where one of the two means all."""
        return any(
            held.host_port == wanted.host_port
            and held.protocol == wanted.protocol
            and (held.host_ip == wanted.host_ip or ANY in (held.host_ip, wanted.host_ip))
            for held in self._held
        )

    def _ephemeral(self) -> list[int]:
        """The host's ephemeral ports, from after the last that was given out, as Docker walks them."""
        first, last = map(int, _EPHEMERAL.read_text().split())
        start = min(max(self._next, first), last)
        return [*range(start, last + 1), *range(first, start)]


def _bind(publication: Publication) -> socket.socket:
    """A socket that holds the port. Bound but not listening, it refuses what the ruleset should not cover."""
    kind, number = _PROTOCOLS[publication.protocol]
    where = (str(publication.host_ip), publication.host_port)
    held = socket.socket(socket.AF_INET, kind, number)
    try:
        held.bind(where)
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE or publication.protocol != "tcp":
            raise
        return _bind_over_remains(where)
    return held


def _bind_over_remains(where: tuple[str, int]) -> socket.socket:
    """Take a port with nothing but closing connections (TIME_WAIT) on it; EADDRINUSE if there is more."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(where)
        # Only a listening socket keeps a port to itself once addresses may be reused.
        held.listen(1)
    except OSError:
        held.close()
        raise
    return held


def _host_ip(text: str) -> IPv4Address:
    if ":" in text:
        raise NotImplementedHere(f"publishing on IPv6 addresses is not supported: {text}")
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise InvalidParameter(f"invalid IP address: {text}") from None


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
