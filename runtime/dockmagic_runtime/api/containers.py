"""Routes of the tag Container."""

import asyncio
import functools
import os

from aiohttp import web

from dockmagic_runtime import streams
from dockmagic_runtime.api.call import Call, JsonStream, answer, nothing
from dockmagic_runtime.api.refused import NO_CHECKPOINTS
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.api.tarstream import send_tar
from dockmagic_runtime.containers import inspection, listing, settings
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.errors import NotImplementedHere

routes = Routes()


def _container(call: Call) -> Container:
    return call.services.containers.get(call["id"])


@routes.get("/containers/json")
async def list_(call: Call) -> web.StreamResponse:
    limit = call.number("limit", 0) or 0
    filters = call.filters()
    for name in ("since", "before"):
        # An older way to say it than the filter.
        if reference := call.text(name):
            filters.setdefault(name, []).append(reference)
    found = listing.select(
        call.services.containers, filters, everything=call.flag("all"), limit=max(limit, 0)
    )
    size = call.flag("size")
    return answer([inspection.summary(container, call.services.containers, size=size) for container in found])


@routes.post("/containers/create")
async def create(call: Call) -> web.StreamResponse:
    container, warnings = await call.services.containers.create(await call.body(), call.text("name"))
    return answer({"Id": container.id, "Warnings": warnings}, 201)


# `parent/alias` of a link is a name too.
@routes.get("/containers/{id:link}/json")
async def inspect(call: Call) -> web.StreamResponse:
    size = call.flag("size")
    return answer(
        inspection.inspect(_container(call), call.services.containers, call.services.execs, size=size)
    )


@routes.post("/containers/{id}/start")
async def start(call: Call) -> web.StreamResponse:
    if call.text("checkpoint"):
        raise NotImplementedHere(NO_CHECKPOINTS)
    await call.services.runs.start(_container(call))
    return nothing()


def _stop_options(call: Call) -> dict[str, int | None]:
    signal = call.text("signal")
    return {"timeout": call.number("t"), "signal": settings.parse_signal(signal) if signal else None}


@routes.post("/containers/{id}/stop")
async def stop(call: Call) -> web.StreamResponse:
    await call.services.runs.stop(_container(call), **_stop_options(call))
    return nothing()


@routes.post("/containers/{id}/restart")
async def restart(call: Call) -> web.StreamResponse:
    await call.services.runs.restart(_container(call), **_stop_options(call))
    return nothing()


@routes.post("/containers/{id}/kill")
async def kill(call: Call) -> web.StreamResponse:
    await call.services.runs.kill(_container(call), settings.parse_signal(call.text("signal") or "KILL"))
    return nothing()


@routes.post("/containers/{id}/pause")
async def pause(call: Call) -> web.StreamResponse:
    await call.services.runs.pause(_container(call))
    return nothing()


@routes.post("/containers/{id}/unpause")
async def unpause(call: Call) -> web.StreamResponse:
    await call.services.runs.unpause(_container(call))
    return nothing()


@routes.post("/containers/{id}/rename")
async def rename(call: Call) -> web.StreamResponse:
    await call.services.containers.rename(_container(call), call.text("name"))
    return nothing()


@routes.post("/containers/{id}/update")
async def update(call: Call) -> web.StreamResponse:
    warnings = await call.services.containers.update(_container(call), await call.body())
    return answer({"Warnings": warnings})


@routes.post("/containers/{id}/wait")
async def wait(call: Call) -> web.StreamResponse:
    """The head goes out at once: `docker run` starts the container only when it has seen it."""
    code = asyncio.ensure_future(
        call.services.runs.wait(_container(call), call.text("condition") or "not-running")
    )
    if code.done():
        return answer({"StatusCode": code.result()})
    stream = await JsonStream(call).open()
    await stream.send({"StatusCode": await code})
    return await stream.close()


@routes.delete("/containers/{id:link}")
async def remove(call: Call) -> web.StreamResponse:
    if call.flag("link"):
        await call.services.containers.unlink(call["id"])
        return nothing()
    await call.services.containers.remove(_container(call), force=call.flag("force"), volumes=call.flag("v"))
    return nothing()


@routes.post("/containers/prune")
async def prune(call: Call) -> web.StreamResponse:
    containers = call.services.containers
    removed, freed = [], 0
    for container in listing.prunable(containers, call.filters()):
        freed += containers.usage(container)
        await containers.remove(container)
        removed.append(container.id)
    call.tell_prune("container", freed)
    return answer({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


@routes.get("/containers/{id}/changes")
async def changes(call: Call) -> web.StreamResponse:
    container = _container(call)
    found = await asyncio.to_thread(call.services.snapshots.changes, container.id)
    return answer([{"Path": path, "Kind": kind} for kind, path in found] or None)


@routes.get("/containers/{id}/export")
async def export(call: Call) -> web.StreamResponse:
    container = _container(call)
    call.services.events.publish(*container.event("export"))
    running = container.state.running
    root = os.open(f"/proc/{container.state.pid}/root", os.O_PATH) if running else None
    export = functools.partial(call.services.snapshots.export, container.id, root=root)
    try:
        return await send_tar(call, streams.tap(export))
    finally:
        if root is not None:
            os.close(root)
