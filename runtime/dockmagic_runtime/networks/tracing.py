"""The way of a packet from one container to another, or from this host, hop by hop: `%network trace`.

Nothing is computed from records. A TCP connection is tried from the source's own network namespace; a rule of
a table that lives only for it marks its first packet, and the kernel itself tells which rules of which tables
that one meets (`kernel.nftrace`). The kernel is also asked for the route it takes in each namespace, which
interface is the other end of which, what hangs on which bridge, and where the bridge has learned the
destination to be.

A hop says where it is (a container's name or `host`), what it is, its name, and what was read there.
"""

import errno
import os
import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from dockmagic_runtime.errors import Conflict, SystemFailure
from dockmagic_runtime.kernel import paths
from dockmagic_runtime.kernel.netlink import Link, Route, Way
from dockmagic_runtime.kernel.nftables import Nftables, NftablesError
from dockmagic_runtime.kernel.nftrace import Step, TraceSocket
from dockmagic_runtime.networks import namespace
from dockmagic_runtime.networks.endpoints import NOWHERE
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.sandbox import Sandbox

HOST = "host"
LOOPBACK = IPv4Address("127.0.0.1")
_PATIENCE = 1.5  # seconds until a connection that nobody answers is given up

_AGAIN = 0.9  # a connection's first packet is sent again after a second

# The first two mark the packet, the others only say by which interfaces it comes and goes.
_TABLE = """
add table inet {table}
delete table inet {table}
table inet {table} {{
    chain entering {{ type filter hook prerouting priority -310; {packet} {mark}; }}
    chain leaving {{ type filter hook output priority -310; {packet} {mark}; }}
    chain through {{ type filter hook forward priority -310; tcp sport {source} {mark}; }}
    chain out {{ type filter hook postrouting priority -310; tcp sport {source} {mark}; }}
}}
"""
_PACKET = "{family} daddr {address} tcp sport {source} tcp dport {port}"
_MARK = "tcp flags & (syn | ack) == syn meta nftrace set 1"


@dataclass(frozen=True)
class Hop:
    """One line of a trace. `bad`: here it ends."""

    where: str
    what: str
    name: str
    words: str
    bad: bool = False


