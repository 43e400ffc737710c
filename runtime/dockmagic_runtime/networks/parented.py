"""The drivers `macvlan` and `ipvlan`: containers on the network of one of this host's own interfaces.

A container's interface hangs on a `parent` (Documentation/networking/ipvlan.rst of the kernel): with macvlan
it has a MAC address of its own there, with ipvlan that of the parent. Nothing is translated and nothing is
published: other hosts see the container's address. This host itself does not, which is how these interfaces
work.

`parent=eth0.10` is made, if it is not there, as the interface of VLAN 10 on eth0. Without a parent there is
one that leads nowhere.
"""

import re

from dockmagic_runtime.errors import InvalidParameter, NotImplementedHere
from dockmagic_runtime.kernel import netlink
from dockmagic_runtime.kernel.netlink import Message, Route
from dockmagic_runtime.networks import bridge, mac
from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.network import Network

_VLAN = re.compile(r"(.+)\.(\d{1,4})")


class Parented:
    """One of the two; `modes` are the values of its option `<kind>_mode`, the first the default."""

    def __init__(self, kind: str, modes: tuple[str, ...]) -> None:
        self._kind = kind
        self._modes = modes

    def settle(self, network: Network) -> None:
        if self._mode(network) not in self._modes:
            raise InvalidParameter(
                f"requested {self._kind} mode '{self._mode(network)}' is not valid, "
                f"'{self._modes[0]}' mode is the {self._kind} driver default"
            )
        parent = network.options.get("parent") or ""
        with Route() as route:
            _check_kernel(route, self._kind)
            if parent and route.has(parent):
                return  # it is somebody else's: never removed
            if parent and not _VLAN.fullmatch(parent):
                raise InvalidParameter(f"-o parent interface was not found on the host: {parent}")
            if parent and not _vlan_of(parent, route):
                raise InvalidParameter(
                    f"-o parent interface {parent} is no VLAN (1 to 4094) of an interface of this host"
                )
            if parent:
                _check_kernel(route, "vlan")
        # Without a parent nobody else could be reached anyway.
        network.internal = network.internal or not parent
        network.interface = parent or f"dm-{network.id[:11]}"

    def ensure(self, route: Route, network: Network) -> None:
        if not network.interface or route.has(network.interface):
            return
        if vlan := _vlan_of(network.interface, route):
            parent, number = vlan
            route.request(netlink.add_vlan(network.interface, route.index(parent), number))
        else:
            peer = network.interface + "p"
            route.request(netlink.add_pair(network.interface, peer))
            route.request(*(netlink.set_up(route.index(name)) for name in (network.interface, peer)))

    def remove(self, network: Network) -> None:
        if network.interface:
            bridge.remove_interface(network.interface)

    def attach(self, route: Route, endpoint: Endpoint, namespace: int) -> None:
        route.request(self._request(endpoint, route.index(endpoint.network.parent), namespace))

    def _request(self, endpoint: Endpoint, parent: int, namespace: int) -> Message:
        network = endpoint.network
        mode = self._mode(network)
        if self._kind == "ipvlan":
            return netlink.add_ipvlan(endpoint.interface, parent, mode, network.mtu, namespace)
        octets = mac.packed(endpoint.mac)
        return netlink.add_macvlan(endpoint.interface, parent, mode, octets, network.mtu, namespace)

    def _mode(self, network: Network) -> str:
        return network.options.get(f"{self._kind}_mode") or self._modes[0]


def _vlan_of(name: str, route: Route) -> tuple[str, int] | None:
    """The interface and the number that a name like `eth0.10` stands for."""
    found = _VLAN.fullmatch(name)
    if not found or not 0 < int(found[2]) < 4095 or not route.has(found[1]):
        return None
    return found[1], int(found[2])


def _check_kernel(route: Route, kind: str) -> None:
    if not route.knows(kind):
        raise NotImplementedHere(f"the kernel of this host has no interfaces of the kind {kind}")


MACVLAN = Parented("macvlan", ("bridge", "private", "vepa", "passthru"))
IPVLAN = Parented("ipvlan", ("l2", "l3", "l3s"))
