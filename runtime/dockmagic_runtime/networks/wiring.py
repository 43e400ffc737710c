"""The kernel's part of a sandbox: its namespace, an interface on each network, the resolver's sockets.

Everything here may wait for the kernel, so it is called in threads.
"""

import os
import socket
from collections.abc import Iterable

from dockmagic_runtime.kernel import paths
from dockmagic_runtime.kernel.netlink import Route
from dockmagic_runtime.networks import namespace
from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.sandbox import Sandbox

Sockets = tuple[socket.socket, socket.socket]
"""Of a resolver: for datagrams, and for streams."""


def build(new: Sandbox) -> Sockets | None:
    """Make the namespace and everything in it; gives the resolver's sockets if it needs them."""
    fd = namespace.create(new.path)
    try:
        with Route() as route:
            for endpoint in new.plugged:
                hairpin = bool(new.publications) and endpoint is new.outward
                namespace.plug(route, fd, endpoint, gateways=new.gateways(endpoint), hairpin=hairpin)
        return namespace.resolver_sockets(fd) if new.resolving else None
    finally:
        os.close(fd)


def extend(each: Sandbox, new: Endpoint, gateways: Iterable[Address], *, serving: bool) -> Sockets | None:
    """One more interface for a running container, and a resolver if it had none so far."""
    with paths.opened(each.path, os.O_RDONLY) as fd, Route() as route:
        namespace.plug(route, fd, new, gateways=gateways)
        return namespace.resolver_sockets(fd) if serving else None


def sockets(each: Sandbox) -> Sockets:
    """The resolver's sockets for a container that runs already."""
    with paths.opened(each.path, os.O_RDONLY) as fd:
        return namespace.resolver_sockets(fd, again=True)
