"""`docker network …`: `create` and `connect` return the network, `ls` a table."""

from typing import Any

import click

from dockmagic.grammar import filters, template
from dockmagic.grammar.container import inspected
from dockmagic.grammar.options import labels
from dockmagic.grammar.session import Session, each
from dockmagic.grammar.syntax import DockerGroup, argument, option, switch
from dockmagic.grammar.values import Names

network = DockerGroup("network", help="Manage networks")

NETWORK_FIELDS = {"NETWORK ID": "ID", "NAME": "Name", "DRIVER": "Driver", "SCOPE": "Scope"}


@network.command("ls", help="List networks")
@option("--filter", "-f", multiple=True, help="Provide filter values (e.g. 'driver=bridge')")
@option("--format", help="Format output using a Go template, 'table TEMPLATE' or 'json'")
@switch("--no-trunc", help="Do not truncate the output")
@switch("--quiet", "-q", help="Only display network IDs")
@click.pass_obj
def ls(session: Session, filter: tuple[str, ...], format: str | None, no_trunc: bool, quiet: bool) -> Any:
    from dockmagic.views.tables import table

    rows = [
        {
            "ID": entry["Id"] if no_trunc else entry["Id"][:12],
            "Name": entry["Name"],
            "Driver": entry["Driver"],
            "Scope": entry["Scope"],
            "Internal": str(bool(entry.get("Internal"))).lower(),
            "IPv6": str(bool(entry.get("EnableIPv6"))).lower(),
            "CreatedAt": entry.get("Created", ""),
            "Labels": ",".join(f"{k}={v}" for k, v in (entry.get("Labels") or {}).items()),
        }
        for entry in sorted(
            session.get("/networks", filters=filters.encoded(filter)), key=lambda entry: entry["Name"]
        )
    ]
    if quiet and not format:
        return Names(row["ID"] for row in rows)
    if format:
        return template.listing(format, rows, NETWORK_FIELDS)
    cells = [[row[field] for field in NETWORK_FIELDS.values()] for row in rows]
    return table(cells, list(NETWORK_FIELDS), "Networks", empty="No networks.")


network.add_command(ls, "list")


@network.command("create", help="Create a network")
@switch("--attachable", help="Enable manual container attachment")
@option("--aux-address", multiple=True, help="Auxiliary IPv4 or IPv6 addresses used by Network driver")
@option("--driver", "-d", default="bridge", help="Driver to manage the Network")
@option("--gateway", multiple=True, help="IPv4 or IPv6 Gateway for the master subnet")
@switch("--internal", help="Restrict external access to the network")
@option("--ip-range", multiple=True, help="Allocate container ip from a sub-range")
@option("--ipam-driver", default="default", help="IP Address Management Driver")
@option("--ipam-opt", multiple=True, help="Set IPAM driver specific options")
@switch("--ipv6", help="Enable IPv6 networking")
@option("--label", multiple=True, help="Set metadata on a network")
@option("--opt", "-o", multiple=True, help="Set driver specific options")
@option("--subnet", multiple=True, help="Subnet in CIDR format that represents a network segment")
@argument("name", "NETWORK")
@click.pass_obj
def create(
    session: Session,
    name: str,
    attachable: bool,
    aux_address: tuple[str, ...],
    driver: str,
    gateway: tuple[str, ...],
    internal: bool,
    ip_range: tuple[str, ...],
    ipam_driver: str,
    ipam_opt: tuple[str, ...],
    ipv6: bool,
    label: tuple[str, ...],
    opt: tuple[str, ...],
    subnet: tuple[str, ...],
) -> Any:
    body = {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": driver,
        "Internal": internal,
        "Attachable": attachable,
        "EnableIPv6": ipv6,
        "Options": dict(text.partition("=")[::2] for text in opt),
        "Labels": labels(label, ()),
        "IPAM": {
            "Driver": ipam_driver,
            "Options": dict(text.partition("=")[::2] for text in ipam_opt),
            "Config": pools(subnet, gateway, ip_range, aux_address),
        },
    }
    answer = session.post("/networks/create", body)
    if answer.get("Warning"):
        session.warn(answer["Warning"])
    return session.client.networks.get(answer["Id"])


def pools(
    subnets: tuple[str, ...], gateways: tuple[str, ...], ranges: tuple[str, ...], auxiliary: tuple[str, ...]
) -> list[dict[str, Any]]:
    """One address pool for each subnet, with the gateway and range that lie in it."""
    import ipaddress

    from dockmagic.errors import UsageMistake

    def network_of(text: str) -> Any:
        try:
            return ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise UsageMistake(f"invalid CIDR address: {text}") from None

    result = []
    for subnet in subnets:
        whole = network_of(subnet)
        pool: dict[str, Any] = {"Subnet": subnet}
        for gateway in gateways:
            if network_of(gateway).version == whole.version and network_of(gateway).subnet_of(whole):
                pool["Gateway"] = gateway
        for part in ranges:
            if network_of(part).version == whole.version and network_of(part).subnet_of(whole):
                pool["IPRange"] = part
        for text in auxiliary:
            key, _, address = text.partition("=")
            if network_of(address).version == whole.version and network_of(address).subnet_of(whole):
                pool.setdefault("AuxiliaryAddresses", {})[key] = address
        result.append(pool)
    placed = {value for pool in result for value in (pool.get("Gateway"), pool.get("IPRange"))}
    for text in (*gateways, *ranges):
        if text not in placed:
            raise UsageMistake(f"no matching subnet for {'range' if '/' in text else 'gateway'} {text}")
    return result


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
@option("--format", "-f", help="Format output using a Go template, or 'json'")
@switch("--verbose", "-v", help="Verbose output for diagnostics")
@argument("networks", "NETWORK [NETWORK...]", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, networks: tuple[str, ...], format: str | None, verbose: bool) -> Any:
    return inspected(
        each(networks, lambda name: session.get(f"/networks/{name}", verbose=int(verbose))), format
    )


@network.command("connect", help="Connect a container to a network")
@option("--alias", multiple=True, help="Add network-scoped alias for the container")
@option("--driver-opt", multiple=True, help="Driver options for the network")
@option("--ip", help="IPv4 address (e.g. '172.30.100.104')")
@option("--ip6", help="IPv6 address (e.g. '2001:db8::33')")
@option("--link", multiple=True, help="Add link to another container")
@argument("name", "NETWORK")
@argument("container", "CONTAINER")
@click.pass_obj
def connect(
    session: Session,
    name: str,
    container: str,
    alias: tuple[str, ...],
    driver_opt: tuple[str, ...],
    ip: str | None,
    ip6: str | None,
    link: tuple[str, ...],
) -> Any:
    addresses = {key: value for key, value in (("IPv4Address", ip), ("IPv6Address", ip6)) if value}
    endpoint = {
        "Aliases": list(alias),
        "Links": list(link),
        "DriverOpts": dict(text.partition("=")[::2] for text in driver_opt),
        "IPAMConfig": addresses,
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
@option("--filter", multiple=True, help="Provide filter values (e.g. 'until=<timestamp>')")
@switch("--force", "-f", help="Has no effect: a magic does not ask")
@click.pass_obj
def prune(session: Session, filter: tuple[str, ...], force: bool) -> Names:
    answer = session.post("/networks/prune", filters=filters.encoded(filter))
    return Names(answer.get("NetworksDeleted") or ())
