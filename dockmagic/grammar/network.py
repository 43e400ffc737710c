"""`docker network …`: `create` and `connect` return the network, `ls` a table."""

from typing import Any

import click

from dockmagic.grammar import pruning, rows
from dockmagic.grammar.endpoints import driver_option
from dockmagic.grammar.filters import Filter, encoded
from dockmagic.grammar.kinds import INTEGER, Kind
from dockmagic.grammar.listing import (
    filter_option,
    format_option,
    inspected,
    listed,
    listing_options,
    no_trunc_option,
)
from dockmagic.grammar.pools import pools
from dockmagic.grammar.pruning import force_switch
from dockmagic.grammar.session import Session, each
from dockmagic.grammar.specifications import LABEL, PAIR, halves
from dockmagic.grammar.syntax import DockerGroup, argument, option, switch
from dockmagic.grammar.values import Names

network = DockerGroup("network", help="Manage networks")

DRIVER_OPTION = Kind("key=value", driver_option)
NETWORK_FIELDS = {"NETWORK ID": "ID", "NAME": "Name", "DRIVER": "Driver", "SCOPE": "Scope"}


@network.command("ls", help="List networks")
@listing_options
@no_trunc_option
@click.pass_obj
def ls(session: Session, filter: tuple[Filter, ...], format: str | None, no_trunc: bool, quiet: bool) -> Any:
    entries = session.get("/networks", filters=encoded(filter))
    found = [
        rows.of_network(entry, no_trunc=no_trunc)
        for entry in sorted(entries, key=lambda entry: rows.natural(entry["Name"]))
    ]
    names = "ID" if quiet else None
    return listed(found, NETWORK_FIELDS, "Networks", empty="No networks.", format=format, names=names)


network.add_command(ls, "list")


@network.command("create", help="Create a network")
@switch("--attachable", help="Enable manual container attachment")
@option("--aux-address", multiple=True, help="Auxiliary IPv4 or IPv6 addresses used by Network driver")
@option("--driver", "-d", default="bridge", help="Driver to manage the Network")
@option("--gateway", multiple=True, help="IPv4 or IPv6 Gateway for the master subnet")
@switch("--internal", help="Restrict external access to the network")
@option("--ip-range", multiple=True, help="Allocate container ip from a sub-range")
@option("--ipam-driver", default="default", help="IP Address Management Driver")
@option("--ipam-opt", multiple=True, type=PAIR, help="Set IPAM driver specific options")
@switch("--ipv6", help="Enable IPv6 networking")
@switch("--ipv4", default=True, help="Enable or disable IPv4 address assignment (default true)")
@option("--label", multiple=True, type=LABEL, help="Set metadata on a network")
@option("--opt", "-o", multiple=True, type=PAIR, help="Set driver specific options")
@option("--scope", default="", help="Control the network's scope")
@option("--subnet", multiple=True, help="Subnet in CIDR format that represents a network segment")
@switch("--config-only", help="Create a configuration only network")
@option("--config-from", help="The network from which to copy the configuration")
@switch("--ingress", help="Create swarm routing-mesh network")
@argument("name", "NETWORK")
@click.pass_obj
def create(session: Session, name: str, **given: Any) -> Any:
    body = {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": given["driver"],
        "Internal": given["internal"],
        "Attachable": given["attachable"],
        "EnableIPv6": given["ipv6"],
        "ConfigOnly": given["config_only"],
        "Ingress": given["ingress"],
        "Options": dict(given["opt"]),
        "Labels": dict(map(halves, given["label"])),
        "IPAM": {
            "Driver": given["ipam_driver"],
            "Options": dict(given["ipam_opt"]),
            "Config": pools(given["subnet"], given["gateway"], given["ip_range"], given["aux_address"]),
        },
    }
    if not given["ipv4"]:
        body["EnableIPv4"] = False
    if given["scope"]:
        body["Scope"] = given["scope"]
    if given["config_from"]:
        body["ConfigFrom"] = {"Network": given["config_from"]}
    answer = session.post("/networks/create", body)
    if answer.get("Warning"):
        session.warn(answer["Warning"])
    return session.client.networks.get(answer["Id"])


