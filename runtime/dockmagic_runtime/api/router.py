"""From a request line to a handler: Docker's paths, with or without `/v1.NN` in front.

aiohttp speaks HTTP; only the choice of the handler is made here, because Docker's paths carry a version that
is not part of any of them and image names with slashes in their middle.
"""

import errno
import json
import re
from collections.abc import Awaitable, Callable
from typing import NoReturn

from aiohttp import web

from dockmagic_runtime.api.call import Call
from dockmagic_runtime.api.errors import MISTAKES, status_of, unexpected
from dockmagic_runtime.api.hijack import Taken
from dockmagic_runtime.api.request import API_VERSION, MINIMUM_API_VERSION
from dockmagic_runtime.api.services import Services
from dockmagic_runtime.errors import EngineError, InvalidParameter

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

_VERSION = re.compile(r"/v(\d+)\.(\d+)(?=/|$)")


class Routes:
    """A table of routes that a module of the API fills: `@routes.get("/containers/{id}/json")`.

    `{name}` is one part of a path, `{name:path}` may contain slashes, `{name:link}` one in its middle.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, Handler]] = []

    def add(self, method: str, template: str) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            self.entries.append((method, template, handler))
            return handler

        return register

    def get(self, template: str) -> Callable[[Handler], Handler]:
        return self.add("GET", template)

    def post(self, template: str) -> Callable[[Handler], Handler]:
        return self.add("POST", template)

    def put(self, template: str) -> Callable[[Handler], Handler]:
        return self.add("PUT", template)

    def head(self, template: str) -> Callable[[Handler], Handler]:
        return self.add("HEAD", template)

    def delete(self, template: str) -> Callable[[Handler], Handler]:
        return self.add("DELETE", template)


class Router:
    """All routes of an engine; calling it answers a request."""

    def __init__(self, services: Services, *tables: Routes) -> None:
        self._services = services
        # By method and first part of the path: a handful of patterns to try instead of a hundred.
        self._table: dict[tuple[str, str], list[tuple[re.Pattern[str], Handler]]] = {}
        for table in tables:
            for method, template, handler in table.entries:
                key = (method, template.split("/")[1])
                self._table.setdefault(key, []).append((_pattern(template), handler))

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            call, handler = self._find(request)
            return await handler(call)
        except EngineError as error:
            return self._refusal(request, str(error), status_of(error))
        except ConnectionError:
            # The client went away; there is nobody to answer.
            return Taken()
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
                return self._refusal(request, f"{error.strerror}: {error.filename!r:.200}", 400)
            return self._refusal(request, unexpected(error, f"{request.method} {request.path}"), 500)
        except web.HTTPException as error:
            return self._refusal(request, error.reason, error.status)
        except MISTAKES as error:
            return self._refusal(request, unexpected(error, f"{request.method} {request.path}"), 500)

    def _find(self, request: web.BaseRequest) -> tuple[Call, Handler]:
        path, version = request.path, API_VERSION
        if match := _VERSION.match(path):
            version = (int(match[1]), int(match[2]))
            path = path[match.end() :] or "/"
            _check_version(version)
        first = path.split("/")[1] if "/" in path else ""
        for pattern, handler in self._table.get((request.method, first), ()):
            if found := pattern.fullmatch(path):
                return Call(request, self._services, version, found.groupdict()), handler
        # As Docker: a path that is known with another method is no page either.
        raise web.HTTPNotFound(reason="page not found")

    @staticmethod
    def _refusal(request: web.BaseRequest, message: str, status: int) -> web.StreamResponse:
        if status == 304:
            return web.Response(status=304)
        body = json.dumps({"message": message}).encode() + b"\n"
        return web.Response(body=body, status=status, content_type="application/json")


def _check_version(version: tuple[int, int]) -> None:
    def refuse(sentence: str) -> NoReturn:
        raise _BadVersion(sentence)

    given, minimum, maximum = (".".join(map(str, v)) for v in (version, MINIMUM_API_VERSION, API_VERSION))
    if version < MINIMUM_API_VERSION:
        refuse(
            f"client version {given} is too old. Minimum supported API version is {minimum}, "
            "please upgrade your client to a newer version"
        )
    if version > API_VERSION:
        refuse(f"client version {given} is too new. Maximum supported API version is {maximum}")


class _BadVersion(InvalidParameter):
    pass


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(:path|:link)?\}", template)
    text = ""
    for literal, name, kind in zip(parts[0::3], [*parts[1::3], None], [*parts[2::3], None], strict=True):
        text += re.escape(literal)
        if name:
            text += f"(?P<{name}>{_KINDS[kind]})"
    return re.compile(text)


_KINDS = {None: "[^/]+", ":path": ".+", ":link": "/?[^/]+(?:/[^/]+)?"}
