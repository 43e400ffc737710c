"""Routes of the tag Container."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator

from aiohttp import web

from dockmagic_runtime import timestamps
from dockmagic_runtime.api.call import Call, JsonStream, answer, nothing
from dockmagic_runtime.api.hijack import Taken, stream_type, take_socket
from dockmagic_runtime.api.refused import NO_CHECKPOINTS
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.containers import inspection, listing, logs, settings, stats, top
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotImplementedHere
from dockmagic_runtime.images.listing import has_label
from dockmagic_runtime.process.client import Attachment

routes = Routes()

_BATCH = 1 << 16


def _container(call: Call) -> Container:
    return call.services.containers.get(call["id"])


@routes.get("/containers/json")
async def list_(call: Call) -> web.StreamResponse:
    limit = call.number("limit", 0) or 0
    found = listing.select(
        call.services.containers, call.filters(), everything=call.flag("all"), limit=max(limit, 0)
    )
    size = call.flag("size")
    return answer([inspection.summary(container, call.services.containers, size=size) for container in found])


@routes.post("/containers/create")
async def create(call: Call) -> web.StreamResponse:
    container, warnings = await call.services.containers.create(await call.body(), call.text("name"))
    return answer({"Id": container.id, "Warnings": warnings}, 201)


@routes.get("/containers/{id}/json")
async def inspect(call: Call) -> web.StreamResponse:
    size = call.flag("size")
    return answer(
        inspection.inspect(_container(call), call.services.containers, call.services.execs, size=size)
    )


@routes.post("/containers/{id}/start")
async def start(call: Call) -> web.StreamResponse:
    if call.text("checkpoint"):
        raise NotImplementedHere(NO_CHECKPOINTS)
    await call.services.containers.start(_container(call))
    return nothing()


def _stop_options(call: Call) -> dict[str, int | None]:
    signal = call.text("signal")
    return {"timeout": call.number("t"), "signal": settings.parse_signal(signal) if signal else None}


@routes.post("/containers/{id}/stop")
async def stop(call: Call) -> web.StreamResponse:
    await call.services.containers.stop(_container(call), **_stop_options(call))
    return nothing()


@routes.post("/containers/{id}/restart")
async def restart(call: Call) -> web.StreamResponse:
    await call.services.containers.restart(_container(call), **_stop_options(call))
    return nothing()


@routes.post("/containers/{id}/kill")
async def kill(call: Call) -> web.StreamResponse:
    await call.services.containers.kill(
        _container(call), settings.parse_signal(call.text("signal") or "KILL")
    )
    return nothing()


@routes.post("/containers/{id}/pause")
async def pause(call: Call) -> web.StreamResponse:
    await call.services.containers.pause(_container(call))
    return nothing()


@routes.post("/containers/{id}/unpause")
async def unpause(call: Call) -> web.StreamResponse:
    await call.services.containers.unpause(_container(call))
    return nothing()


@routes.post("/containers/{id}/rename")
async def rename(call: Call) -> web.StreamResponse:
    await call.services.containers.rename(_container(call), call.text("name"))
    return nothing()


@routes.post("/containers/{id}/update")
async def update(call: Call) -> web.StreamResponse:
    warnings = await call.services.containers.update(_container(call), await call.body())
    return answer({"Warnings": warnings})


@routes.post("/containers/{id}/resize")
async def resize(call: Call) -> web.StreamResponse:
    height, width = call.number("h", 0) or 0, call.number("w", 0) or 0
    if not (0 <= height < 65536 and 0 <= width < 65536):
        raise InvalidParameter(f"invalid terminal size {height}x{width}")
    await call.services.containers.resize(_container(call), height, width)
    return nothing(200)


@routes.post("/containers/{id}/wait")
async def wait(call: Call) -> web.StreamResponse:
    """The head goes out at once: `docker run` starts the container only when it has seen it."""
    code = asyncio.ensure_future(
        call.services.containers.wait(_container(call), call.text("condition") or "not-running")
    )
    if code.done():
        return answer({"StatusCode": code.result()})
    stream = await JsonStream(call).open()
    await stream.send({"StatusCode": await code})
    return await stream.close()


@routes.delete("/containers/{id}")
async def remove(call: Call) -> web.StreamResponse:
    if call.flag("link"):
        raise NotImplementedHere("removing a link is not supported; remove the container that has it")
    await call.services.containers.remove(_container(call), force=call.flag("force"), volumes=call.flag("v"))
    return nothing()


@routes.post("/containers/prune")
async def prune(call: Call) -> web.StreamResponse:
    filters = call.filters()
    unknown = set(filters) - {"label", "label!", "until"}
    if unknown:
        raise InvalidParameter(f"invalid filter '{sorted(unknown)[0]}'")
    containers = call.services.containers
    removed, freed = [], 0
    for container in containers.records.all():
        kept = container.state.running or not _prunable(container, filters)
        if not kept:
            freed += containers.usage(container)
            await containers.remove(container)
            removed.append(container.id)
    return answer({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


def _prunable(container: Container, filters: dict[str, list[str]]) -> bool:
    created = timestamps.parse(container.created)
    return (
        all(has_label(container.labels, label) for label in filters.get("label", []))
        and not any(has_label(container.labels, label) for label in filters.get("label!", []))
        and all(created < timestamps.parse_relative(until) for until in filters.get("until", []))
    )


@routes.get("/containers/{id}/top")
async def processes(call: Call) -> web.StreamResponse:
    container = _container(call)
    call.services.containers.shim(container)
    pids = call.services.containers.cgroup(container).pids()
    titles, rows = await top.processes(pids, call.text("ps_args"))
    return answer({"Titles": titles, "Processes": rows})


@routes.get("/containers/{id}/changes")
async def changes(call: Call) -> web.StreamResponse:
    container = _container(call)
    found = await asyncio.to_thread(call.services.snapshots.changes, container.id)
    return answer([{"Path": path, "Kind": kind} for kind, path in found] or None)


@routes.get("/containers/{id}/export")
async def export(call: Call) -> web.StreamResponse:
    container = _container(call)
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    await response.prepare(call.request)
    async for chunk in _exported(call, container):
        await response.write(chunk)
    await response.write_eof()
    return response


async def _exported(call: Call, container: Container) -> AsyncIterator[bytes]:
    reader, writer = os.pipe()
    root = os.open(f"/proc/{container.state.pid}/root", os.O_PATH) if container.state.running else None

    def write() -> None:
        try:
            with os.fdopen(writer, "wb") as out:
                call.services.snapshots.export(container.id, out, root=root)
        finally:
            if root is not None:
                os.close(root)

    task = asyncio.ensure_future(asyncio.to_thread(write))
    with os.fdopen(reader, "rb") as source:
        while chunk := await asyncio.to_thread(source.read, _BATCH * 16):
            yield chunk
    await task


@routes.post("/containers/{id}/attach")
async def attach(call: Call) -> web.StreamResponse:
    container = _container(call)
    if container.state.status == "paused":
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    if container.state.status == "restarting":
        raise Conflict(f"container {container.id} is restarting, wait until the container is running")
    live = call.flag("stream")
    history = b""
    if call.flag("logs"):
        history = b"".join(_written(call, container, _query(call, default=False)))
    connection = await take_socket(call, stream_type(call, container.config["Tty"]))
    if history:
        await asyncio.get_running_loop().sock_sendall(connection, history)
    if live:
        stdin = call.flag("stdin") and container.config["OpenStdin"]
        attachment = Attachment(connection, stdin, call.flag("stdout"), call.flag("stderr"))
        await call.services.containers.attach(container, attachment)
    else:
        connection.close()
    return Taken()


@routes.get("/containers/{id}/logs")
async def read_logs(call: Call) -> web.StreamResponse:
    container = _container(call)
    if container.host_config["LogConfig"]["Type"] == "none":
        raise NotImplementedHere("configured logging driver does not support reading")
    query = _query(call)
    if not (query.stdout or query.stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    headers = {"Content-Type": stream_type(call, container.config["Tty"])}
    if not (call.flag("follow") and container.state.running):
        body = b"".join(_written(call, container, query))
        if len(body) <= _BATCH:
            return web.Response(body=body, headers=headers)
        response = web.StreamResponse(headers=headers)
        await response.prepare(call.request)
        await response.write(body)
        await response.write_eof()
        return response
    response = web.StreamResponse(headers=headers)
    await response.prepare(call.request)
    ended = asyncio.ensure_future(call.services.containers.wait(container))
    path = call.services.containers.places.log(container)
    try:
        async for entry in logs.follow(path, query, ended):
            await response.write(_framed(entry, container))
    finally:
        ended.cancel()
    await response.write_eof()
    return response


def _written(call: Call, container: Container, query: logs.LogQuery) -> Iterator[bytes]:
    for entry in logs.read(call.services.containers.places.log(container), query):
        yield _framed(entry, container)


def _framed(entry: logs.Entry, container: Container) -> bytes:
    """Docker's eight bytes before each piece of a stream that is no terminal's."""
    if container.config["Tty"]:
        return entry.data
    return struct.pack(">BxxxI", 1 if entry.stream == "stdout" else 2, len(entry.data)) + entry.data


def _query(call: Call, default: bool = False) -> logs.LogQuery:
    tail = call.text("tail", "all")
    return logs.LogQuery(
        stdout=call.flag("stdout", default),
        stderr=call.flag("stderr", default),
        # As Docker: what is no number means everything.
        tail=int(tail) if tail.isdigit() else None,
        since=_moment(call.text("since")),
        until=_moment(call.text("until")),
        timestamps=call.flag("timestamps"),
    )


def _moment(text: str) -> int:
    try:
        return timestamps.parse(text) if text else 0
    except ValueError:
        raise InvalidParameter(f'invalid value for "since" or "until": "{text}"') from None


@routes.get("/containers/{id}/stats")
async def statistics(call: Call) -> web.StreamResponse:
    container = _container(call)
    group = call.services.containers.cgroup(container)
    before = stats.sample(container, group)
    if not call.flag("stream", True):
        if not call.flag("one-shot") and container.state.running:
            # Two samples a second apart, for a client that computes percentages from one answer.
            await asyncio.sleep(1)
            return answer(_compared(before, stats.sample(container, group)))
        return answer(before)
    stream = await JsonStream(call).open()
    while call.services.containers.records.holder(container.name) == container.id:
        await stream.send(before)
        await asyncio.sleep(1)
        before = _compared(before, stats.sample(container, group))
    return await stream.close()


def _compared(before: dict[str, object], now: dict[str, object]) -> dict[str, object]:
    return now | {"precpu_stats": before["cpu_stats"], "preread": before["read"]}
