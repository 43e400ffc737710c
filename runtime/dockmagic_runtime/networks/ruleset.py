"""All packet rules of the engine: one nftables table of its own, fixed rules over sets that name what exists.

A new network is an element in the sets below, a published port one element of the map `published`; no rule
is ever added, so thousands of ports cost each packet what one does. The life of a packet to `-p 8080:80`:

    prerouting / output   to an address of this host: look (protocol, address, port) up in `published`,
                          then (protocol, 0.0.0.0, port), and rewrite the destination
    forward               into one of our bridges come: its own containers, answers, and what was published
    postrouting           leaving for the world: this host's address. A container that comes back to a
                          container by a published port, and this host's own 127.0.0.1: the bridge's address,
                          so that the answer takes the same way back

IPv6 has sets and maps of its own for the same. Its ::1 is left alone: no packet can leave the loopback
interface with that address, so a published port is reached at 127.0.0.1, or at [::] by any other address.

Other tables are left alone. Replacing the whole table is one transaction, so nothing is lost meanwhile.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from dockmagic_runtime.kernel.nftables import Nftables, NftablesError
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.network import Network

_log = logging.getLogger(__name__)

# The address of `ip daddr & 0.0.0.0` in a lookup is a way to write a constant inside a concatenation.
_TABLE = """
add table inet {table}
delete table inet {table}
table inet {table} {{
    set bridges {{ type ifname; }}
    set within {{ type ifname . ifname; }}
    set internal {{ type ifname; }}
    set subnets {{ type ipv4_addr; flags interval; }}
    set subnets6 {{ type ipv6_addr; flags interval; }}
    set masqueraded {{ type ipv4_addr; flags interval; }}
    set masqueraded6 {{ type ipv6_addr; flags interval; }}
    map published {{
        type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service;
    }}
    map published6 {{
        type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service;
    }}
    chain publish {{
        dnat ip to meta l4proto . ip daddr . th dport map @published
        dnat ip to meta l4proto . (ip daddr & 0.0.0.0) . th dport map @published
        ip6 daddr ::1 return
        dnat ip6 to meta l4proto . ip6 daddr . th dport map @published6
        dnat ip6 to meta l4proto . (ip6 daddr & ::) . th dport map @published6
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
        ip daddr 127.0.0.0/8 iifname @bridges drop
    }}
    chain forward {{
        type filter hook forward priority filter;
        ct state established,related accept
        iifname . oifname @within accept
        iifname @internal drop
        oifname @internal drop
        oifname @bridges ct status dnat accept
        oifname @bridges drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip saddr @subnets oifname @bridges ct status dnat masquerade
        ip saddr 127.0.0.0/8 oifname @bridges masquerade
        ip saddr @masqueraded oifname != @bridges masquerade
        ip6 saddr @subnets6 oifname @bridges ct status dnat masquerade
        ip6 saddr @masqueraded6 oifname != @bridges masquerade
    }}
}}
"""


@dataclass(frozen=True)
class Publication:
    """One published port: what `published` says. `host_ip` 0.0.0.0 stands for every address of this host.

    Both addresses are of one family, and the IPv6 ones are in a map of their own.
    """

    protocol: str
    host_ip: Address
    host_port: int
    container_ip: Address
    container_port: int

    @property
    def map(self) -> str:
        return "published" if self.host_ip.version == 4 else "published6"

    @property
    def key(self) -> str:
        return f"{self.protocol} . {self.host_ip} . {self.host_port}"

    @property
    def element(self) -> str:
        return f"{self.key} : {self.container_ip} . {self.container_port}"


class Ruleset:
    """The table `name`; every change is one transaction.

    Somebody else may flush all tables of the host (`nft flush ruleset`, the restart of a firewall service).
    The next change here then finds its table gone, and puts back the whole of what should be there.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nft = Nftables()
        self._networks: list[Network] = []
        self._publications: set[Publication] = set()

    def install(self, networks: Iterable[Network], publications: Iterable[Publication]) -> None:
        """Make the table, or replace it by one with exactly these networks and ports."""
        self._networks, self._publications = list(networks), set(publications)
        self._install()

    def remove(self) -> None:
        self._nft.remove_table(self._name)

    def close(self) -> None:
        self._nft.close()

    def add_network(self, network: Network) -> None:
        self._networks.append(network)
        self._change("\n".join(self._elements("add", network)))

    def remove_network(self, network: Network) -> None:
        """No error if it is not there."""
        if network in self._networks:
            self._networks.remove(network)
            self._change("\n".join(self._elements("delete", network)))

    def publish(self, publications: Iterable[Publication]) -> None:
        if new := [each for each in publications if each not in self._publications]:
            self._publications.update(new)
            self._change(self._ports("add", new))

    def unpublish(self, publications: Iterable[Publication]) -> None:
        """No error for those that are not published."""
        if old := [each for each in publications if each in self._publications]:
            self._publications.difference_update(old)
            self._change(self._ports("delete", old))

    def _change(self, commands: str) -> None:
        try:
            self._nft.run(commands)
        except NftablesError as error:
            _log.warning("the table %s is not as it was left and is made anew: %s", self._name, error)
            self._install()

    def _install(self) -> None:
        elements = [line for network in self._networks for line in self._elements("add", network)]
        if self._publications:
            elements.append(self._ports("add", self._publications))
        self._nft.run(_TABLE.format(table=self._name) + "\n".join(elements))

    def _ports(self, verb: str, publications: Iterable[Publication]) -> str:
        elements: dict[str, list[str]] = {}
        for each in publications:
            elements.setdefault(each.map, []).append(each.element if verb == "add" else each.key)
        return "\n".join(
            f"{verb} element inet {self._name} {name} {{ {', '.join(each)} }}"
            for name, each in elements.items()
        )

    def published(self) -> list[Publication]:
        """What the kernel's maps hold now."""
        return [
            _publication(element)
            for name in ("published", "published6")
            for item in self._nft.query(f"list map inet {self._name} {name}")
            for element in item.get("map", {}).get("elem", [])
        ]

    def _elements(self, verb: str, network: Network) -> list[str]:
        bridge = f'"{network.interface}"'
        sets = {"bridges": bridge}
        for pool, suffix in zip(network.pools, ("", "6"), strict=False):
            sets["subnets" + suffix] = str(pool.subnet)
            if network.masquerade and not network.internal:
                sets["masqueraded" + suffix] = str(pool.subnet)
        if network.icc:
            sets["within"] = f"{bridge} . {bridge}"
        if network.internal:
            sets["internal"] = bridge
        return [f"{verb} element inet {self._name} {name} {{ {value} }}" for name, value in sets.items()]


def _publication(element: list[Any]) -> Publication:
    """One `[key, value]` pair of libnftables' JSON."""
    protocol, host_ip, host_port = element[0]["concat"]
    container_ip, container_port = element[1]["concat"]
    return Publication(protocol, ip_address(host_ip), host_port, ip_address(container_ip), container_port)
