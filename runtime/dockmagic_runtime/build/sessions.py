"""What a client lends to one build: secrets, agents, and permissions that a Dockerfile alone does not have.

The classic `POST /build` has no room for it, and BuildKit's own session is a gRPC service inside the client.
So it is posted beforehand, to `/dockmagic/build-sessions`, and `POST /build?session=ID` takes it. It is held
in memory only, and is gone with the build that took it.
"""

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import InvalidParameter

_KINDS = ("network.host", "security.insecure")
_WAITING = 64
_LARGEST = 500 * 1024


@dataclass(frozen=True)
class Session:
    """`secrets` and `agents` (paths of sockets on this machine) by their IDs; `allowed` are BuildKit's
    entitlements, `network.host` and `security.insecure`."""

    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    agents: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()


class Sessions:
    """Those that no build has taken yet; of too many the oldest go."""

    def __init__(self) -> None:
        self._waiting: dict[str, Session] = {}

    def open(self, asked: Mapping[str, Any]) -> str:
        """From `{"Secrets": {id: base64}, "Agents": {id: path}, "Allow": [...]}`; returns its ID."""
        session = Session(
            {name: _decoded(name, text) for name, text in _texts(asked, "Secrets").items()},
            {name: _socket(path) for name, path in _texts(asked, "Agents").items()},
            frozenset(_entitlements(asked.get("Allow") or ())),
        )
        identity = secrets.token_hex(16)
        self._waiting[identity] = session
        while len(self._waiting) > _WAITING:
            del self._waiting[next(iter(self._waiting))]
        return identity

    def take(self, identity: str) -> Session:
        """Raises InvalidParameter if there is none such, or a build has had it."""
        try:
            return self._waiting.pop(identity)
        except KeyError:
            raise InvalidParameter(f"no active session for {identity}") from None


def _texts(asked: Mapping[str, Any], name: str) -> dict[str, str]:
    found = asked.get(name) or {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InvalidParameter(f"{name} must be an object of texts")
    return found


def _decoded(name: str, text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameter(f"secret {name} is not base64") from None
    if len(value) > _LARGEST:
        raise InvalidParameter(f"invalid secret size {len(value)}: a secret has at most {_LARGEST} bytes")
    return value


def _socket(path: str) -> str:
    if not Path(path).is_socket():
        raise InvalidParameter(f"{path} is not the socket of an SSH agent")
    return path


def _entitlements(asked: Any) -> list[str]:
    if not isinstance(asked, list | tuple):
        raise InvalidParameter("Allow must be a list of texts")
    for name in asked:
        if name not in _KINDS:
            raise InvalidParameter(f"invalid entitlement: {name}")
    return list(asked)
