"""What hangs on what: this host's interfaces, the bridges of our networks, and who is plugged into them.

Interfaces, addresses, ports of bridges and the way out are read from the kernel, rtnetlink(7), at the moment
of the call; which container a port is whose, from the sandboxes.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any

from dockmagic_runtime.kernel.netlink import Link, Route
from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.network import Network
from dockmagic_runtime.networks.sandbox import Sandbox

Json = dict[str, Any]

# Any address of the world: the kernel is asked for the way to it, nothing is sent.
_SOMEWHERE = IPv4Address("1.1.1.1")


def read(networks: Iterable[Network], sandboxes: Iterable[Sandbox], route: Route) -> Json:
    """`host`, `networks`, and `endpoints` of the running containers by their ids."""
    links = {link.name: link for link in route.links()}
    held = route.addresses()
    addresses = {
        name: [str(each) for each in held.get(link.index, ()) if not each.is_link_local]
        for name, link in links.items()
    }
    networks = list(networks)
    ours = {each.interface for each in networks}
    return {
        "host": {
            "interfaces": [
                {"name": name, "addresses": found, "up": links[name].up}
                for name, found in addresses.items()
                if found and name not in ours and name != "lo"
            ],
            "way_out": _way_out(route, links),
        },
        "networks": [_network(each, links, addresses) for each in networks],
        "endpoints": {
            each.container_id: [_endpoint(endpoint, links) for endpoint in each.endpoints]
            for each in sandboxes
        },
    }


def _way_out(route: Route, links: dict[str, Link]) -> Json | None:
    try:
        way = route.way_to(_SOMEWHERE)
    except OSError:
        return None  # this host has none
    name = next((link.name for link in links.values() if link.index == way.interface), "")
    return {"interface": name, "gateway": way.gateway, "address": way.source}


def _network(network: Network, links: dict[str, Link], addresses: dict[str, list[str]]) -> Json:
    link = links.get(network.interface)
    return {
        "id": network.id,
        "name": network.name,
        "driver": network.driver,
        "interface": network.interface,
        "up": link is not None and link.up,
        "addresses": addresses.get(network.interface, []) if network.bridged else [],
        "subnets": [str(pool.subnet) for pool in network.pools],
        "internal": network.internal,
    }


def _endpoint(endpoint: Endpoint, links: dict[str, Link]) -> Json:
    """`port` is the bridge's port that the container hangs on, if the kernel has it there."""
    port, bridge = links.get(endpoint.host_interface), links.get(endpoint.network.interface)
    plugged = port is not None and bridge is not None and port.master == bridge.index
    return {
        "network": endpoint.network.name,
        "interface": endpoint.interface,
        "addresses": [str(each) for each in endpoint.addresses] if endpoint.network.addressed else [],
        "mac": endpoint.mac,
        "port": endpoint.host_interface if plugged else "",
    }
