"""Routes of the tag Network."""

from collections.abc import Callable

from aiohttp import web

from dockmagic_runtime import timestamps
from dockmagic_runtime.api.call import Call, answer, nothing
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.errors import Forbidden, InvalidParameter
from dockmagic_runtime.images.listing import boolean, fits_labels, point_in_time
from dockmagic_runtime.networks.network import Network

routes = Routes()

_PREDEFINED = ("bridge", "host", "none")


@routes.get("/networks")
async def list_(call: Call) -> web.StreamResponse:
    filters = call.filters()
    unknown = set(filters) - {"dangling", "driver", "id", "label", "name", "scope", "type"}
    if unknown:
        raise InvalidParameter(f"invalid filter '{sorted(unknown)[0]}'")
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


def matcher(filters: dict[str, list[str]]) -> Callable[[Network], bool]:
    """Whether the filters of a prune mean a network. Raises InvalidParameter."""
    untils = [point_in_time(until) for until in filters.get("until", [])]
    return lambda network: (
        fits_labels(network.labels, filters)
        and all(timestamps.parse(network.created) < until for until in untils)
    )


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
