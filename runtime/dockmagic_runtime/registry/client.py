"""The distribution protocol (OCI distribution-spec 1.1), client side, on aiohttp.

A `Registry` is the engine's one client: connections, and what is known of each host. `open` asks a host
`GET /v2/` once, to learn its scheme and what it wants as authentication, and gives a `Repository`, whose
methods are the requests of the protocol.

What is retried: an answer 429, or 5xx, or none at all, four times with growing pauses (or the pause that
`Retry-After` asks for); a broken download goes on at the byte where it stopped. What is not: any other
refusal. Nothing received is trusted: manifests are checked against their digest here, blobs by who stores
them.
"""

import asyncio
import contextlib
import email.utils
import logging
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from dockmagic_runtime import __version__
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.errors import InvalidParameter, Unauthorized
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci.descriptor import sha256_digest
from dockmagic_runtime.oci.documents import read_manifest
from dockmagic_runtime.oci.reference import Reference
from dockmagic_runtime.registry.auth import NO_CREDENTIALS, Authorizer, Credentials
from dockmagic_runtime.registry.challenge import parse_challenges
from dockmagic_runtime.registry.endpoints import Endpoint, endpoints, tls_context
from dockmagic_runtime.registry.failures import (
    RegistryError,
    Unreachable,
    advised,
    error_of,
    failure,
    unreachable,
)

log = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_PAUSE = 0.25
"""Seconds before the first retry; each further one waits twice as long."""
LONGEST_PAUSE = 30.0
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
_MANIFEST_LIMIT = 4 << 20
_ACCEPT = ", ".join(
    (
        descriptor.OCI_INDEX,
        descriptor.OCI_MANIFEST,
        descriptor.DOCKER_INDEX,
        descriptor.DOCKER_MANIFEST,
        SCHEMA_1,
        "*/*",
    )
)
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
_NOBODY = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError)
_BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, OSError, UnicodeError)


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as the registry sent it; `document` is what `data` says."""

    media_type: str
    digest: str
    data: bytes
    document: dict[str, Any]


class Registry:
    """All registries, as one engine sees them. Close it at the end."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[Endpoint, Any] = {}
        self._chosen: dict[str, Endpoint] = {}

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    def endpoints(self, reference: Reference, *, push: bool = False) -> list[Endpoint]:
        """What to try for `reference`, best first; of two schemes only the one that answered before."""
        candidates = endpoints(reference, self._config, push=push)
        return [
            each for each in candidates if self._chosen.get(each.host, each) == each or each.mirror
        ] or candidates

    async def open(
        self, endpoint: Endpoint, reference: Reference, auth: Mapping[str, Any] | None = None
    ) -> "Repository":
        """Learn how to speak with `endpoint`. Raises Unreachable or RegistryError."""
        credentials = Credentials() if endpoint.mirror else Credentials.from_auth(auth)
        authorizer = Authorizer(credentials, self._fetch_json)
        url = f"{endpoint.url}/v2/"
        async with self.request(endpoint, "GET", url, ok=(200, 401)) as response:
            if response.status == 401:
                authorizer.challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
                if not authorizer.challenges:
                    raise await error_of(response)
        self._chosen[endpoint.host] = endpoint
        return Repository(self, endpoint, reference.path, authorizer)

    async def login(self, host: str, auth: Mapping[str, Any]) -> None:
        """Try credentials at `host`. Raises Unauthorized with Docker's sentence, Unavailable."""
        try:
            domain = urlsplit(host if "://" in host else f"//{host}").netloc
        except ValueError:
            raise InvalidParameter(f"invalid registry address: {host:.100}") from None
        hub = domain in ("", "docker.io", "index.docker.io", "registry-1.docker.io")
        reference = Reference("docker.io" if hub else domain, "login")
        problem: RegistryError | Unreachable | None = None
        for endpoint in self.endpoints(reference, push=True):
            url = f"{endpoint.url}/v2/"
            try:
                repository = await self.open(endpoint, reference, auth)
                headers = await repository.authorizer.header("")
                async with self.request(endpoint, "GET", url, headers=headers):
                    return
            except Unreachable as error:
                problem = error
            except RegistryError as error:
                if error.status != 401:
                    raise failure(error) from error
                sentence = f"login attempt to {url} failed with status: 401 Unauthorized"
                raise Unauthorized(f"{sentence} (the user name or the password is wrong)") from error
        raise failure(problem or Unreachable(f"no endpoint for {host}")) from problem

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
            except _BROKEN as error:
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

    async def _fetch_json(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        endpoint = self._realm(url)
        body = (lambda: aiohttp.FormData(dict(data))) if data else None
        async with self.request(endpoint, method, url, headers=headers, body=body, params=params) as response:
            return await _document(response)

    def _realm(self, url: str) -> Endpoint:
        """The token server gets the trust of the registry on the same host, if it is that."""
        host = urlsplit(url).netloc
        return self._chosen.get(host) or endpoints(Reference(host, ""), self._config)[0]


@dataclass
class Repository:
    """One repository at one endpoint."""

    registry: Registry
    endpoint: Endpoint
    path: str
    authorizer: Authorizer

    async def manifest(self, reference: str) -> Manifest:
        """The manifest or index that a tag or a digest names, verified if it is a digest.

        Raises RegistryError (`MANIFEST_UNKNOWN` …), Unreachable.
        """
        async with self._exchange("GET", f"manifests/{reference}", headers={"Accept": _ACCEPT}) as response:
            data = await response.content.read(_MANIFEST_LIMIT + 1)
            while len(data) <= _MANIFEST_LIMIT and (more := await response.content.readany()):
                data += more
            media_type = response.headers.get("Content-Type", "").split(";")[0].strip()
        if len(data) > _MANIFEST_LIMIT:
            raise RegistryError(200, "MANIFEST_INVALID", f"manifest is larger than {_MANIFEST_LIMIT} bytes")
        digest = sha256_digest(data)
        if reference.startswith("sha256:") and digest != reference:
            raise RegistryError(
                200, "MANIFEST_UNVERIFIED", f"manifest verification failed for digest {reference}"
            )
        try:
            return Manifest(media_type, digest, data, read_manifest(data))
        except InvalidParameter as error:
            why = str(error).removeprefix("invalid manifest: ")
            raise RegistryError(200, "MANIFEST_INVALID", f"{why}: {self.endpoint.host}") from None

    async def blob(self, digest: str, size: int, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of a blob from `offset` on, in pieces as they arrive; not verified.

        A connection that breaks, or ends before `size`, is taken up again by a Range request. A server that
        does not know Range sends everything; what is had already is then skipped. Raises RegistryError,
        Unreachable; the caller may go on later at the byte after the last it got.
        """
        pause, fruitless = FIRST_PAUSE, 0
        while offset < size:
            before = offset
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            broken: BaseException = aiohttp.ServerDisconnectedError()
            async with self._exchange("GET", f"blobs/{digest}", headers=headers, ok=(200, 206)) as response:
                skip = offset if response.status == 200 else 0
                try:
                    async for chunk in response.content.iter_any():
                        piece, skip = (chunk[skip:], max(skip - len(chunk), 0)) if skip else (chunk, 0)
                        if piece:
                            offset += len(piece)
                            yield piece
                except _BROKEN as error:
                    broken = error
            if offset >= size:
                return
            fruitless = 0 if offset > before else fruitless + 1
            if fruitless == ATTEMPTS:
                raise unreachable("GET", self._url(f"blobs/{digest}"), broken) from broken
            log.info("blob %s broke off at %d of %d bytes; going on", digest, offset, size)
            await asyncio.sleep(pause if fruitless else 0)
            pause = min(pause * 2, LONGEST_PAUSE) if fruitless else FIRST_PAUSE

    async def has_blob(self, digest: str) -> bool:
        try:
            async with self._exchange("HEAD", f"blobs/{digest}", action="pull,push"):
                return True
        except RegistryError as error:
            if error.status == 404:
                return False
            raise

    async def upload(self, digest: str, size: int, body: Callable[[int], Any], source: str = "") -> bool:
        """Push a blob; `body` makes its bytes from an offset on, anew for each attempt.

        `source` is a repository of the same registry that may have it; True if it was mounted from there. An
        upload that breaks off goes on where the registry says that it stopped, or begins anew.
        """
        location: str | None = None
        offset, pause = 0, FIRST_PAUSE
        for attempt in range(ATTEMPTS):
            if location is None:
                location, offset = await self._begin_upload(digest, source), 0
                if location is None:
                    return True
            try:
                await self._send(location, digest, size, offset, body)
                return False
            except (Unreachable, RegistryError) as error:
                status = error.status if isinstance(error, RegistryError) else 500
                # By these a registry says that it cannot take the rest: then all is sent again.
                anew = offset > 0 and status in (400, 404, 416)
                if attempt == ATTEMPTS - 1 or not (anew or status == 429 or status >= 500):
                    raise
                log.info("upload of %s broke off: %s; going on", digest, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            location, offset = (None, 0) if anew else await self._upload_status(location)
        raise AssertionError("the last attempt returns or raises")

    async def _begin_upload(self, digest: str, source: str) -> str | None:
        """Where to send the blob; None if the registry has mounted it from `source`."""
        mount = f"?mount={digest}&from={source}" if source else ""
        async with self._exchange(
            "POST", f"blobs/uploads/{mount}", ok=(201, 202), action="pull,push"
        ) as answer:
            if answer.status == 201:
                return None
            return _location(answer)

    async def _send(
        self, location: str, digest: str, size: int, offset: int, body: Callable[[int], Any]
    ) -> None:
        """The rest of a blob: in one piece; when some of it is there, as a chunk and a closing request."""
        headers = {"Content-Length": str(size - offset), "Content-Type": "application/octet-stream"}

        def rest() -> Any:
            return body(offset)

        if offset:
            ranged = {**headers, "Content-Range": f"{offset}-{size - 1}"}
            async with self._exchange(
                "PATCH", location, ok=(202,), action="pull,push", headers=ranged, body=rest, attempts=1
            ) as answer:
                location = _location(answer)
            headers, rest = {"Content-Length": "0"}, lambda: b""
        target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        async with self._exchange(
            "PUT", target, ok=(201,), action="pull,push", headers=headers, body=rest, attempts=1
        ):
            return

    async def _upload_status(self, location: str) -> tuple[str | None, int]:
        """Where an upload goes on, and from which byte; None if it can't."""
        try:
            async with self._exchange("GET", location, ok=(204,), action="pull,push") as answer:
                _, _, last = answer.headers.get("Range", "").partition("-")
                if not last.isdigit():
                    return None, 0
                # "0-0" is what many say of an upload that has nothing yet.
                begun = int(last) + 1 if int(last) else 0
                return urljoin(str(answer.url), answer.headers.get("Location", location)), begun
        except RegistryError:
            return None, 0

    async def put_manifest(self, reference: str, media_type: str, data: bytes) -> None:
        headers = {"Content-Type": media_type}
        async with self._exchange(
            "PUT", f"manifests/{reference}", ok=(201,), action="pull,push", headers=headers, body=lambda: data
        ):
            return

    async def tags(self) -> list[str]:
        """Every tag, following the pages of `Link` headers."""
        tags: list[str] = []
        where: str | None = "tags/list"
        while where:
            async with self._exchange("GET", where) as response:
                tags += [str(tag) for tag in (await _document(response)).get("tags") or []]
                following = response.links.get("next")
                where = urljoin(str(response.url), str(following["url"])) if following else None
        return tags

    def _url(self, resource: str) -> str:
        return resource if "://" in resource else f"{self.endpoint.url}/v2/{self.path}/{resource}"

    @contextlib.asynccontextmanager
    async def _exchange(
        self,
        method: str,
        resource: str,
        *,
        action: str = "pull",
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request with authorization; a token that is no longer accepted is replaced once."""
        scope, url = f"repository:{self.path}:{action}", self._url(resource)
        for second_try in (False, True):
            own = urlsplit(url).netloc == self.endpoint.host
            try:
                authorization = await self._authorization(scope, method, url) if own else {}
                async with self.registry.request(
                    self.endpoint, method, url, headers={**(headers or {}), **authorization}, **options
                ) as response:
                    yield response
                    return
            except RegistryError as error:
                bearer = any(each.scheme == "bearer" for each in self.authorizer.challenges)
                if second_try or error.status != 401 or not bearer:
                    raise advised(error, self.endpoint.host, self.authorizer.credentials.name) from error
                self.authorizer.forget(scope)

    async def _authorization(self, scope: str, method: str, url: str) -> dict[str, str]:
        try:
            return await self.authorizer.header(scope)
        except RegistryError as error:
            if error.message == NO_CREDENTIALS and method == "GET":
                raise RegistryError(401, "", f'Get "{url}": {error.message}') from None
            raise


async def _document(response: aiohttp.ClientResponse) -> dict[str, Any]:
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


def _location(answer: aiohttp.ClientResponse) -> str:
    """Where an upload goes on. Raises RegistryError if the registry does not say."""
    if "Location" not in answer.headers:
        raise RegistryError(answer.status, "", f"{answer.url.host} does not say where to send the blob")
    return urljoin(str(answer.url), answer.headers["Location"])


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
