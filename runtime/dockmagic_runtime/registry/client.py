"""The registries, as one engine sees them: which endpoint of a host answers, and how it wants to be asked.

A `Registry` is the engine's one client. `open` asks a host `GET /v2/` once, to learn its scheme and what it
wants as authentication, and gives a `Repository`, whose methods are the requests of the protocol.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.errors import InvalidParameter, Unauthorized
from dockmagic_runtime.oci.reference import Reference
from dockmagic_runtime.registry.auth import Authorizer, Credentials
from dockmagic_runtime.registry.challenge import parse_challenges
from dockmagic_runtime.registry.endpoints import Endpoint, endpoints
from dockmagic_runtime.registry.failures import RegistryError, Unreachable, error_of, failure
from dockmagic_runtime.registry.repository import Repository
from dockmagic_runtime.registry.transport import Transport, document


class Registry:
    """All registries, as one engine sees them. Close it at the end."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._transport = Transport()
        self._chosen: dict[str, Endpoint] = {}

    async def close(self) -> None:
        await self._transport.close()

    def endpoints(self, reference: Reference, *, push: bool = False) -> list[Endpoint]:
        """What to try for `reference`, best first; of two schemes only the one that answered before."""
        candidates = endpoints(reference, self._config, push=push)
        return [
            each for each in candidates if self._chosen.get(each.host, each) == each or each.mirror
        ] or candidates

    async def open(
        self, endpoint: Endpoint, reference: Reference, auth: Mapping[str, Any] | None = None
    ) -> Repository:
        """Learn how to speak with `endpoint`. Raises Unreachable or RegistryError."""
        credentials = Credentials() if endpoint.mirror else Credentials.from_auth(auth)
        authorizer = Authorizer(credentials, self._fetch_json)
        url = f"{endpoint.url}/v2/"
        async with self._transport.request(endpoint, "GET", url, ok=(200, 401)) as response:
            if response.status == 401:
                authorizer.challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
                if not authorizer.challenges:
                    raise await error_of(response)
        self._chosen[endpoint.host] = endpoint
        return Repository(self._transport, endpoint, reference.path, authorizer)

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
                async with self._transport.request(endpoint, "GET", url, headers=headers):
                    return
            except Unreachable as error:
                problem = error
            except RegistryError as error:
                if error.status != 401:
                    raise failure(error) from error
                sentence = f"login attempt to {url} failed with status: 401 Unauthorized"
                raise Unauthorized(f"{sentence} (the user name or the password is wrong)") from error
        raise failure(problem or Unreachable(f"no endpoint for {host}")) from problem

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
        async with self._transport.request(
            endpoint, method, url, headers=headers, body=body, params=params
        ) as response:
            return await document(response)

    def _realm(self, url: str) -> Endpoint:
        """The token server gets the trust of the registry on the same host, if it is that."""
        host = urlsplit(url).netloc
        return self._chosen.get(host) or endpoints(Reference(host, ""), self._config)[0]
