"""The driver `bridge`: one Linux bridge per network, with the gateway's address on it.

A container hangs on it by a veth pair whose other end is in the container's namespace. Nobody removes that
pair: it goes with the namespace, in the kernel's own time.
"""

import hashlib
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from dockmagic_runtime.kernel import netlink
from dockmagic_runtime.kernel.netlink import Route
from dockmagic_runtime.networks.network import Network

_CONF = Path("/proc/sys/net/ipv4/conf")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def mac_of(address: IPv4Address) -> str:
    """Docker's MAC address of a container: 02:42 and its IPv4 address."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)


def packed(mac: str) -> bytes:
    """The six bytes of a MAC address. Raises ValueError."""
    octets = bytes(int(part, 16) for part in mac.replace("-", ":").split(":"))
    if len(octets) != 6:
        raise ValueError(mac)
    return octets


def _mac(network: Network) -> bytes:
    return b"\x02\x42" + hashlib.sha256(network.id.encode()).digest()[:4]


def ensure(route: Route, network: Network) -> None:
    """Make the bridge, or take over the one that is there, whatever state a crash left it in."""
    present = {link.name: link.index for link in route.links()}
    if network.interface not in present:
        route.request(netlink.add_bridge(network.interface, _mac(network), network.mtu))
    index = route.index(network.interface)
    address = IPv4Interface((network.pool.gateway, network.pool.subnet.prefixlen))
    if address not in route.addresses().get(index, ()):
        route.request(netlink.add_address(index, address))
    route.request(netlink.set_up(index))
    # Answers to what this host sent from 127.0.0.1 come back by here; `ruleset` keeps containers from more.
    (_CONF / network.interface / "route_localnet").write_text("1")


def remove(interface: str) -> None:
    """Remove a bridge (tens of milliseconds). It is no error if there is none."""
    with Route() as route:
        present = {link.name: link.index for link in route.links()}
        if interface in present:
            route.request(netlink.delete_link(present[interface]))


def enable_forwarding() -> None:
    """Let this host route, as Docker does; left on afterwards, for others may count on it by then."""
    if _FORWARDING.read_text().strip() != "1":
        _FORWARDING.write_text("1")
