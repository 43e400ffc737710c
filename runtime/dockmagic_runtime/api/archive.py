"""Routes of the tag Container that carry its files: cp, and commit."""

import base64
import json
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from dockmagic_runtime import streams
from dockmagic_runtime.api.call import Call, answer
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.api.tarstream import send_tar
from dockmagic_runtime.build import commit as committing
from dockmagic_runtime.containers.archive import ContainerFiles
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.oci.reference import parse_reference
from dockmagic_runtime.threads import in_own_thread

routes = Routes()


async def _files(call: Call, stack: AsyncExitStack) -> ContainerFiles:
    """The container's files; one that does not run is kept from starting until `stack` is left."""
    containers = call.services.containers
    container = containers.get(call["id"])
    if not container.state.pid:
        await stack.enter_async_context(call.services.runs.live(container).lock)
        await stack.enter_async_context(containers.volumes.held(container))
    return ContainerFiles(
        container, containers.rootfs(container), containers.places.directory(container), call["id"]
    )


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidParameter("missing path parameter: say which file of the container is meant")
    if "\0" in path:
        raise InvalidParameter("invalid path parameter: it holds a NUL character")
    return path


def _header(status: dict[str, Any]) -> dict[str, str]:
    return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(status).encode()).decode()}


@routes.head("/containers/{id}/archive")
async def status(call: Call) -> web.StreamResponse:
    path = _path(call)
    async with AsyncExitStack() as stack:
        files = await _files(call, stack)
        found = await in_own_thread(lambda: files.status(path))
    return web.Response(headers=_header(found))


@routes.get("/containers/{id}/archive")
async def read(call: Call) -> web.StreamResponse:
    path = _path(call)
    async with AsyncExitStack() as stack:
        files = await _files(call, stack)
        found = await in_own_thread(lambda: files.status(path))
        response = await send_tar(call, streams.tap(lambda out: files.read(path, out)), _header(found))
    call.services.events.publish(*files.container.event("archive-path"))
    return response


@routes.put("/containers/{id}/archive")
async def write(call: Call) -> web.StreamResponse:
    path, keep_kinds = _path(call), call.flag("noOverwriteDirNonDir")
    async with AsyncExitStack() as stack:
        files = await _files(call, stack)
        await streams.feed(call.pieces(), lambda source: files.write(path, source, keep_kinds=keep_kinds))
    call.services.events.publish(*files.container.event("extract-to-dir"))
    return web.Response()


@routes.post("/commit")
async def commit(call: Call) -> web.StreamResponse:
    services = call.services
    container = services.containers.get(call.text("container"))
    repository, tag = call.text("repo"), call.text("tag")
    image = await committing.commit(
        services.images,
        services.snapshots,
        services.runs,
        services.events,
        container,
        reference=parse_reference(f"{repository}:{tag}" if tag else repository) if repository else None,
        author=call.text("author"),
        comment=call.text("comment"),
        given=await call.body(),
        changes=[line for text in call.texts("changes") for line in text.splitlines() if line.strip()],
        pause=call.flag("pause", True),
    )
    return answer({"Id": image.id}, 201)
