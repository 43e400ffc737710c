"""What kinds of network there are, and what each has to do.

A driver is four functions over a `Network`'s record: nothing of a network is kept anywhere but in that
record and in the kernel, so an engine that starts again calls `ensure` for each, and one that ends calls
`remove`. A driver that reaches over hosts is one more: its `ensure` makes a VXLAN interface on a bridge, its
pools come from whoever coordinates the hosts, and what it learns of their containers goes into that one.
"""

from typing import Protocol

from dockmagic_runtime.errors import Forbidden, NotFound, NotImplementedHere
from dockmagic_runtime.kernel.netlink import Route
from dockmagic_runtime.networks import bridge
from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.network import Network
from dockmagic_runtime.networks.parented import IPVLAN, MACVLAN


class Driver(Protocol):
    def settle(self, network: Network) -> None:
        """Check the options of a new network and name its `interface`. Raises InvalidParameter."""

    def ensure(self, route: Route, network: Network) -> None:
        """Make what the network needs on this host, whatever of it is there. Raises OSError."""

    def remove(self, network: Network) -> None:
        """In a thread: take that away. No error for what is not there."""

    def attach(self, route: Route, endpoint: Endpoint, namespace: int) -> None:
        """In a thread: give `namespace` (an fd) the endpoint's interface, down and without addresses."""


DRIVERS: dict[str, Driver] = {"bridge": bridge, "macvlan": MACVLAN, "ipvlan": IPVLAN}


def driver(name: str) -> Driver:
    """Raises Forbidden, NotFound or NotImplementedHere in Docker's words."""
    if name in ("host", "null"):
        raise Forbidden(f'only one instance of "{name}" network is allowed')
    if name == "overlay":
        raise NotImplementedHere(
            "the network driver overlay is not supported: it connects engines that share a coordinator, and "
            "this engine is alone; publish ports, or put containers on the hosts' own network with macvlan"
        )
    if name not in DRIVERS:
        raise NotFound(f'could not find plugin {name} in v1 plugin registry: plugin "{name}" not found')
    return DRIVERS[name]