@dataclass(frozen=True)
class Side:
    """One end: a container's name and where its network namespace is, or this host (no path)."""

    name: str
    path: Path | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The calling thread is in its namespace for the length of the block."""
        if self.path is None:
            yield
            return
        with paths.opened(self.path, os.O_RDONLY) as fd, namespace.inside(fd):
            yield


@dataclass(frozen=True)
class _Interfaces:
    """The links of one namespace, by index and by name."""

    links: dict[int, Link]

    @classmethod
    def here(cls) -> "_Interfaces":
        with Route() as route:
            return cls({link.index: link for link in route.links()})

    def name(self, index: int) -> str:
        return self.links[index].name if index in self.links else f"interface {index}"


@dataclass(frozen=True)
class Aim:
    """What is tried: from where, which address and port, and the container behind them if it is one.

    `asked` is the port that was asked for, which may be published as another one; `reason`: why it is that.
    """

    source: Side
    target: Side | None
    address: Address
    port: int
    asked: int
    reason: Hop | None = None


def aim(
    source: Sandbox | None, target: Sandbox | Address, port: int, resolved: Sequence[Address] | None
) -> Aim:
    """From a container (None: this host) to a port of another or of an address.

    `resolved` is what the source finds under the target's name. Raises Conflict: there is no way to try.
    """
    here = Side(HOST) if source is None else _side(source)
    if isinstance(target, (IPv4Address, IPv6Address)):
        return Aim(here, None, target, port, port)
    there = _side(target)
    if source is None:
        for each in target.publications:
            if (each.protocol, each.container_port) == ("tcp", port) and each.host_ip.version == 4:
                address = LOOPBACK if each.host_ip == NOWHERE else each.host_ip
                words = f"published at {each.host_ip}:{each.host_port}, in the map of the packet filter"
                return Aim(
                    here, there, address, each.host_port, port, Hop(HOST, "port", f"{port}/tcp", words)
                )
    if resolved:
        named = Hop(here.name, "name", target.name, f"{resolved[0]}, says the resolver at 127.0.0.11")
        return Aim(here, there, resolved[0], port, port, named)
    if not target.plugged:
        raise Conflict(f"container {target.name} is in no network that has addresses")
    address = target.plugged[0].address
    if source is None:
        return Aim(here, there, address, port, port)
    words = (
        f"{here.name} finds nobody under this name ({_why(source, target)}): tried by the address {address}"
    )
    return Aim(here, there, address, port, port, Hop(here.name, "name", target.name, words))


def _why(source: Sandbox, target: Sandbox) -> str:
    shared = {e.network.name for e in source.endpoints} & {e.network.name for e in target.endpoints}
    if not shared:
        return "they share no network"
    return f"the network {min(shared)} has no names; one that you create has"


def _side(of: Sandbox) -> Side:
    if of.on_host:
        return Side(HOST)
    if of.alone:
        raise Conflict(f"container {of.name} has no network: nothing comes out of it or in")
    return Side(of.name, of.path)


class Tracer:
    """One trace at a time; `table` is a name for the table that marks the packet."""

    def __init__(self, table: str) -> None:
        self._table = f"{table}_trace"

    def remove(self) -> None:
        """The table of a trace that was killed."""
        nft = Nftables()
        try:
            nft.remove_table(self._table)
        finally:
            nft.close()

    def trace(self, aim: Aim) -> list[Hop]:
        """The hops to a TCP port.

        Blocks, for a second and a half where nobody answers. Raises SystemFailure: the kernel can't trace.
        """
        source, target, address, port = aim.source, aim.target, aim.address, aim.port
        reason = [aim.reason] if aim.reason else []
        with source.opened():
            begin = _Interfaces.here()
            with Route() as route:
                try:
                    first = route.way_to(address)
                except OSError as error:
                    words = f"no route to {address}: {(error.strerror or '').lower()}"
                    return [*reason, Hop(source.name, "route", str(address), words, bad=True)]
        host = _Interfaces.here()
        steps, answer = self._probe(source, address, port)
        dropped = any(step.verdict == "drop" for step in steps)
        hops = [*reason, _route_hop(source, begin, first, address)]
        within = target is not None and target.path == source.path
        if source.path is not None and not within:
            hops += _out_of(source, begin, host, first)
        hops += self._rules_met(steps, host)
        if not steps and not within:
            hops += _bridged(host, host.links.get(begin.links[first.interface].other_end))
        if target is not None and target.path is not None and not dropped and not within:
            hops += _into(target, host, _final_address(steps, str(address)))
        end = HOST if target is None or dropped else target.name
        hops.append(Hop(end, "answer", f"{aim.asked}/tcp", *answer))
        return hops

    def _rules_met(self, steps: list[Step], host: _Interfaces) -> list[Hop]:
        rules = _Rules()
        try:
            return _across_host(steps, rules, host, self._table)
        finally:
            rules.close()

    def _probe(self, source: Side, address: Address, port: int) -> tuple[list[Step], tuple[str, bool]]:
        """Connect, and what the packet filter told of the first packet; the answer, and whether it is bad."""
        kind = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with source.opened():
            probe = socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        nft = Nftables()
        try:
            probe.bind(("", 0))
            own = probe.getsockname()[1]
            family = "ip" if address.version == 4 else "ip6"
            packet = _PACKET.format(family=family, address=address, source=own, port=port)
            with TraceSocket() as heard:
                nft.run(_TABLE.format(table=self._table, packet=packet, source=own, mark=_MARK))
                return _connect(probe, (str(address), port), heard)
        except NftablesError as error:
            raise SystemFailure(f"this kernel cannot trace packets: {error}") from error
        finally:
            probe.close()
            nft.remove_table(self._table)
            nft.close()


def _connect(
    probe: socket.socket, to: tuple[str, int], heard: TraceSocket
) -> tuple[list[Step], tuple[str, bool]]:
    began = time.perf_counter()
    failure = probe.connect_ex(to)
    steps: list[Step] = []
    waiting = select.poll()
    waiting.register(probe, select.POLLOUT)
    waiting.register(heard, select.POLLIN)
    while failure == errno.EINPROGRESS:
        left = began + _PATIENCE - time.perf_counter()
        ready = waiting.poll(max(left, 0) * 1000)
        took = time.perf_counter() - began
        told = heard.read()
        steps += told if took < _AGAIN else []
        if any(fd == probe.fileno() for fd, _ in ready):
            failure = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        elif any(step.verdict == "drop" for step in steps):
            return steps, ("no answer: the packet was dropped", True)
        elif not ready:
            failure = errno.ETIMEDOUT
    took = time.perf_counter() - began
    steps += heard.read() if took < _AGAIN else []
    return steps, _answer(failure, took)


def _answer(failure: int, took: float) -> tuple[str, bool]:
    if not failure:
        return f"connected, after {took * 1000:.1f} ms", False
    words = {
        errno.ECONNREFUSED: "refused: the packet arrived, but nothing listens on this port",
        errno.ETIMEDOUT: f"no answer within {_PATIENCE} seconds",
    }
    return words.get(failure, os.strerror(failure).lower()), True


def _final_address(steps: list[Step], asked: str) -> str:
    """Where the packet was going at the end: a rule may have rewritten it."""
    return next((step.destination for step in reversed(steps) if step.destination), asked)


def _route_hop(source: Side, begin: _Interfaces, first: Way, address: Address) -> Hop:
    way = f"by the gateway {first.gateway}" if first.gateway else "directly"
    words = f"{way} on {begin.name(first.interface)}, from {first.source}"
    return Hop(source.name, "route", str(address), words)


def _out_of(source: Side, begin: _Interfaces, host: _Interfaces, first: Way) -> list[Hop]:
    """From the container's interface to the bridge on this host."""
    inner = begin.links[first.interface]
    outer = host.links.get(inner.other_end)
    if inner.name == "lo" or outer is None:
        return [Hop(source.name, "interface", inner.name, f"MAC address {inner.mac}")]
    return [
        Hop(source.name, "interface", inner.name, f"MAC address {inner.mac}; the other end is {outer.name}"),
        Hop(HOST, "bridge port", outer.name, f"a port of {host.name(outer.master)}"),
    ]


