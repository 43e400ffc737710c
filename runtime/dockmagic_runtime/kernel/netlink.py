"""Network interfaces, addresses and routes: rtnetlink(7), one request per function.

A request function returns an encoded message; `Route.request` sends any number of them in one datagram and
waits for one acknowledgement, so setting up an interface with its address and route is one round trip. A
`Route` socket belongs for its whole life to the network namespace in which it was opened: one made inside
another namespace configures that namespace from wherever it is used.

Only the messages a container engine needs are here. They are packed by hand because a container start does
this on its hot path: an attribute is eight lines, and a general library takes longer to import than a whole
container takes to run.
"""

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import TracebackType
from typing import Self

# linux/netlink.h
NETLINK_ROUTE = 0
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_EXCL, _NLM_F_CREATE = 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_EXT_ACK, _NETLINK_CAP_ACK = 270, 11, 10
_NLM_F_ACK_TLVS, _NLMSGERR_ATTR_MSG = 0x200, 1
_NLA_F_NESTED, _NLA_TYPE_MASK = 0x8000, 0x3FFF

# linux/rtnetlink.h
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 3, 0, 1
_RTA_DST, _RTA_GATEWAY = 1, 5

# linux/if_link.h, linux/if_addr.h, linux/veth.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_PROTINFO, _IFLA_LINKINFO = 1, 3, 4, 10, 12, 18
_IFLA_AF_SPEC, _IFLA_NET_NS_FD = 26, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_BRPORT_STATE, _IFLA_BRPORT_MODE = 1, 4
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_VETH_INFO_PEER = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFF_UP = 1
_SIOCGIFINDEX = 0x8933

