"""The requests of the distribution protocol (OCI distribution-spec 1.1) to one repository.

A broken download goes on at the byte where it stopped, a broken upload where the registry says that it did.
Nothing received is trusted: manifests are checked against their digest here, blobs by who stores them.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci.descriptor import sha256_digest
from dockmagic_runtime.oci.documents import read_manifest
from dockmagic_runtime.registry.auth import NO_CREDENTIALS, Authorizer
from dockmagic_runtime.registry.endpoints import Endpoint
from dockmagic_runtime.registry.failures import RegistryError, Unreachable, advised, unreachable
from dockmagic_runtime.registry.transport import (
    ATTEMPTS,
    BROKEN,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Transport,
    document,
)

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as the registry sent it; `document` is what `data` says."""

    media_type: str
    digest: str
    data: bytes
    document: dict[str, Any]


@dataclass
class Repository:
    """One repository at one endpoint."""

    transport: Transport
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
                except BROKEN as error:
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
                tags += [str(tag) for tag in (await document(response)).get("tags") or []]
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
                async with self.transport.request(
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


def _location(answer: aiohttp.ClientResponse) -> str:
    """Where an upload goes on. Raises RegistryError if the registry does not say."""
    if "Location" not in answer.headers:
        raise RegistryError(answer.status, "", f"{answer.url.host} does not say where to send the blob")
    return urljoin(str(answer.url), answer.headers["Location"])
