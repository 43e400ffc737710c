"""Network interfaces, addresses and routes: rtnetlink(7), one request per function.

A request function describes a message; `Route.request` has pyroute2 encode any number of them, sends them as
one datagram and waits for one acknowledgement, so setting up an interface with its address and route is one
round trip. A `Route` socket belongs for its whole life to the network namespace in which it was opened: one
made inside another namespace configures that namespace from wherever it is used.

The socket is our own because pyroute2's bring an event loop along and wait for each request by itself.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import Any, Self

from dockmagic_runtime.kernel import rtnl

_CREATE = rtnl.NLM_F_CREATE | rtnl.NLM_F_EXCL
_UP = {"flags": rtnl.IFF_UP, "change": rtnl.IFF_UP}
_MAIN_TABLE = 254  # linux/rtnetlink.h
_SIOCGIFINDEX = 0x8933

# linux/if_link.h, linux/if_bridge.h
_ADDR_GEN_MODE_NONE = 1
_MODE_HAIRPIN = 1
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_NO_DUPLICATE_DETECTION = 2  # linux/if_addr.h, IFA_F_NODAD
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_STATE_DISABLED = 0
_NUD_PERMANENT = 0x80  # linux/neighbour.h

_MARSHAL = rtnl.Marshal()
_MARSHAL.msg_map = {
    rtnl.RTM_NEWLINK: rtnl.ifinfmsg,
    rtnl.RTM_NEWADDR: rtnl.ifaddrmsg,
    rtnl.RTM_NEWROUTE: rtnl.rtmsg,
    rtnl.RTM_NEWNEIGH: rtnl.ndmsg,
}

Interface = IPv4Interface | IPv6Interface

# A netlink attribute in pyroute2's form: its name, its value, and flags of the attribute, if any.
Attribute = tuple[str, Any] | tuple[str, Any, int]


@dataclass(frozen=True)
class Message:
    """One request: pyroute2's class for it, its type, flags beyond NLM_F_REQUEST, fields and attributes."""

    form: type[Any]
    kind: int
    flags: int = 0
    fields: Mapping[str, int] = field(default_factory=dict)
    attributes: tuple[Attribute, ...] = ()

    def encode(self, sequence: int, flags: int) -> bytearray:
        message = self.form()
        message["header"] = {
            "type": self.kind,
            "flags": rtnl.NLM_F_REQUEST | self.flags | flags,
            "sequence_number": sequence,
        }
        message.update(self.fields)
        # Encoding replaces the members of this list.
        message["attrs"] = [*self.attributes]
        message.encode()
        data: bytearray = message.data
        return data


@dataclass(frozen=True)
class Link:
    """An interface as the kernel lists it.

    `master` is the index of its bridge, `other_end` that of a veth's other end, which is mostly in another
    namespace; 0 if there is none.
    """

    index: int
    name: str
    master: int = 0
    other_end: int = 0
    mac: str = ""
    up: bool = False


@dataclass(frozen=True)
class Way:
    """How the kernel would send to an address: the index of the interface, its own address, the gateway."""

    interface: int
    source: str
    gateway: str


def _nested(*attributes: Attribute) -> dict[str, list[Attribute]]:
    return {"attrs": [*attributes]}


def add_bridge(name: str, mac: bytes, mtu: int) -> Message:
    """A bridge, up. With a fixed MAC, it keeps that one whatever ports come and go."""
    attributes = (
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_ADDRESS", mac.hex(":")),
        ("IFLA_LINKINFO", _nested(("IFLA_INFO_KIND", "bridge"))),
    )
    return Message(rtnl.ifinfmsg, rtnl.RTM_NEWLINK, _CREATE, _UP, attributes)


def add_veth(name: str, bridge: int, mtu: int, *, peer: str, peer_mac: bytes, namespace: int) -> Message:
    """A veth pair: `name` here, up, a port of the bridge with that index; `peer` in `namespace` (an fd).

    The peer stays down: the kernel refuses to open it before the pair is complete (ENOTCONN).
    """
    other = _nested(
        ("IFLA_IFNAME", peer),
        ("IFLA_ADDRESS", peer_mac.hex(":")),
        ("IFLA_MTU", mtu),
        ("IFLA_NET_NS_FD", namespace),
    )
    pair = _nested(("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", _nested(("VETH_INFO_PEER", other))))
    attributes = (
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_MASTER", bridge),
        ("IFLA_LINKINFO", pair),
    )
    return Message(rtnl.ifinfmsg, rtnl.RTM_NEWLINK, _CREATE, _UP, attributes)


def add_pair(name: str, peer: str) -> Message:
    """A veth pair with both ends here: once both are up, what hangs on one of them sees what else does."""
    pair = _nested(
        ("IFLA_INFO_KIND", "veth"),
        ("IFLA_INFO_DATA", _nested(("VETH_INFO_PEER", _nested(("IFLA_IFNAME", peer))))),
    )
    return Message(
        rtnl.ifinfmsg, rtnl.RTM_NEWLINK, _CREATE, attributes=(("IFLA_IFNAME", name), ("IFLA_LINKINFO", pair))
    )


