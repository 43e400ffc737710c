"""What the packet filter does with a packet: the trace messages of nfnetlink, nft(8) "MONITOR".

A packet for which a rule says `meta nftrace set 1` reports every rule that matches it from there on, in all
tables of its network namespace. linux/netfilter/nf_tables.h has the layout (NFT_MSG_TRACE, NFTA_TRACE_*).
"""

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

_NETLINK_NETFILTER = 12
_NFNLGRP_NFTRACE = 9
_NETLINK_ADD_MEMBERSHIP, _SOL_NETLINK = 1, 270
_NFT_MSG_TRACE = 10 << 8 | 17  # NFNL_SUBSYS_NFTABLES
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _NETWORK_HEADER, _IIF, _OIF, _POLICY = 1, 2, 3, 4, 5, 8, 10, 12, 16
_TYPE_POLICY, _TYPE_RULE = 1, 3
_VERDICTS = {0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return"}
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
_ATTRIBUTE = 0x3FFF  # without the flags of nesting and byte order


@dataclass(frozen=True)
class Step:
    """One rule that matched (`handle`) or, with handle 0, the policy at the end of a chain.

    `verdict` is nft's word; `interfaces` are the indexes of the one it came by and the one it leaves by, 0
    where there is none; `source` and `destination` are the packet's addresses, empty if the kernel did not
    repeat them.
    """

    family: str
    table: str
    chain: str
    handle: int
    verdict: str
    interfaces: tuple[int, int]
    source: str
    destination: str


class TraceSocket:
    """Hears of the traced packets of the network namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            _NETLINK_NETFILTER,
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTRACE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[Step]:
        """What has been reported since the last call; does not wait."""
        found: list[Step] = []
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            length, kind = struct.unpack_from("=IH", data)
            if kind == _NFT_MSG_TRACE:
                step = _step(_FAMILIES.get(data[16], ""), dict(_attributes(data[20:length])))
                found += [step] if step else []


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        yield kind & _ATTRIBUTE, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _step(family: str, told: dict[int, bytes]) -> Step | None:
    """None for what is neither a rule nor a policy: the end of a chain that was jumped to."""
    kind = _number(told.get(_TYPE))
    if kind not in (_TYPE_RULE, _TYPE_POLICY):
        return None
    verdict = 1
    if _VERDICT in told:
        code = dict(_attributes(told[_VERDICT])).get(1, b"")
        verdict = int.from_bytes(code, "big", signed=True)
    elif kind == _TYPE_POLICY:
        verdict = _number(told.get(_POLICY))
    source, destination = _addresses(told.get(_NETWORK_HEADER, b""))
    return Step(
        family,
        _text(told.get(_TABLE)),
        _text(told.get(_CHAIN)),
        _number(told.get(_HANDLE)),
        _VERDICTS.get(verdict, str(verdict)),
        (_number(told.get(_IIF)), _number(told.get(_OIF))),
        source,
        destination,
    )


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "big")


def _text(data: bytes | None) -> str:
    return os.fsdecode((data or b"").rstrip(b"\0"))


def _addresses(header: bytes) -> tuple[str, str]:
    """Source and destination of an IPv4 or IPv6 header."""
    if len(header) >= 20 and header[0] >> 4 == 4:
        return socket.inet_ntop(socket.AF_INET, header[12:16]), socket.inet_ntop(
            socket.AF_INET, header[16:20]
        )
    if len(header) >= 40 and header[0] >> 4 == 6:
        return socket.inet_ntop(socket.AF_INET6, header[8:24]), socket.inet_ntop(
            socket.AF_INET6, header[24:40]
        )
    return "", ""
