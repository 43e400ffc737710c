"""Credentials become an `Authorization` header (distribution-spec, "Token Authentication").

A registry answers 401 with a challenge. `Basic` wants the credentials themselves; `Bearer` names a token
server (the realm), which hands out short-lived tokens per scope, such as `repository:library/nginx:pull`, in
exchange for the credentials or for none. Credentials go to the registry they are for and to the realm that it
names, nowhere else.
"""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.registry.challenge import Challenge
from dockmagic_runtime.registry.failures import RegistryError, Unreachable

NO_CREDENTIALS = "no basic auth credentials"
_FIELDS = ("username", "password", "auth", "identitytoken", "registrytoken")
_EARLY = 10
"""Seconds before its end at which a token counts as expired."""


class Fetch(Protocol):
    """How the token server is asked: one HTTP request, its JSON answer."""

    async def __call__(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Credentials:
    """Docker's X-Registry-Auth: a name and password, or a refresh token that a login has left."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    @classmethod
    def from_auth(cls, auth: Mapping[str, Any] | None) -> "Credentials":
        """Of a client's JSON, whose names Go reads in any case: docker-py writes some with capitals.

        Raises InvalidParameter.
        """
        auth = {name.lower(): value for name, value in (auth or {}).items()}
        if not all(isinstance(auth.get(name) or "", str) for name in _FIELDS):
            raise InvalidParameter("invalid credentials: user name, password and tokens are texts")
        username, password = auth.get("username") or "", auth.get("password") or ""
        if auth.get("auth") and not username:
            try:
                username, _, password = base64.b64decode(auth["auth"]).decode().partition(":")
            except ValueError:
                raise InvalidParameter("invalid credentials: auth is not base64 of name:password") from None
        return cls(username, password, auth.get("identitytoken") or "", auth.get("registrytoken") or "")

    @property
    def name(self) -> str:
        """Who that is, as far as is known."""
        return self.username or ("the owner of the token" if self else "")

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


@dataclass
class Authorizer:
    """The `Authorization` of the requests to one endpoint on behalf of one user."""

    credentials: Credentials
    fetch: Fetch
    challenges: list[Challenge] = field(default_factory=list)
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)

    async def header(self, scope: str) -> dict[str, str]:
        """What to send along for `scope`; empty where the registry has not asked for anything.

        Raises RegistryError when there are no credentials, or the token server's own refusal.
        """
        if self.credentials.registry_token:
            return {"Authorization": f"Bearer {self.credentials.registry_token}"}
        for challenge in self.challenges:
            if challenge.scheme == "bearer":
                return {"Authorization": f"Bearer {await self._token(challenge, scope)}"}
            if challenge.scheme == "basic":
                return {"Authorization": self._basic()}
        return {}

    def forget(self, scope: str) -> None:
        """The registry did not accept the token for `scope`: get another."""
        self._tokens.pop(scope, None)

    def _basic(self) -> str:
        if not self.credentials.username:
            raise RegistryError(401, "", NO_CREDENTIALS)
        pair = f"{self.credentials.username}:{self.credentials.password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    async def _token(self, challenge: Challenge, scope: str) -> str:
        token, expires = self._tokens.get(scope, ("", 0.0))
        if time.monotonic() >= expires:
            token, seconds = await self._new_token(challenge, scope)
            self._tokens[scope] = (token, time.monotonic() + max(seconds - _EARLY, 0))
        return token

    async def _new_token(self, challenge: Challenge, scope: str) -> tuple[str, int]:
        realm = challenge.parameters.get("realm", "")
        service = challenge.parameters.get("service", "")
        if self.credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self.credentials.identity_token,
                "service": service,
                "client_id": "dockmagic",
                "scope": scope,
            }
            answer = await self.fetch("POST", realm, data={k: v for k, v in form.items() if v})
        else:
            query = {"service": service, "scope": scope, "account": self.credentials.username}
            headers = {"Authorization": self._basic()} if self.credentials.username else {}
            answer = await self.fetch(
                "GET", realm, params={k: v for k, v in query.items() if v}, headers=headers
            )
        token = answer.get("token") or answer.get("access_token")
        if not token:
            raise Unreachable("authorization server did not include a token in the response")
        seconds = answer.get("expires_in")
        return str(token), seconds if isinstance(seconds, int) and seconds > 0 else 60
