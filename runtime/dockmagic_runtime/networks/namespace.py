"""The network namespace of one container, and what is set up inside it before the container runs.

A namespace is made by a thread that steps into a new one for a moment, and is kept alive by a bind mount of
its `/proc` entry, so that it needs no process. Everything inside is set up through sockets that were opened
there: a netlink or DNS socket stays in the namespace of its birth, whoever uses it.

All functions here may be called from any thread of the engine; each leaves its thread where it was.
"""

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from dockmagic_runtime.kernel import mounts, namespaces, netlink, paths
from dockmagic_runtime.kernel.netlink import Route
from dockmagic_runtime.kernel.nftables import Nftables
from dockmagic_runtime.networks.drivers import DRIVERS
from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.ipam import Address

RESOLVER = "127.0.0.11"

# The resolver has a port of its own, so that a container can itself serve DNS on port 53 of every address.
# Rewriting ports without connection tracking keeps tracking out of containers altogether.
_REDIRECT = """
table ip dockmagic {{
    chain resolver {{
        type filter hook output priority -150;
        ip daddr {address} udp dport 53 udp dport set {udp}
        ip daddr {address} tcp dport 53 tcp dport set {tcp}
        ip saddr {address} udp sport {udp} udp sport set 53
        ip saddr {address} tcp sport {tcp} tcp sport set 53
    }}
}}
"""


@cache
def _home() -> int:
    """The engine's own network namespace."""
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def create(path: Path) -> int:
    """A new network namespace, bind-mounted at `path`; its descriptor. Only `lo` is in it, still down."""
    home = _home()
    path.touch(exist_ok=False)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    try:
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with Route() as route:
            route.request(netlink.set_up(1))
    finally:
        namespaces.setns(home, namespaces.CLONE_NEWNET)
    try:
        mounts.mount(f"/proc/self/fd/{namespace}", str(path), None, mounts.MS_BIND)
    except OSError:
        os.close(namespace)
        raise
    return namespace


def remove(path: Path) -> None:
    """Let go of the namespace at `path`: with its last process it dies, and its interfaces with it."""
    if not path.exists():
        return
    while os.stat(path).st_dev != os.stat(path.parent).st_dev:  # noqa: PTH116
        mounts.umount(str(path), mounts.MNT_DETACH)
    path.unlink()


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """The calling thread is in `namespace` for the length of the block, which must not await."""
    home = _home()
    namespaces.setns(namespace, namespaces.CLONE_NEWNET)
    try:
        yield
    finally:
        namespaces.setns(home, namespaces.CLONE_NEWNET)


def plug(
    route: Route,
    namespace: int,
    endpoint: Endpoint,
    *,
    gateways: Iterable[Address] = (),
    hairpin: bool = False,
) -> None:
    """Give the namespace the interface of `endpoint`; `route` is a socket of the host's namespace.

    It also gets default routes to the `gateways`; with `hairpin` it may call its own published ports.
    """
    DRIVERS[endpoint.network.driver].attach(route, endpoint, namespace)
    if hairpin:
        route.request(netlink.hairpin(route.index(endpoint.host_interface)))
    with inside(namespace):
        within = Route()
    with within:
        index = within.index(endpoint.interface)
        within.request(
            *([] if endpoint.address6 else [netlink.no_link_local(index)]),
            *(netlink.add_address(index, address) for address in endpoint.interfaces),
            netlink.set_up(index),
            *map(netlink.add_default_route, gateways),
        )


def route_out(path: Path, gateways: Iterable[Address]) -> None:
    """Other default routes, after the interface of the former ones has gone."""
    with paths.opened(path, os.O_RDONLY) as namespace, inside(namespace):
        within = Route()
    with within:
        within.request(*map(netlink.add_default_route, gateways))


def unplug(path: Path, endpoint: Endpoint) -> None:
    """Remove an interface from a container that goes on running (tens of milliseconds)."""
    with paths.opened(path, os.O_RDONLY) as namespace, inside(namespace):
        within = Route()
    with within:
        within.request(netlink.delete_link(within.index(endpoint.interface)))


def silence(route: Route, endpoint: Endpoint) -> None:
    """What is left of the container says and learns nothing any more: its address may be given away."""
    try:
        route.request(netlink.silence(route.index(endpoint.host_interface)))
    except OSError as error:
        # The namespace, and the pair with it, may be gone already, or somebody has pulled it off its bridge.
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            raise


def resolver_sockets(namespace: int, *, again: bool = False) -> tuple[socket.socket, socket.socket]:
    """A datagram and a listening socket that serve the namespace's 127.0.0.11 port 53 from outside.

    `again` replaces the resolver of an engine that is no more.
    """
    with inside(namespace):
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        streams = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            for each in (datagrams, streams):
                each.setblocking(False)
                each.bind((RESOLVER, 0))
            streams.listen(64)
            udp, tcp = datagrams.getsockname()[1], streams.getsockname()[1]
            nft = Nftables()
            try:
                if again:
                    nft.run("add table ip dockmagic; delete table ip dockmagic")
                nft.run(_REDIRECT.format(address=RESOLVER, udp=udp, tcp=tcp))
            finally:
                nft.close()
        except OSError:
            datagrams.close()
            streams.close()
            raise
    return datagrams, streams
