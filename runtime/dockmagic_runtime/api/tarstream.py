"""An archive as an answer: begun with its first piece, and broken off, not ended, by a failure in its middle.

As long as nothing has been sent what is wrong is still a status. Later the connection is broken off, so that
nobody takes half an archive for a whole.
"""

import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping

from aiohttp import web

from dockmagic_runtime.api.call import Call
from dockmagic_runtime.api.hijack import Taken
from dockmagic_runtime.errors import EngineError

log = logging.getLogger(__name__)


async def send_tar(
    call: Call, pieces: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Sends `pieces`, and ends them when the client goes away. Raises what the first of them raises."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **(headers or {})})
    async with contextlib.aclosing(pieces):
        first = await anext(pieces, b"")
        await response.prepare(call.request)
        try:
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
        except (EngineError, OSError) as error:
            if not isinstance(error, ConnectionError):
                log.warning("%s: %s", call.request.path, error)
            if call.request.transport:
                call.request.transport.abort()
            return Taken()
        await response.write_eof()
        return response
