"""Who listens on this host: every socket that waits for somebody, and the process that has it.

The sockets are in /proc/net/{tcp,udp}{,6} (proc_pid_net(5)) with their inodes; whose an inode is, the
descriptors in /proc/<pid>/fd tell. Of processes that we may not look into only the socket is known.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from dockmagic_runtime.networks.ipam import Address

# include/net/tcp_states.h: a TCP socket listens in state 10; a UDP socket without a peer is in 7.
_WAITING = {"tcp": "0A", "udp": "07"}


@dataclass(frozen=True)
class Listener:
    """`pid` 0 and no `command`: not known."""

    protocol: str
    address: Address
    port: int
    pid: int
    command: str


def listeners(port: int | None = None) -> list[Listener]:
    """All of them, or those on one port, but for our own process (its sockets hold published ports)."""
    waiting = {
        inode: (protocol, address, number)
        for protocol, address, number, inode in _sockets()
        if port in (None, number)
    }
    owners = _owners(set(waiting))
    return sorted(
        (
            Listener(protocol, address, number, *owners.get(inode, (0, "")))
            for inode, (protocol, address, number) in waiting.items()
            if owners.get(inode, (0, ""))[0] != os.getpid()
        ),
        key=lambda each: (each.port, each.protocol, each.address.version, each.address.packed),
    )


def _sockets() -> Iterator[tuple[str, Address, int, str]]:
    for protocol, state in _WAITING.items():
        for family in ("", "6"):
            try:
                lines = Path(f"/proc/net/{protocol}{family}").read_text().splitlines()[1:]
            except FileNotFoundError:
                continue  # a kernel without IPv6
            for line in lines:
                words = line.split()
                if words[3] == state:
                    address, _, number = words[1].partition(":")
                    yield protocol, _address(address), int(number, 16), words[9]


def _address(digits: str) -> Address:
    """From the kernel's form: words of four bytes, each in the order of this machine (here little-endian)."""
    raw = bytes.fromhex(digits)
    packed = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _owners(inodes: set[str]) -> dict[str, tuple[int, str]]:
    """Inode -> process id and command."""
    found: dict[str, tuple[int, str]] = {}
    for process in Path("/proc").iterdir():
        if len(found) == len(inodes):
            break
        if not process.name.isdigit():
            continue
        try:
            links = [os.readlink(entry.path) for entry in os.scandir(process / "fd")]  # noqa: PTH115
            held = {link[8:-1] for link in links if link.startswith("socket:[")} & inodes
            for inode in held - found.keys():
                found[inode] = int(process.name), (process / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is not ours to look into
    return found
