"""an engine's networks, containers without a root file system, other hosts."""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any

from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.kernel import netlink
from dockmagic_runtime.kernel.netlink import Route
from dockmagic_runtime.networks import namespace
from dockmagic_runtime.networks.sandbox import Sandbox
from dockmagic_runtime.networks.store import Networks

PORT_80 = {"80/tcp": [{"HostIp": "", "HostPort": ""}]}


@dataclass
class Lab:
    """An engine's networks, containers without a root file system, and programs in their namespaces."""

    networks: Networks
    config: EngineConfig
    events: list[tuple[str, str, str, dict[str, str]]]
    www: Path
    programs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def run(self, name: str, *references: str, ports: Any = None, **more: Any) -> Sandbox:
        endpoints = more.pop("endpoints", None) or {each: {} for each in references or ("bridge",)}
        hostname = more.pop("hostname", name)
        return await self.networks.sandboxes.allocate(
            secrets.token_hex(32), name, hostname, endpoints, ports, **more
        )

    def spawn(self, sandbox: Sandbox | None, *command: str) -> subprocess.Popen[bytes]:
        """A program inside a sandbox (None: on the host), killed at the end of the test."""
        inside = ["nsenter", f"--net={sandbox.netns_path}"] if sandbox else []
        self.programs.append(subprocess.Popen([*inside, *command], stdin=subprocess.DEVNULL))
        return self.programs[-1]

    async def call(self, sandbox: Sandbox | None, *command: str, seconds: float = 10) -> tuple[int, str]:
        """Exit code and output of a program inside a sandbox (None: on the host)."""
        inside = ["nsenter", f"--net={sandbox.netns_path}"] if sandbox else []
        process = await asyncio.create_subprocess_exec(
            *inside, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _ = await asyncio.wait_for(process.communicate(), seconds)
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def serve(self, sandbox: Sandbox, port: int = 80) -> None:
        """A web server in the sandbox whose page is the container's name."""
        home = self.www / sandbox.container_id
        home.mkdir()
        (home / "index.html").write_text(sandbox.name)
        self.spawn(sandbox, "busybox", "httpd", "-f", "-p", str(port), "-h", str(home))
        for _ in range(100):
            code, _ = await self.call(sandbox, "curl", "-s", f"http://127.0.0.1:{port}/")
            if code == 0:
                return
        raise AssertionError("the web server does not answer")

    async def fetch(self, sandbox: Sandbox | None, where: str) -> str | None:
        """The page at `where` as seen from the sandbox; None if nobody answers within two seconds."""
        code, output = await self.call(sandbox, "curl", "-s", "-m", "2", f"http://{where}/")
        return output if code == 0 else None

    async def resolve(self, sandbox: Sandbox, name: str, kind: str = "A") -> list[str]:
        """The answers of 127.0.0.11 (kind A, AAAA, PTR); by TCP with kind `A+tcp`."""
        code = (
            "import sys, socket, dnslib\n"
            "name, kind = sys.argv[1:]\n"
            "question = dnslib.DNSRecord.question(name, kind.split('+')[0])\n"
            "answer = question.send('127.0.0.11', 53, tcp='+' in kind, timeout=5)\n"
            "reply = dnslib.DNSRecord.parse(answer)\n"
            "print(dnslib.RCODE[reply.header.rcode], *[record.rdata for record in reply.rr])\n"
        )
        _, output = await self.call(sandbox, sys.executable, "-c", code, name, kind)
        return output.split()


def host_address() -> str:
    """The address of this host that faces the world (no packet is sent)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
        return address


@dataclass
class Neighbour:
    """Another host on a wire to this one: its namespace, its addresses, and this host's on the `wire`."""

    path: Path
    namespace: int
    address: str
    here: str
    wire: str
    address6: str = "fd77::2"
    here6: str = "fd77::1"


@contextmanager
def neighbour(directory: Path, *, knows_the_way: bool) -> Iterator[Neighbour]:
    """Another host; with `knows_the_way` its default route leads to this one."""
    path, name = directory / "neighbour", f"wire{secrets.token_hex(3)}"
    here, there = IPv4Interface("198.18.77.1/30"), IPv4Interface("198.18.77.2/30")
    fd = namespace.create(path)
    try:
        with Route() as route:
            route.request(
                netlink.add_veth(name, 0, 1500, peer="eth0", peer_mac=b"\x02\x42\0\0\0\1", namespace=fd)
            )
            index = route.index(name)
            route.request(*(netlink.add_address(index, each) for each in (here, IPv6Interface("fd77::1/64"))))
        with namespace.inside(fd):
            within = Route()
        with within:
            index = within.index("eth0")
            addresses = (there, IPv6Interface("fd77::2/64"))
            within.request(*(netlink.add_address(index, each) for each in addresses), netlink.set_up(index))
            if knows_the_way:
                ways = (IPv4Address(here.ip), IPv6Address("fd77::1"))
                within.request(*map(netlink.add_default_route, ways))
        yield Neighbour(path, fd, str(there.ip), str(here.ip), name)
    finally:
        namespace.remove(path)
        os.close(fd)