def _across_host(steps: list[Step], rules: "_Rules", host: _Interfaces, own_table: str) -> list[Hop]:
    """Through this host's routing, with all the rules that matched on the way."""
    hops: list[Hop] = []
    routed = False
    for step in steps:
        if step.table == own_table:
            if not any(step.interfaces):
                continue
            came, leaves = (host.name(index) if index else "" for index in step.interfaces)
            if step.chain == "through" and came == leaves:
                words = "passes the frame on by its MAC address, and shows it to the rules (br_netfilter)"
                hops.append(Hop(HOST, "bridge", came, words))
            elif step.chain == "through":
                hops.append(Hop(HOST, "routing", f"{came} → {leaves}", f"to {step.destination}"))
            elif step.chain == "out" and not routed:
                hops.append(Hop(HOST, "interface", leaves, f"leaves by it, to {step.destination}"))
            routed = routed or step.chain == "through"
        elif step.verdict == "drop" and not step.handle:
            words = "drops what no rule has let through"
            hops.append(Hop(HOST, "policy: drop", f"{step.table} {step.chain}", words, bad=True))
        elif step.handle and step.verdict not in ("continue", "return"):
            name = f"{step.table} {step.chain}"
            bad = step.verdict == "drop"
            hops.append(Hop(HOST, f"rule: {step.verdict}", name, rules.text(step), bad=bad))
    return hops


def _bridged(host: _Interfaces, outer: Link | None) -> list[Hop]:
    """What passes no rule: from one port of a bridge to another."""
    if outer is None or not outer.master:
        return []
    words = "passes the frame on by its MAC address; no rule sees it"
    return [Hop(HOST, "bridge", host.name(outer.master), words)]


def _into(target: Side, host: _Interfaces, address: str) -> list[Hop]:
    """From the bridge, by the port that it has learned, into the container."""
    with target.opened():
        inside = _Interfaces.here()
        with Route() as route:
            index = next(
                (i for i, held in route.addresses().items() if any(str(a.ip) == address for a in held)), 0
            )
    inner = inside.links.get(index)
    if inner is None:
        return []
    outer = host.links.get(inner.other_end)
    hops = []
    if outer is not None and outer.master:
        with Route() as route:
            learned = route.learned(outer.master).get(inner.mac)
        known = f"where {host.name(outer.master)} has learned {inner.mac} to be"
        other = f"a port of {host.name(outer.master)}"
        hops.append(Hop(HOST, "bridge port", outer.name, known if learned == outer.index else other))
    hops.append(Hop(target.name, "interface", inner.name, f"{address}, MAC address {inner.mac}"))
    return hops


class _Rules:
    """The texts of rules, as nft(8) writes them, by their handles."""

    def __init__(self) -> None:
        self._nft = Nftables()
        self._chains: dict[tuple[str, str, str], dict[int, str]] = {}

    def close(self) -> None:
        self._nft.close()

    def text(self, step: Step) -> str:
        chain = step.family, step.table, step.chain
        if chain not in self._chains:
            self._chains[chain] = self._read(*chain)
        return self._chains[chain].get(step.handle, "a rule that has gone meanwhile")

    def _read(self, family: str, table: str, chain: str) -> dict[int, str]:
        try:
            listing = self._nft.listing(f"list chain {family} {table} {chain}")
        except NftablesError:
            return {}  # removed meanwhile
        found = re.findall(r"^\s*(.*) # handle (\d+)$", listing, re.MULTILINE)
        return {int(handle): text for text, handle in found}
