"""Who is called what in which network: what the resolvers answer from.

A name is a container's name, an alias, its short id or hostname; with `.network` behind it, it means
that network only. Several containers may share an alias.
"""

from collections.abc import Iterable

from dockmagic_runtime.networks.endpoints import Endpoint
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.network import Network


class Names:
    """The names of all endpoints in networks that resolve."""

    def __init__(self) -> None:
        self._endpoints: dict[str, dict[str, list[Endpoint]]] = {}
        self._owners: dict[tuple[str, Address], str] = {}

    def add(self, endpoint: Endpoint, container: str, hostname: str) -> None:
        if not endpoint.network.resolves:
            return
        known = self._endpoints.setdefault(endpoint.network.id, {})
        for name in endpoint.names(container, hostname):
            known.setdefault(name.lower(), []).append(endpoint)
        for address in endpoint.addresses:
            self._owners[endpoint.network.id, address] = container

    def remove(self, endpoint: Endpoint) -> None:
        known = self._endpoints.get(endpoint.network.id, {})
        for name in [name for name, endpoints in known.items() if endpoint in endpoints]:
            known[name].remove(endpoint)
            if not known[name]:
                del known[name]
        for address in endpoint.addresses:
            self._owners.pop((endpoint.network.id, address), None)

    def addresses(self, name: str, networks: Iterable[Network]) -> list[Address] | None:
        """The addresses (IPv4, IPv6) of a lower-case name seen from these networks; None if nobody has it."""
        found: list[Address] = []
        for network in networks:
            known = self._endpoints.get(network.id, {})
            short = name.removesuffix("." + network.name.lower())
            for endpoint in known.get(name) or known.get(short) or ():
                found += endpoint.addresses
        return found or None

    def name_of(self, address: Address, networks: Iterable[Network]) -> str | None:
        """`container.network` of the container with this address."""
        for network in networks:
            if owner := self._owners.get((network.id, address)):
                return f"{owner}.{network.name}"
        return None