def add_vlan(name: str, parent: int, number: int) -> Message:
    """The interface, up, of the tagged frames (IEEE 802.1Q) on another."""
    data = _nested(("IFLA_VLAN_ID", number))
    attributes = (
        ("IFLA_IFNAME", name),
        ("IFLA_LINK", parent),
        ("IFLA_LINKINFO", _nested(("IFLA_INFO_KIND", "vlan"), ("IFLA_INFO_DATA", data))),
    )
    return Message(rtnl.ifinfmsg, rtnl.RTM_NEWLINK, _CREATE, _UP, attributes)


def add_macvlan(name: str, parent: int, mode: str, mac: bytes, mtu: int, namespace: int) -> Message:
    """An interface in `namespace` (an fd), down, with a MAC address of its own on the wire of `parent`."""
    data = _nested(("IFLA_MACVLAN_MODE", _MACVLAN_MODES[mode]))
    return _hanging(name, parent, mtu, namespace, "macvlan", data, ("IFLA_ADDRESS", mac.hex(":")))


def add_ipvlan(name: str, parent: int, mode: str, mtu: int, namespace: int) -> Message:
    """An interface in `namespace` (an fd), down, that shares the MAC address of `parent`."""
    data = _nested(("IFLA_IPVLAN_MODE", _IPVLAN_MODES[mode]))
    return _hanging(name, parent, mtu, namespace, "ipvlan", data)


def _hanging(
    name: str, parent: int, mtu: int, namespace: int, kind: str, data: Any, *more: Attribute
) -> Message:
    attributes = (
        ("IFLA_IFNAME", name),
        ("IFLA_LINK", parent),
        ("IFLA_MTU", mtu),
        ("IFLA_NET_NS_FD", namespace),
        ("IFLA_LINKINFO", _nested(("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", data))),
        *more,
    )
    return Message(rtnl.ifinfmsg, rtnl.RTM_NEWLINK, _CREATE, attributes=attributes)


def set_up(index: int) -> Message:
    return Message(rtnl.ifinfmsg, rtnl.RTM_NEWLINK, fields={"index": index, **_UP})


