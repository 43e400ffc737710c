"""Routes of the tag Network."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from ipaddress import ip_address

from aiohttp import web

from dockmagic_runtime import timestamps
from dockmagic_runtime.api.call import Call, answer, nothing
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.containers import joining
from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.errors import Forbidden, InvalidParameter, NotFound
from dockmagic_runtime.filters import Filters, boolean, check, fits_labels, point_in_time
from dockmagic_runtime.networks.network import Network

routes = Routes()

_PREDEFINED = ("bridge", "host", "none")


@routes.get("/networks")
async def list_(call: Call) -> web.StreamResponse:
    filters = call.filters()
    check(filters, {"dangling", "driver", "id", "label", "name", "scope", "type"})
    networks = call.services.networks
    dangling = boolean(filters, "dangling")

    def matches(network: Network) -> bool:
        kind = "builtin" if network.name in _PREDEFINED else "custom"
        return (
            fits_labels(network.labels, filters)
            and dangling in (None, kind == "custom" and not networks.inspect(network)["Containers"])
            and any(name in network.name for name in filters.get("name", [network.name]))
            and any(network.id.startswith(identity) for identity in filters.get("id", [network.id]))
            and network.driver in filters.get("driver", [network.driver])
            and "local" in filters.get("scope", ["local"])
            and kind in filters.get("type", [kind])
        )

    found = [networks.inspect(network) for network in networks.list() if matches(network)]
    # The list does not tell who is connected; inspect does.
    return answer([network | {"Containers": {}} for network in found])


@routes.post("/networks/create")
async def create(call: Call) -> web.StreamResponse:
    body = await call.body()
    ipam = body.get("IPAM") or {}
    name = body.get("Name")
    if not isinstance(name, str) or not isinstance(ipam, dict):
        raise InvalidParameter("invalid JSON: Name must be a string and IPAM an object")
    if body.get("Scope") == "swarm" or body.get("Ingress"):
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    network = await call.services.networks.create(
        name,
        body.get("Driver") or "bridge",
        ipam_config=ipam.get("Config") or [],
        ipam_driver=ipam.get("Driver") or "default",
        ipam_options=ipam.get("Options"),
        internal=bool(body.get("Internal")),
        attachable=bool(body.get("Attachable")),
        ipv6=bool(body.get("EnableIPv6")),
        options=body.get("Options"),
        labels=body.get("Labels"),
    )
    return answer({"Id": network.id, "Warning": ""}, 201)


@routes.post("/networks/prune")
async def prune(call: Call) -> web.StreamResponse:
    removed = await call.services.networks.prune(matcher(call.filters()))
    call.tell_prune("network", 0)
    return answer({"NetworksDeleted": list(removed) or None})


def matcher(filters: Filters) -> Callable[[Network], bool]:
    """Whether the filters of a prune mean a network. Raises InvalidParameter."""
    untils = [point_in_time(until) for until in filters.get("until", [])]
    return lambda network: (
        fits_labels(network.labels, filters)
        and all(timestamps.parse(network.created) < until for until in untils)
    )


@routes.get("/dockmagic/topology")
async def topology(call: Call) -> web.StreamResponse:
    """This host, the networks, and the running containers with their places in them and published ports."""
    services = call.services
    found = await services.networks.topology()
    endpoints = found.pop("endpoints")
    ports = await asyncio.to_thread(services.networks.published_ports)
    records = services.containers.records
    running = sorted((each for each in records.all() if each.state.running), key=lambda each: each.name)
    found["containers"] = [
        {
            "id": each.id,
            "name": each.name,
            "joins": _joined(each, records),
            "endpoints": endpoints.get(each.id, []),
            "ports": [port for port in ports if port["container_id"] == each.id],
        }
        for each in running
    ]
    return answer(found)


def _joined(container: Container, records: Records) -> str:
    """The container whose network it has, which may have ended meanwhile."""
    kind, _, identity = container.network_mode.partition(":")
    owner = records.find(identity) if kind == "container" else None
    return owner.name if owner else ""


@routes.get("/dockmagic/trace")
async def trace(call: Call) -> web.StreamResponse:
    """The hops of a packet: `from` a container or `host`, `to` a container or an address, to a TCP `port`."""
    services = call.services
    source, target = call.text("from"), call.text("to")
    if not source or not target:
        raise InvalidParameter("missing parameters from and to: two containers, or host and a container")
    begin = None if source == "host" else _owner(call, source)
    try:
        end = _owner(call, target)
    except NotFound:
        try:
            address = ip_address(target)
        except ValueError:
            raise NotFound(f"No such container: {target}") from None
        port = call.number("port", 80) or 80
        hops = await services.networks.trace(begin.id if begin else None, address, port)
    else:
        port = call.number("port") or _port(end)
        hops = await services.networks.trace(begin.id if begin else None, end.id, port)
    return answer([asdict(hop) for hop in hops])


def _owner(call: Call, name: str) -> Container:
    """The container whose network the named one uses, which mostly is itself."""
    containers = call.services.containers
    container = containers.get(name)
    return joining.network_owner(container, containers.records) or container


def _port(container: Container) -> int:
    """The first TCP port that the container says it has."""
    exposed = container.config.get("ExposedPorts") or {}
    found = sorted(int(each.partition("/")[0]) for each in exposed if each.endswith("/tcp"))
    if not found:
        raise InvalidParameter(
            f"container {container.name} exposes no TCP port: say which one is to be tried, such as 80"
        )
    return found[0]


@routes.get("/networks/{id}")
async def inspect(call: Call) -> web.StreamResponse:
    networks = call.services.networks
    return answer(networks.inspect(networks.get(call["id"])))


@routes.delete("/networks/{id}")
async def remove(call: Call) -> web.StreamResponse:
    networks = call.services.networks
    await networks.remove(networks.get(call["id"]))
    return nothing()


@routes.post("/networks/{id}/connect")
async def connect(call: Call) -> web.StreamResponse:
    body = await call.body()
    containers = call.services.containers
    container = containers.get(str(body.get("Container") or ""))
    await containers.connect(container, call["id"], body.get("EndpointConfig") or {})
    return nothing(200)


@routes.post("/networks/{id}/disconnect")
async def disconnect(call: Call) -> web.StreamResponse:
    body = await call.body()
    containers = call.services.containers
    container = containers.get(str(body.get("Container") or ""))
    await containers.disconnect(container, call["id"])
    return nothing(200)
