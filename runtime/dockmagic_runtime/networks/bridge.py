"""The driver `bridge`: one Linux bridge per network, with the gateway's address on it.

A container hangs on it by a veth pair whose other end is in the container's namespace. Nobody removes that
pair: it goes with the namespace, in the kernel's own time. That may be minutes, for TCP keeps the namespace
of a dead container until its last packets are acknowledged; a bridge that goes takes what is left of them
along.
"""

import errno
import hashlib
import re
from ipaddress import AddressValueError, IPv4Address, ip_interface
from pathlib import Path

from dockmagic_runtime.errors import Forbidden, InvalidParameter
from dockmagic_runtime.kernel import netlink
from dockmagic_runtime.kernel.netlink import Route
from dockmagic_runtime.networks import mac
from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.network import Network

_LINKS = Path("/sys/class/net")
_PAIR = re.compile(r"veth[0-9a-f]{7}")
_INTERFACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_CONF = Path("/proc/sys/net/ipv4/conf")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_CONF6 = Path("/proc/sys/net/ipv6/conf")


def _mac(network: Network) -> bytes:
    return b"\x02\x42" + hashlib.sha256(network.id.encode()).digest()[:4]


def settle(network: Network) -> None:
    """Raises InvalidParameter for an option out of range, Forbidden for a name that is taken."""
    network.interface = network.options.get("com.docker.network.bridge.name") or f"br-{network.id[:12]}"
    if len(network.interface.encode()) > 15 or not _INTERFACE.fullmatch(network.interface):
        raise InvalidParameter(f"invalid bridge name: {network.interface}")
    try:
        IPv4Address(network.host_binding)
    except AddressValueError:
        raise InvalidParameter(f"invalid IP address: {network.host_binding}") from None
    with Route() as route:
        if route.has(network.interface):
            raise Forbidden(f"bridge name {network.interface} is in use by another interface")


def ensure(route: Route, network: Network) -> None:
    """Make the bridge, or take over the one that is there, whatever state a crash left it in."""
    if network.pool6:
        enable_forwarding6()
    there = route.has(network.interface)
    if not there:
        route.request(netlink.add_bridge(network.interface, _mac(network), network.mtu))
    index = route.index(network.interface)
    present = route.addresses().get(index, ()) if there else ()
    addresses = [ip_interface((pool.gateway, pool.subnet.prefixlen)) for pool in network.pools]
    missing = [netlink.add_address(index, address) for address in addresses if address not in present]
    route.request(*missing, netlink.set_up(index))
    # Answers to what this host sent from 127.0.0.1 come back by here; `ruleset` keeps containers from more.
    (_CONF / network.interface / "route_localnet").write_text("1")


def remove(network: Network) -> None:
    """With the pairs of containers that are no more. What somebody else has hung on it stays."""
    ports = _LINKS / network.interface / "brif"
    for port in list(ports.iterdir()) if ports.exists() else ():
        if _PAIR.fullmatch(port.name):
            remove_interface(port.name)
    remove_interface(network.interface)


def attach(route: Route, endpoint: Endpoint, namespace: int) -> None:
    """A veth pair between the bridge and `namespace`."""
    network = endpoint.network
    route.request(
        netlink.add_veth(
            endpoint.host_interface,
            route.index(network.interface),
            network.mtu,
            peer=endpoint.interface,
            peer_mac=mac.packed(endpoint.mac),
            namespace=namespace,
        )
    )


def remove_interface(interface: str) -> None:
    """Remove an interface of ours (tens of milliseconds). It is no error if there is none."""
    with Route() as route:
        try:
            route.request(netlink.delete_link(route.index(interface)))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise


def enable_forwarding() -> None:
    """Let this host route, as Docker does; left on afterwards, for others may count on it by then."""
    if _FORWARDING.read_text().strip() != "1":
        _FORWARDING.write_text("1")


def enable_forwarding6() -> None:
    """The same for IPv6, with the first network that has it.

    A host that routes no longer listens to the routers around it, and would lose its own way out: those of
    its interfaces that did are told to go on (accept_ra 2).
    """
    forwarding = _CONF6 / "all" / "forwarding"
    if forwarding.read_text().strip() == "1":
        return
    for listens in _CONF6.glob("*/accept_ra"):
        if listens.read_text().strip() == "1":
            listens.write_text("2")
    forwarding.write_text("1")
