"""Docker's headers on every answer: which API this is and what speaks it.

Clients look at them: the docker command takes its version from `Api-Version` and the engine's system from
`Ostype` of whatever answer comes first. They are set in the one place that aiohttp has for it, the hook that
a request runs before the head of its answer is written, so that streams have them too. (An answer on a
hijacked connection is none of aiohttp's: see `hijack`.)
"""

import asyncio
from typing import Any

from aiohttp import web

from dockmagic_runtime import __version__

API_VERSION = (1, 47)
MINIMUM_API_VERSION = (1, 24)

HEADERS = {
    "Api-Version": ".".join(map(str, API_VERSION)),
    "Docker-Experimental": "true",  # else the docker command has no `build --squash`
    "Ostype": "linux",
    "Server": f"dockmagic/{__version__} (linux)",
}


class Request(web.BaseRequest):
    """One request, with the headers of its answer."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)


def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    """What aiohttp's server calls for every request that it has parsed."""
    return Request(message, payload, protocol, writer, task, asyncio.get_running_loop())
