"""One exchange with a registry, or with the server that gives tokens for it, on aiohttp.

What is retried: an answer 429, or 5xx, or none at all, four times with growing pauses (or the pause that
`Retry-After` asks for). What is not: any other refusal.
"""

import asyncio
import contextlib
import email.utils
import logging
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from dockmagic_runtime import __version__
from dockmagic_runtime.registry.endpoints import Endpoint, tls_context
from dockmagic_runtime.registry.failures import RegistryError, error_of, unreachable

log = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_PAUSE = 0.25
"""Seconds before the first retry; each further one waits twice as long."""
LONGEST_PAUSE = 30.0
BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, OSError, UnicodeError)
"""What a connection that ends too early raises."""
_NOBODY = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError)
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)


class Transport:
    """The connections of one engine to all registries. Close it at the end."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[Endpoint, Any] = {}

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    @contextlib.asynccontextmanager
    async def request(
        self,
        endpoint: Endpoint | None,
        method: str,
        url: str,
        *,
        ok: tuple[int, ...] = (200,),
        headers: Mapping[str, str] | None = None,
        attempts: int = ATTEMPTS,
        body: Callable[[], Any] | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange, retried as the module says. `body` makes the request body anew for each attempt.

        A refused connection, or none, is not retried: where nobody is, the next endpoint is the better bet.
        Raises RegistryError for any status but `ok`, Unreachable when there was no answer.
        """
        pause = FIRST_PAUSE
        for attempt in range(attempts):
            last = attempt == attempts - 1
            try:
                response = await self._open_session().request(
                    method,
                    url,
                    headers=headers,
                    ssl=self._tls(endpoint),
                    proxy=_proxy(url),
                    data=body() if body else None,
                    **options,
                )
            except BROKEN as error:
                if last or isinstance(error, _NOBODY):
                    raise unreachable(method, url, error) from error
                log.info("%s %s: %s; trying again", method, url, error)
            else:
                async with response:
                    if response.status in ok:
                        yield response
                        return
                    if last or not (response.status == 429 or response.status >= 500):
                        raise await error_of(response)
                    pause = min(_retry_after(response) or pause, LONGEST_PAUSE)
                    log.info("%s %s: status %d; again in %.1f s", method, url, response.status, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=_TIMEOUT,
                read_bufsize=1 << 20,
                auto_decompress=False,
                headers={"User-Agent": f"dockmagic/{__version__}"},
                connector=aiohttp.TCPConnector(limit=32),
            )
        return self._session

    def _tls(self, endpoint: Endpoint | None) -> Any:
        if endpoint is None or not endpoint.url.startswith("https:"):
            return True
        if endpoint not in self._contexts:
            self._contexts[endpoint] = tls_context(endpoint)
        return self._contexts[endpoint]


async def document(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The JSON object in an answer. Raises RegistryError if there is none."""
    try:
        document = await response.json(content_type=None)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RegistryError(
            response.status, "", f"{response.url.with_query(None)} answers with no JSON object"
        )
    return document


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds that `Retry-After` (RFC 9110 §10.2.3: a number or a date) asks for."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0)
    except ValueError:
        return None


def _proxy(url: str) -> str | None:
    """The proxy that the environment (`HTTPS_PROXY`, `NO_PROXY` …) names for `url`."""
    parts = urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)