def no_link_local(index: int) -> Message:
    """Give this interface no IPv6 address of its own when it comes up (addrgenmode none)."""
    mode = _nested(("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE))
    return Message(
        rtnl.ifinfmsg,
        rtnl.RTM_SETLINK,
        fields={"index": index},
        attributes=(("IFLA_AF_SPEC", _nested(("AF_INET6", mode)), rtnl.NLA_F_NESTED),),
    )


def _port(index: int, option: str, value: int) -> Message:
    return Message(
        rtnl.ifinfmsg,
        rtnl.RTM_SETLINK,
        fields={"family": socket.AF_BRIDGE, "index": index},
        attributes=(("IFLA_PROTINFO", _nested((option, value)), rtnl.NLA_F_NESTED),),
    )


def hairpin(index: int) -> Message:
    """Let a bridge port send a frame back where it came from: a container calls its own published port."""
    return _port(index, "IFLA_BRPORT_MODE", _MODE_HAIRPIN)


def silence(index: int) -> Message:
    """Disable a bridge port: it neither forwards nor learns. Unlike taking it down, it waits for nothing."""
    return _port(index, "IFLA_BRPORT_STATE", _STATE_DISABLED)


def delete_link(index: int) -> Message:
    """Remove an interface; the answer comes when the kernel has let go of it (tens of milliseconds)."""
    return Message(rtnl.ifinfmsg, rtnl.RTM_DELLINK, fields={"index": index})


def add_address(index: int, address: Interface) -> Message:
    """An IPv6 address is usable at once: that nobody else has it is what pools are for."""
    attributes: tuple[Attribute, ...] = (("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip)))
    fields = {"family": _FAMILY[address.version], "prefixlen": address.network.prefixlen, "index": index}
    if address.version == 4:
        attributes += (("IFA_BROADCAST", str(address.network.broadcast_address)),)
    else:
        fields["flags"] = _NO_DUPLICATE_DETECTION
    return Message(rtnl.ifaddrmsg, rtnl.RTM_NEWADDR, _CREATE, fields, attributes)


def add_default_route(gateway: IPv4Address | IPv6Address) -> Message:
    fields = {
        "family": _FAMILY[gateway.version],
        "table": _MAIN_TABLE,
        "proto": rtnl.rt_proto["boot"],
        "scope": rtnl.rt_scope["universe"],
        "type": rtnl.rt_type["unicast"],
    }
    attributes = (("RTA_GATEWAY", str(gateway)),)
    return Message(rtnl.rtmsg, rtnl.RTM_NEWROUTE, _CREATE, fields, attributes)


class Route:
    """An rtnetlink socket of the network namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, rtnl.NETLINK_ROUTE
        )
        self._socket.setsockopt(rtnl.SOL_NETLINK, rtnl.NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
            datagram += message.encode(sequence, rtnl.NLM_F_ACK if sequence == self._sequence else 0)
        self._socket.send(datagram)
        refusal: OSError | None = None
        for answer in self._receive(first):
            refusal = refusal or _refusal(answer)
            if answer["header"]["sequence_number"] == self._sequence:
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

    def has(self, name: str) -> bool:
        """Whether this socket's namespace has an interface of that name."""
        try:
            self.index(name)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    def knows(self, kind: str) -> bool:
        """Whether this kernel has interfaces of a kind that hangs on another one (macvlan, ipvlan, vlan)."""
        try:
            # Without the other one it is refused in any case.
            attributes = (("IFLA_LINKINFO", _nested(("IFLA_INFO_KIND", kind))),)
            self.request(Message(rtnl.ifinfmsg, rtnl.RTM_NEWLINK, _CREATE, attributes=attributes))
        except OSError as error:
            return error.errno != errno.EOPNOTSUPP
        return True

    def links(self) -> list[Link]:
        return [
            Link(
                link["index"],
                link.get_attr("IFLA_IFNAME"),
                link.get_attr("IFLA_MASTER") or 0,
                link.get_attr("IFLA_LINK") or 0,
                link.get_attr("IFLA_ADDRESS") or "",
                bool(link["flags"] & rtnl.IFF_UP),
            )
            for link in self._dump(Message(rtnl.ifinfmsg, rtnl.RTM_GETLINK))
        ]

    def addresses(self) -> dict[int, list[Interface]]:
        """The addresses of each interface, by its index."""
        found: dict[int, list[Interface]] = {}
        for address in self._dump(Message(rtnl.ifaddrmsg, rtnl.RTM_GETADDR)):
            if local := address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"):
                here = ip_interface((local, address["prefixlen"]))
                found.setdefault(address["index"], []).append(here)
        return found

    def subnets(self) -> list[IPv4Network | IPv6Network]:
        """The destinations this namespace has a route to, default routes aside."""
        return [
            ip_network((route.get_attr("RTA_DST"), route["dst_len"]), strict=False)
            for route in self._dump(Message(rtnl.rtmsg, rtnl.RTM_GETROUTE))
            if route["dst_len"] and route["table"] == _MAIN_TABLE
        ]

    def way_to(self, address: IPv4Address | IPv6Address) -> Way:
        """The route that this namespace takes. Raises `OSError` (ENETUNREACH) if it has none."""
        fields = {"family": _FAMILY[address.version], "dst_len": address.max_prefixlen}
        message = Message(
            rtnl.rtmsg, rtnl.RTM_GETROUTE, fields=fields, attributes=(("RTA_DST", str(address)),)
        )
        self._sequence += 1
        self._socket.send(message.encode(self._sequence, 0))
        answer = next(self._receive(self._sequence))
        if refusal := _refusal(answer):
            raise refusal
        return Way(
            answer.get_attr("RTA_OIF"),
            answer.get_attr("RTA_PREFSRC") or "",
            answer.get_attr("RTA_GATEWAY") or "",
        )

    def learned(self, bridge: int) -> dict[str, int]:
        """At which port (index) a bridge has learned each MAC address to be."""
        message = Message(rtnl.ndmsg, rtnl.RTM_GETNEIGH, fields={"family": socket.AF_BRIDGE})
        return {
            entry.get_attr("NDA_LLADDR"): entry["ifindex"]
            for entry in self._dump(message)
            if entry.get_attr("NDA_MASTER") == bridge and not entry["state"] & _NUD_PERMANENT
        }

    def _dump(self, message: Message) -> Iterator[Any]:
        """All objects of the kind `message` asks for, as pyroute2's messages."""
        self._sequence += 1
        self._socket.send(message.encode(self._sequence, rtnl.NLM_F_DUMP))
        for answer in self._receive(self._sequence):
            if refusal := _refusal(answer):
                raise refusal
            if answer["header"]["type"] == rtnl.NLMSG_DONE:
                return
            yield answer

    def _receive(self, first: int) -> Iterator[Any]:
        """The kernel's messages in answer to request `first` and later ones."""
        while True:
            for answer in _MARSHAL.parse(self._socket.recv(1 << 17)):
                # An earlier request may have been given up half way; its answers are nobody's.
                if answer["header"]["sequence_number"] >= first:
                    yield answer


def _refusal(answer: Any) -> OSError | None:
    """The error that an answer carries, with the kernel's own words if any."""
    if answer["header"]["type"] != rtnl.NLMSG_ERROR or not answer["error"]:
        return None
    number = -answer["error"]
    said = answer.get_attr("NLMSGERR_ATTR_MSG")
    return OSError(number, f"{os.strerror(number)}{f': {said}' if said else ''}")
