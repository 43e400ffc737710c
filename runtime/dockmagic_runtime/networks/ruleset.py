"""All packet rules of the engine: one nftables table of its own, fixed rules over sets that name what exists.

A new network is an element in the sets below, a published port one element of the map `published`; no rule
is ever added, so thousands of ports cost each packet what one does. The life of a packet to `-p 8080:80`:

    prerouting / output   to an address of this host: look (protocol, address, port) up in `published`,
                          then (protocol, 0.0.0.0, port), and rewrite the destination
    forward               into one of our bridges come: its own containers, answers, and what was published
    postrouting           leaving for the world: this host's address. A container that comes back to a
                          container by a published port, and this host's own 127.0.0.1: the bridge's address,
                          so that the answer takes the same way back

Other tables are left alone. Replacing the whole table is one transaction, so nothing is lost meanwhile.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from dockmagic_runtime.kernel.nftables import Nftables
from dockmagic_runtime.networks.network import Network

# The address of `ip daddr & 0.0.0.0` in a lookup is a way to write a constant inside a concatenation.
_TABLE = """
add table inet {table}
delete table inet {table}
table inet {table} {{
    set bridges {{ type ifname; }}
    set within {{ type ifname . ifname; }}
    set internal {{ type ifname; }}
    set masqueraded {{ type ipv4_addr; flags interval; }}
    map published {{
        type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service;
    }}
    chain publish {{
        dnat ip to meta l4proto . ip daddr . th dport map @published
        dnat ip to meta l4proto . (ip daddr & 0.0.0.0) . th dport map @published
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        fib daddr type local meta l4proto {{ tcp, udp, sctp }} jump publish
    }}
    chain output {{
        type nat hook output priority -100;
        fib daddr type local meta l4proto {{ tcp, udp, sctp }} jump publish
    }}
    chain loopback {{
        type filter hook prerouting priority raw;
        iifname @bridges ip daddr 127.0.0.0/8 drop
    }}
    chain forward {{
        type filter hook forward priority filter;
        iifname . oifname @within accept
        ct state established,related accept
        iifname @internal drop
        oifname @internal drop
        oifname @bridges ct status dnat accept
        oifname @bridges drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        iifname @bridges oifname @bridges ct status dnat masquerade
        ip saddr 127.0.0.0/8 oifname @bridges masquerade
        ip saddr @masqueraded oifname != @bridges masquerade
    }}
}}
"""


@dataclass(frozen=True)
class Publication:
    """One published port: what `published` says. `host_ip` 0.0.0.0 stands for every address of this host."""

    protocol: str
    host_ip: IPv4Address
    host_port: int
    container_ip: IPv4Address
    container_port: int

    @property
    def key(self) -> str:
        return f"{self.protocol} . {self.host_ip} . {self.host_port}"

    @property
    def element(self) -> str:
        return f"{self.key} : {self.container_ip} . {self.container_port}"


class Ruleset:
    """The table `name`; every change is one transaction."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nft = Nftables()
        self.installed = False

    def install(self, networks: Iterable[Network], publications: Iterable[Publication]) -> None:
        """Make the table, or replace it by one with exactly these networks and ports."""
        elements = [line for network in networks for line in self._elements("add", network)]
        if ports := [publication.element for publication in publications]:
            elements.append(f"add element inet {self._name} published {{ {', '.join(ports)} }}")
        self._nft.run(_TABLE.format(table=self._name) + "\n".join(elements))
        self.installed = True

    def remove(self) -> None:
        self._nft.run(f"add table inet {self._name}; delete table inet {self._name}")
        self.installed = False

    def close(self) -> None:
        self._nft.close()

    def add_network(self, network: Network) -> None:
        self._nft.run("\n".join(self._elements("add", network)))

    def remove_network(self, network: Network) -> None:
        self._nft.run("\n".join(self._elements("delete", network)))

    def publish(self, publications: Iterable[Publication]) -> None:
        if text := ", ".join(publication.element for publication in publications):
            self._nft.run(f"add element inet {self._name} published {{ {text} }}")

    def unpublish(self, publications: Iterable[Publication]) -> None:
        if text := ", ".join(publication.key for publication in publications):
            self._nft.run(f"delete element inet {self._name} published {{ {text} }}")

    def published(self) -> list[Publication]:
        """What the kernel's map holds now."""
        for item in self._nft.query(f"list map inet {self._name} published"):
            if "map" in item:
                return [_publication(element) for element in item["map"].get("elem", [])]
        return []

    def _elements(self, verb: str, network: Network) -> list[str]:
        bridge = f'"{network.interface}"'
        sets = {"bridges": bridge}
        if network.icc:
            sets["within"] = f"{bridge} . {bridge}"
        if network.internal:
            sets["internal"] = bridge
        elif network.masquerade:
            sets["masqueraded"] = str(network.pool.subnet)
        return [f"{verb} element inet {self._name} {name} {{ {value} }}" for name, value in sets.items()]


def _publication(element: list[Any]) -> Publication:
    """One `[key, value]` pair of libnftables' JSON."""
    protocol, host_ip, host_port = element[0]["concat"]
    container_ip, container_port = element[1]["concat"]
    return Publication(protocol, IPv4Address(host_ip), host_port, IPv4Address(container_ip), container_port)
