"""One request, as the routes see it: parameters in Docker's conventions, and answers in its forms."""

import base64
import binascii
import json
import re
from collections.abc import AsyncIterable
from typing import Any

from aiohttp import web

from dockmagic_runtime.api.services import Services
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.filters import decoded

Json = dict[str, Any]

_CHUNK = 1 << 18
_NO_TEXT = re.compile("[\ud800-\udfff]")
_FALSE = ("", "0", "no", "false", "none")  # Go's httputils.BoolValue


class Call:
    """A request with the services it is for. `parameters` are the named parts of the path."""

    def __init__(
        self,
        request: web.BaseRequest,
        services: Services,
        version: tuple[int, int],
        parameters: dict[str, str],
    ) -> None:
        self.request = request
        self.services = services
        self.version = version
        self.parameters = parameters

    def __getitem__(self, name: str) -> str:
        """A named part of the path."""
        return self.parameters[name]

    def text(self, name: str, default: str = "") -> str:
        return self.request.query.get(name, default)

    def texts(self, name: str) -> list[str]:
        return self.request.query.getall(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.request.query.get(name)
        return default if value is None else value.strip().lower() not in _FALSE

    def number(self, name: str, default: int | None = None) -> int | None:
        """Raises InvalidParameter if it is there and no 64-bit number."""
        value = self.request.query.get(name)
        if value is None or value == "":
            return default
        try:
            number = int(value)
        except ValueError:
            raise InvalidParameter(f'strconv.Atoi: parsing "{value}": invalid syntax') from None
        if not -(1 << 63) <= number < 1 << 63:
            raise InvalidParameter(f'strconv.Atoi: parsing "{value}": value out of range')
        return number

    def filters(self) -> dict[str, list[str]]:
        """`filters`, in the form of today ({"a": {"b": true}}) or of API 1.21 ({"a": ["b"]})."""
        raw = self.request.query.get("filters")
        if not raw:
            return {}
        try:
            given = json.loads(raw)
        except ValueError:
            raise InvalidParameter(f"invalid filter: {raw}") from None
        return decoded(given)

    def pieces(self) -> AsyncIterable[bytes]:
        """The body as it comes in."""
        return self.request.content.iter_chunked(_CHUNK)

    async def body(self) -> Json:
        """The JSON object in the body; {} if there is none."""
        raw = await self.request.read()
        if not raw.strip():
            return {}
        given = self.request.headers.get("Content-Type", "")
        if given.partition(";")[0].strip().lower() != "application/json":
            raise InvalidParameter(
                f"unsupported Content-Type header ({given}): must be 'application/json'"
                if given
                else "malformed Content-Type header (): mime: no media type"
            )
        try:
            parsed = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise InvalidParameter(f"invalid JSON: {error}") from None
        if parsed is None:
            return {}
        if not isinstance(parsed, dict):
            raise InvalidParameter("invalid JSON: the body must be an object")
        return parsed

    def tell_prune(self, kind: str, freed: int) -> None:
        """The event of a prune, beside those of all that went."""
        self.services.events.publish(kind, "prune", "", {"reclaimed": str(freed)})

    def credentials(self, header: str) -> Json:
        """What X-Registry-Auth ({"username": …, "password": …}) or X-Registry-Config holds, as base64url."""
        raw = self.request.headers.get(header, "")
        try:
            parsed = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))) if raw else {}
        except (ValueError, binascii.Error):
            raise InvalidParameter(f"invalid {header} header: it must be base64url-encoded JSON") from None
        return parsed if isinstance(parsed, dict) else {}


def answer(document: object, status: int = 200) -> web.Response:
    """A JSON document, ended by a newline as Go's encoder does; bytes that are no text are U+FFFD."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"
    body = _NO_TEXT.sub("\ufffd", text).encode()
    return web.Response(body=body, status=status, content_type="application/json")


def nothing(status: int = 204) -> web.Response:
    return web.Response(status=status)


class JsonStream:
    """A chunked answer of one JSON object per line: progress of pull, push, build, load; events; stats."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._response = web.StreamResponse(headers={"Content-Type": "application/json"})

    async def open(self) -> "JsonStream":
        await self._response.prepare(self._call.request)
        return self

    @property
    def opened(self) -> bool:
        return self._response.prepared

    async def send(self, document: object) -> None:
        if not self.opened:
            await self.open()
        await self._response.write(json.dumps(document, separators=(",", ":")).encode() + b"\r\n")

    async def close(self) -> web.StreamResponse:
        if not self.opened:
            await self.open()
        await self._response.write_eof()
        return self._response
