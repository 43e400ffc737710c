"""What Docker's API cannot say, for the notebook's views: under /dockmagic/ on the same socket.

Everything here is read from the kernel or the store at the moment of the request.
"""

import asyncio
from dataclasses import asdict

from aiohttp import web

from dockmagic_runtime.api.call import Call, answer, nothing
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.build.explain import explain
from dockmagic_runtime.containers import inspection
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.images import describe
from dockmagic_runtime.images.contents import contents
from dockmagic_runtime.networks import listeners

routes = Routes()


@routes.get("/dockmagic/containers/{id}/namespaces")
async def namespaces(call: Call) -> web.StreamResponse:
    container = call.services.containers.get(call["id"])
    call.services.runs.shim(container)
    return answer(inspection.namespaces(container))


@routes.get("/dockmagic/images/{name:path}/layers")
async def image_layers(call: Call) -> web.StreamResponse:
    images = call.services.images
    return answer(describe.layers(images, images.get(call["name"])))


@routes.get("/dockmagic/images/{name:path}/files")
async def image_files(call: Call) -> web.StreamResponse:
    """What each of the image's layers adds, changes and removes; bottom first."""
    image = call.services.images.get(call["name"])
    directories = call.services.layers.paths(image.diff_ids)[::-1]  # which are topmost first
    return answer(await asyncio.to_thread(contents, directories))


@routes.get("/dockmagic/containers/{id}/layers")
async def container_layers(call: Call) -> web.StreamResponse:
    services = call.services
    container = services.containers.get(call["id"])
    image = services.images.by_id(container.image)
    usage = await asyncio.to_thread(services.snapshots.usage, container.id)
    changes = await asyncio.to_thread(services.snapshots.changes, container.id)
    return answer(
        {
            "image": inspection.image_name(container, services.images),
            "layers": describe.layers(services.images, image) if image else [],
            "writable": {
                "size": usage.size,
                "files": usage.files,
                "changes": [{"Kind": kind, "Path": path} for kind, path in changes],
            },
        }
    )


@routes.post("/dockmagic/explain")
async def explain_dockerfile(call: Call) -> web.StreamResponse:
    """What a Dockerfile does: `{"Dockerfile": text, "Target": stage, "Ignores": has it .dockerignore}`."""
    asked = await call.body()
    text, target, ignores = asked.get("Dockerfile"), asked.get("Target"), asked.get("Ignores")
    if (
        not isinstance(text, str)
        or not isinstance(target, str | None)
        or not isinstance(ignores, bool | None)
    ):
        raise InvalidParameter("explain needs a Dockerfile, as text")
    return answer(explain(text, ignores=ignores, target=target))


@routes.post("/dockmagic/containers/{id}/reshape")
async def reshape(call: Call) -> web.StreamResponse:
    """Other ports and mounts for a container that exists."""
    containers = call.services.containers
    await containers.reshape(containers.get(call["id"]), await call.body())
    return nothing()


@routes.get("/dockmagic/listeners")
async def listening(call: Call) -> web.StreamResponse:
    """The sockets of this host's processes that wait for somebody; with `port` those on one."""
    found = await asyncio.to_thread(listeners.listeners, call.number("port"))
    return answer([{**asdict(each), "address": str(each.address)} for each in found])


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
