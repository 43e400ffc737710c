"""Routes of the tag Container that are about what flows out of and into one: logs, attach, top, stats."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from aiohttp import web

from dockmagic_runtime import timestamps
from dockmagic_runtime.api.call import Call, JsonStream, answer, nothing
from dockmagic_runtime.api.hijack import Taken, stream_type, take_socket
from dockmagic_runtime.api.presence import while_connected
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.containers import loglines, logs, stats, top
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotImplementedHere
from dockmagic_runtime.process.client import Attachment

routes = Routes()


def _container(call: Call) -> Container:
    return call.services.containers.get(call["id"])


@routes.get("/containers/{id}/logs")
async def read_logs(call: Call) -> web.StreamResponse:
    container = _container(call)
    query = _query(call, container)
    if not (query.stdout or query.stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    follow = call.flag("follow")
    answering = _send(call, container, _pieces(call, container, query, follow=follow), follow=follow)
    return await (while_connected(call, answering) if follow else answering)


def _pieces(
    call: Call, container: Container, query: loglines.LogQuery, *, follow: bool
) -> AsyncGenerator[bytes, None]:
    path = call.services.containers.places.log(container)
    if path is None:
        raise NotImplementedHere("configured logging driver does not support reading")
    shim = call.services.runs.live(container).shim
    if follow and shim:
        # As with Docker, until this run of the container is over.
        return logs.follow(path, query, shim)
    return logs.read(path, query)


async def _send(
    call: Call, container: Container, pieces: AsyncGenerator[bytes, None], *, follow: bool
) -> web.StreamResponse:
    """What fits in one piece is an answer of known length; anything else goes in chunks as it comes."""
    headers = {"Content-Type": stream_type(call, container.config["Tty"])}
    async with contextlib.aclosing(pieces):
        begun = [piece async for piece in _first(pieces, 1 if follow else 2)]
        if len(begun) < 2 and not follow:
            return web.Response(body=b"".join(begun), headers=headers)
        response = web.StreamResponse(headers=headers)
        await response.prepare(call.request)
        for piece in begun:
            await response.write(piece)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        return response


async def _first(pieces: AsyncGenerator[bytes, None], count: int) -> AsyncGenerator[bytes, None]:
    for _ in range(count):
        if (piece := await anext(pieces, None)) is None:
            return
        yield piece


def _query(call: Call, container: Container) -> loglines.LogQuery:
    tail = call.text("tail", "all")
    return loglines.LogQuery(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        # As Docker: what is no number means everything, and so does a negative one.
        tail=int(tail) if tail.isascii() and tail.isdigit() else None,
        since=_moment(call, "since"),
        until=_moment(call, "until"),
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
        framed=not container.config["Tty"],
    )


def _moment(call: Call, name: str) -> int:
    text = call.text(name)
    try:
        return timestamps.parse_relative(text) if text else 0
    except ValueError:
        raise InvalidParameter(
            f'invalid value for "{name}": failed to parse value as time or duration: "{text}"'
        ) from None


@routes.post("/containers/{id}/attach")
async def attach(call: Call) -> web.StreamResponse:
    container = _container(call)
    if container.state.status == "paused":
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    if container.state.status == "restarting":
        raise Conflict(f"container {container.id} is restarting, wait until the container is running")
    query = _query(call, container)
    connection = await take_socket(call, stream_type(call, container.config["Tty"]))
    if call.flag("logs"):
        async for piece in _pieces(call, container, query, follow=False):
            await asyncio.get_running_loop().sock_sendall(connection, piece)
    if call.flag("stream"):
        stdin = call.flag("stdin") and container.config["OpenStdin"]
        attachment = Attachment(connection, stdin, query.stdout, query.stderr)
        await call.services.runs.attach(container, attachment)
    else:
        connection.close()
    return Taken()


@routes.post("/containers/{id}/resize")
async def resize(call: Call) -> web.StreamResponse:
    height, width = call.number("h", 0) or 0, call.number("w", 0) or 0
    if not (0 <= height < 65536 and 0 <= width < 65536):
        raise InvalidParameter(f"invalid terminal size {height}x{width}")
    await call.services.runs.resize(_container(call), height, width)
    return nothing(200)


@routes.get("/containers/{id}/top")
async def processes(call: Call) -> web.StreamResponse:
    container = _container(call)
    call.services.runs.shim(container)
    pids = call.services.runs.cgroup(container).pids()
    titles, rows = await top.processes(pids, call.text("ps_args"))
    call.services.events.publish(*container.event("top"))
    return answer({"Titles": titles, "Processes": rows})


@routes.get("/containers/{id}/stats")
async def statistics(call: Call) -> web.StreamResponse:
    container = _container(call)
    group = call.services.runs.cgroup(container)
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
