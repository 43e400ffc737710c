"""Routes of the tag Exec."""

import asyncio
import struct

from aiohttp import web

from dockmagic_runtime.api.call import Call, answer, nothing
from dockmagic_runtime.api.hijack import Taken, stream_type, take_socket
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.process.client import Attachment
from dockmagic_runtime.process.messages import StartFailed

routes = Routes()


@routes.post("/containers/{id}/exec")
async def create(call: Call) -> web.StreamResponse:
    services = call.services
    session = services.execs.create(services.containers.get(call["id"]), await call.body())
    return answer({"Id": session.id}, 201)


@routes.post("/exec/{id}/start")
async def start(call: Call) -> web.StreamResponse:
    """Detached: answers when the program runs. Else the connection becomes the program's stream."""
    session = call.services.execs.get(call["id"])
    body = await call.body()
    call.services.runs.shim(session.container)
    if body.get("Detach"):
        try:
            await call.services.execs.start(session, None)
        except StartFailed as error:
            raise InvalidParameter(_sentence(error)) from error
        return nothing(200)
    wanted = session.wanted
    connection = await take_socket(call, stream_type(call, wanted["Tty"]))
    attachment = Attachment(connection, wanted["AttachStdin"], wanted["AttachStdout"], wanted["AttachStderr"])
    # Kept open until the exit code is known: the client asks for it as soon as it sees the end of the stream.
    hold = connection.dup()
    try:
        await call.services.execs.start(session, attachment, hold)
    except StartFailed as error:
        # Too late for an HTTP status: the sentence goes down the stream, the code into inspect.
        text = _sentence(error).encode() + (b"\r\n" if wanted["Tty"] else b"\n")
        frame = text if wanted["Tty"] else struct.pack(">BxxxI", 2, len(text)) + text
        with hold:
            await asyncio.get_running_loop().sock_sendall(hold, frame)
    return Taken()


def _sentence(error: StartFailed) -> str:
    return f"OCI runtime exec failed: exec failed: unable to start container process: {error}: unknown"


@routes.post("/exec/{id}/resize")
async def resize(call: Call) -> web.StreamResponse:
    height, width = call.number("h", 0) or 0, call.number("w", 0) or 0
    if not (0 <= height < 65536 and 0 <= width < 65536):
        raise InvalidParameter(f"invalid terminal size {height}x{width}")
    await call.services.execs.resize(call.services.execs.get(call["id"]), height, width)
    return nothing(200)


@routes.get("/exec/{id}/json")
async def inspect(call: Call) -> web.StreamResponse:
    return answer(call.services.execs.get(call["id"]).inspect())