_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True)
class Message:
    """One encoded request: a type, flags beyond NLM_F_REQUEST, and the body."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True)
class Link:
    """An interface as the kernel lists it; `master` is the index of its bridge, 0 if none."""

    index: int
    name: str
    master: int


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _name(name: str) -> bytes:
    return _attribute(_IFLA_IFNAME, name.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _link_info(kind: str, data: bytes = b"") -> bytes:
    info = _attribute(_IFLA_INFO_KIND, kind.encode())
    return _attribute(_IFLA_LINKINFO, info + (_attribute(_IFLA_INFO_DATA, data) if data else b""))


def add_bridge(name: str, mac: bytes, mtu: int) -> Message:
    """A bridge, up. With a fixed MAC, it keeps that one whatever ports come and go."""
    body = _IFINFO.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _name(name) + _number(_IFLA_MTU, mtu)
    body += _attribute(_IFLA_ADDRESS, mac) + _link_info("bridge")
    return Message(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body)


def add_veth(name: str, bridge: int, mtu: int, *, peer: str, peer_mac: bytes, namespace: int) -> Message:
    """A veth pair: `name` here, up, a port of the bridge with that index; `peer` in `namespace` (an fd).

    The peer stays down: the kernel refuses to open it before the pair is complete (ENOTCONN).
    """
    other = _IFINFO.pack(0, 0, 0, 0, 0) + _name(peer) + _attribute(_IFLA_ADDRESS, peer_mac)
    other += _number(_IFLA_MTU, mtu) + _number(_IFLA_NET_NS_FD, namespace)
    body = _IFINFO.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _name(name)
    body += _number(_IFLA_MTU, mtu) + _number(_IFLA_MASTER, bridge)
    body += _link_info("veth", _attribute(_VETH_INFO_PEER, other))
    return Message(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body)


def set_up(index: int) -> Message:
    return Message(_RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP))


def no_link_local(index: int) -> Message:
    """Give this interface no IPv6 address of its own when it comes up (addrgenmode none)."""
    mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))
    spec = _attribute(_IFLA_AF_SPEC | _NLA_F_NESTED, _attribute(socket.AF_INET6 | _NLA_F_NESTED, mode))
    return Message(_RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + spec)


def _port(index: int, option: int, value: int) -> Message:
    info = _attribute(_IFLA_PROTINFO | _NLA_F_NESTED, _attribute(option, bytes([value])))
    return Message(_RTM_SETLINK, 0, _IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0) + info)


def hairpin(index: int) -> Message:
    """Let a bridge port send a frame back where it came from: a container calls its own published port."""
    return _port(index, _IFLA_BRPORT_MODE, 1)


def silence(index: int) -> Message:
    """Disable a bridge port: it neither forwards nor learns. Unlike taking it down, it waits for nothing."""
    return _port(index, _IFLA_BRPORT_STATE, 0)


def delete_link(index: int) -> Message:
    """Remove an interface; the answer comes when the kernel has let go of it (tens of milliseconds)."""
    return Message(_RTM_DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0))


def add_address(index: int, address: IPv4Interface) -> Message:
    body = _IFADDR.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index)
    body += _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
    body += _attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    return Message(_RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_EXCL, body)


def add_default_route(gateway: IPv4Address) -> Message:
    body = _RTMSG.pack(
        socket.AF_INET, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0
    )
    body += _attribute(_RTA_GATEWAY, gateway.packed)
    return Message(_RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_EXCL, body)


class Route:
    """An rtnetlink socket of the network namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, *messages: Message) -> None:
        """Have the kernel do all of `messages`, in order. Raises `OSError` with the first refusal.

        The kernel does not stop at a refused message: undo what a batch that failed may have made.
        """
        if not messages:
            return
        first = self._sequence + 1
        self._sequence += len(messages)
        datagram = bytearray()
        for sequence, message in enumerate(messages, first):
            # Without NLM_F_ACK only a refusal is answered, so the last answer stands for them all.
            flags = _NLM_F_REQUEST | message.flags | (_NLM_F_ACK if sequence == self._sequence else 0)
            datagram += _HEADER.pack(_HEADER.size + len(message.body), message.kind, flags, sequence, 0)
            datagram += message.body
        self._socket.send(datagram)
        refusal: OSError | None = None
        for kind, flags, sequence, body in self._receive(first):
            if kind == _NLMSG_ERROR:
                refusal = refusal or _refusal(flags, body)
            if sequence == self._sequence:
                break
        if refusal:
            raise refusal

    def index(self, name: str) -> int:
        """The index of an interface of this socket's namespace. Raises `OSError` (ENODEV)."""
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFINDEX, struct.pack("16s24x", name.encode()))
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from None
        index: int = struct.unpack_from("=i", answer, 16)[0]
        return index

    def links(self) -> list[Link]:
        found = []
        for body in self._dump(_RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)):
            attributes = dict(_attributes(body[_IFINFO.size :]))
            master = attributes.get(_IFLA_MASTER, bytes(4))
            name = attributes[_IFLA_IFNAME].rstrip(b"\0").decode()
            found.append(Link(_IFINFO.unpack_from(body)[2], name, int.from_bytes(master, sys.byteorder)))
        return found

    def addresses(self) -> dict[int, list[IPv4Interface]]:
        """The IPv4 addresses of each interface, by its index."""
        found: dict[int, list[IPv4Interface]] = {}
        for body in self._dump(_RTM_GETADDR, _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, prefix, _, _, index = _IFADDR.unpack_from(body)
            local = dict(_attributes(body[_IFADDR.size :])).get(_IFA_LOCAL)
            if local:
                found.setdefault(index, []).append(IPv4Interface((local, prefix)))
        return found

    def subnets(self) -> list[IPv4Network]:
        """The IPv4 destinations this namespace has a route to, default routes aside."""
        found = []
        for body in self._dump(_RTM_GETROUTE, _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, prefix, _, _, table, *_ = _RTMSG.unpack_from(body)
            destination = dict(_attributes(body[_RTMSG.size :])).get(_RTA_DST)
            if destination and prefix and table == _RT_TABLE_MAIN:
                found.append(IPv4Network((destination, prefix), strict=False))
        return found

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, self._sequence, 0)
        self._socket.send(header + body)
        for answer, flags, _, payload in self._receive(self._sequence):
            if answer == _NLMSG_DONE:
                return
            if answer == _NLMSG_ERROR and (refusal := _refusal(flags, payload)):
                raise refusal
            yield payload

    def _receive(self, first: int) -> Iterator[tuple[int, int, int, bytes]]:
        """The kernel's messages in answer to request `first` and later: type, flags, sequence, body."""
        while True:
            data = self._socket.recv(1 << 17)
            offset = 0
            while offset < len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
                # An earlier request may have been given up half way; its answers are nobody's.
                if sequence >= first:
                    yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3


def _refusal(flags: int, body: bytes) -> OSError | None:
    """The error in an NLMSG_ERROR body, with the kernel's own words if any; None: an acknowledgement."""
    number = -struct.unpack_from("=i", body)[0]
    if not number:
        return None
    said = b""
    if flags & _NLM_F_ACK_TLVS:
        said = dict(_attributes(body[4 + _HEADER.size :])).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0")
    return OSError(number, f"{os.strerror(number)}{f': {said.decode()}' if said else ''}")
