"""What Docker's API cannot say, for the notebook's views: under /dockmagic/ on the same socket.

Everything here is read from the kernel or the store at the moment of the request.
"""

import asyncio

from aiohttp import web

from dockmagic_runtime.api.call import Call, answer
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.containers import inspection
from dockmagic_runtime.errors import NotFound

routes = Routes()


@routes.get("/dockmagic/containers/{id}/namespaces")
async def namespaces(call: Call) -> web.StreamResponse:
    container = call.services.containers.get(call["id"])
    call.services.containers.shim(container)
    return answer(inspection.namespaces(container))


@routes.get("/dockmagic/images/{name:path}/layers")
async def image_layers(call: Call) -> web.StreamResponse:
    images = call.services.images
    return answer(images.layers_of(images.get(call["name"])))


@routes.get("/dockmagic/containers/{id}/layers")
async def container_layers(call: Call) -> web.StreamResponse:
    services = call.services
    container = services.containers.get(call["id"])
    image = services.images.by_id(container.image)
    usage = await asyncio.to_thread(services.snapshots.usage, container.id)
    changes = await asyncio.to_thread(services.snapshots.changes, container.id)
    return answer(
        {
            "image": services.containers.image_name(container),
            "layers": services.images.layers_of(image) if image else [],
            "writable": {
                "size": usage.size,
                "files": usage.files,
                "changes": [{"Kind": kind, "Path": path} for kind, path in changes],
            },
        }
    )


@routes.get("/dockmagic/ports")
async def ports(call: Call) -> web.StreamResponse:
    rows = []
    for port in await asyncio.to_thread(call.services.networks.published_ports):
        try:
            name = call.services.containers.get(port["container_id"]).name
        except NotFound:
            name = ""
        rows.append(port | {"container_name": name})
    return answer(rows)