@network.command("rm", help="Remove one or more networks")
@switch("--force", "-f", help="Do not error if the network does not exist")
@argument("networks", "NETWORK [NETWORK...]", nargs=-1, required=True)
@click.pass_obj
def rm(session: Session, networks: tuple[str, ...], force: bool) -> Names:
    import docker.errors

    def remove(name: str) -> str:
        try:
            session.api.remove_network(name)
        except docker.errors.NotFound:
            if not force:
                raise
        return name

    return Names(each(networks, remove))


network.add_command(rm, "remove")


@network.command("inspect", help="Display detailed information on one or more networks")
@format_option("--format", "-f")
@switch("--verbose", "-v", help="Verbose output for diagnostics")
@argument("networks", "NETWORK [NETWORK...]", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, networks: tuple[str, ...], format: str | None, verbose: bool) -> Any:
    return inspected(
        each(networks, lambda name: session.get(f"/networks/{name}", verbose=int(verbose))), format
    )


@network.command("connect", help="Connect a container to a network")
@option("--alias", multiple=True, help="Add network-scoped alias for the container")
@option("--driver-opt", multiple=True, type=DRIVER_OPTION, help="Driver options for the network")
@option("--gw-priority", type=INTEGER, since="1.48", help="Highest gw-priority provides the default gateway")
@option("--ip", help="IPv4 address (e.g. '172.30.100.104')")
@option("--ip6", help="IPv6 address (e.g. '2001:db8::33')")
@option("--link", multiple=True, help="Add link to another container")
@option("--link-local-ip", multiple=True, help="Add a link-local address for the container")
@argument("name", "NETWORK")
@argument("container", "CONTAINER")
@click.pass_obj
def connect(session: Session, name: str, container: str, **given: Any) -> Any:
    addresses = {
        "IPv4Address": given["ip"],
        "IPv6Address": given["ip6"],
        "LinkLocalIPs": list(given["link_local_ip"]),
    }
    endpoint = {
        "Aliases": list(given["alias"]),
        "Links": list(given["link"]),
        "DriverOpts": dict(given["driver_opt"]),
        "IPAMConfig": {key: value for key, value in addresses.items() if value},
        "GwPriority": given["gw_priority"],
    }
    filled = {key: value for key, value in endpoint.items() if value}
    session.post(f"/networks/{name}/connect", {"Container": container, "EndpointConfig": filled})
    return session.client.networks.get(name)


@network.command("disconnect", help="Disconnect a container from a network")
@switch("--force", "-f", help="Force the container to disconnect from a network")
@argument("name", "NETWORK")
@argument("container", "CONTAINER")
@click.pass_obj
def disconnect(session: Session, name: str, container: str, force: bool) -> Any:
    session.post(f"/networks/{name}/disconnect", {"Container": container, "Force": force})
    return session.client.networks.get(name)


@network.command("prune", help="Remove all unused networks")
@filter_option()
@force_switch
@click.pass_obj
def prune(session: Session, filter: tuple[Filter, ...], force: bool) -> Names:
    return pruning.prune(session, pruning.networks(filter), force=force)


@network.command("topology", help="Show networks, containers, ports and this host as a map (dockmagic)")
@switch("--live", "-l", help="Draw it again whenever something changes")
@click.pass_obj
def topology(session: Session, live: bool) -> Any:
    from dockmagic.views.topology import Topology

    found = Topology(session.client)
    return found.panel() if live else found


@network.command("trace", help="Show the path of a packet between containers, hop by hop (dockmagic)")
@argument("source", "CONTAINER|host")
@argument("target", "CONTAINER|ADDRESS")
@argument("port", "[PORT]", required=False, type=INTEGER)
@click.pass_obj
def trace(session: Session, source: str, target: str, port: int | None) -> Any:
    from dockmagic.views.trace import Trace

    return Trace(session.client, source, target, port)
