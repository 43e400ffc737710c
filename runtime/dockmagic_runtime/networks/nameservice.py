"""What a container is told when it asks for a name, and where it asks: its resolv.conf(5), its resolver.

In a user-defined network it asks the engine, at 127.0.0.11 of its own namespace; what is no container's name
goes on to the servers of the host, or of `--dns`. Elsewhere it asks those itself.
"""

from collections.abc import Sequence

from dockmagic_runtime.networks import namespace, resolvconf
from dockmagic_runtime.networks.ipam import Address
from dockmagic_runtime.networks.names import Names
from dockmagic_runtime.networks.sandbox import Sandbox
from dockmagic_runtime.networks.wiring import Sockets


class NameService:
    """`names` are those of all containers in networks that resolve."""

    def __init__(self) -> None:
        self.names = Names()

    def describe(self, each: Sandbox) -> None:
        """What /etc/resolv.conf of the container says."""
        host, dns = resolvconf.HostResolver(), each.dns
        search = dns.search or host.search
        if each.resolving:
            options = dns.options or [*host.options, "ndots:0"]
            each.resolv_conf = resolvconf.render([namespace.RESOLVER], search, options)
        else:
            servers = dns.servers or host.servers
            each.resolv_conf = resolvconf.render(servers, search, dns.options or host.options)

    async def serve(self, each: Sandbox, sockets: Sockets) -> None:
        """Give the container its resolver."""
        # Loaded with the first user-defined network: the DNS library takes longer to import than all of this.
        from dockmagic_runtime.networks import resolver

        upstream = each.dns.servers or resolvconf.HostResolver().servers
        each.resolver = resolver.Resolver(
            lambda name: self.addresses(each, name),
            lambda address: self.names.name_of(address, each.resolving),
            upstream if each.outward else [],
        )
        await each.resolver.serve(*sockets)

    def addresses(self, each: Sandbox, name: str) -> Sequence[Address] | None:
        """What a container finds under a name: a link's alias is its own affair, all else the network's."""
        for endpoint in each.endpoints:
            if child := endpoint.linked(name):
                return self.names.addresses(child, [endpoint.network])
        return self.names.addresses(name, each.resolving)
