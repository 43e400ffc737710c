"""What went wrong with a registry, in the words a Docker user knows.

Two kinds: the registry answered with an error document (distribution-spec, "Error Codes"), or there was no
answer at all; the latter is told as Go's net/http tells it, because that is what people search for. What one
can do about it follows in parentheses, where that is known.
"""

import asyncio
import json
import os
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from dockmagic_runtime.errors import EngineError, NotFound, SystemFailure, Unauthorized, Unavailable
from dockmagic_runtime.oci.reference import Reference
from dockmagic_runtime.registry.challenge import parse_challenges


@dataclass
class RegistryError(Exception):
    """An error that a registry reported: HTTP status, error code such as `MANIFEST_UNKNOWN`, its message."""

    status: int
    code: str
    message: str
    advice: str = ""

    def __str__(self) -> str:
        said = f"{self.code.lower().replace('_', ' ')}: {self.message}" if self.code else self.message
        return f"{said} ({self.advice})" if self.advice else said


class Unreachable(Exception):
    """No usable answer from an endpoint; another endpoint may have one. `str` is the whole sentence."""


async def error_of(response: aiohttp.ClientResponse) -> RegistryError:
    """Read the error document of a failed response; a bearer challenge's own error goes first (RFC 6750)."""
    for challenge in parse_challenges(response.headers.getall("WWW-Authenticate", [])):
        code = _BEARER_CODES.get(challenge.parameters.get("error", "")) if response.status == 401 else None
        if code:
            message = challenge.parameters.get("error_description") or _MESSAGES[code]
            return RegistryError(response.status, code, message)
    body = await response.content.read(64 << 10)
    try:
        document = json.loads(body)
        first = document["errors"][0]
        return RegistryError(response.status, str(first["code"]), _message(first))
    except (ValueError, KeyError, IndexError, TypeError):
        pass
    if isinstance(details := _parsed(body), dict) and isinstance(details.get("details"), str):
        return RegistryError(response.status, _code_of(response.status), details["details"])
    code = _code_of(response.status)
    if code:
        return RegistryError(response.status, code, _MESSAGES[code])
    return RegistryError(
        response.status, "", f"received unexpected HTTP status: {response.status} {response.reason}"
    )


def unreachable(method: str, url: str, error: BaseException) -> Unreachable:
    """What Go would print: `Get "https://…": dial tcp 127.0.0.1:1: connect: connection refused`."""
    reason = _reason(error)
    host = urlsplit(url).netloc
    if reason == _PLAIN_HTTP:
        reason += f" (if that is meant, start the engine with --insecure-registry {host})"
    elif reason.endswith(_UNKNOWN_AUTHORITY):
        reason += f" (to trust it, put its authority's certificate into /etc/dockmagic/certs.d/{host}/ca.crt)"
    return Unreachable(f'{method.capitalize()} "{url}": {reason}')


def advised(error: RegistryError, host: str, user: str) -> RegistryError:
    """A refusal with what can be done about it; `user` is who asked, empty for nobody."""
    if error.status == 401:
        error.advice = f"log in to {host} again, as {user}" if user else f"log in to {host} first"
    elif error.status == 403 and user:
        error.advice = f"{user} has no right to that at {host}"
    return error


def pull_failure(error: RegistryError | Unreachable, reference: Reference) -> EngineError:
    """The sentence and the meaning of a failed pull of `reference`."""
    if isinstance(error, Unreachable):
        return Unavailable(str(error))
    if error.code == "MANIFEST_UNKNOWN":
        return NotFound(f"manifest for {reference.familiar()} not found: {error}")
    if error.code == "NAME_UNKNOWN":
        return NotFound(f"repository {reference.familiar_name} not found: {error}")
    if error.code == "DENIED":
        error.advice = ""  # the sentence has Docker's own
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require "
            f"'docker login': {error}"
        )
    return failure(error)


def failure(error: RegistryError | Unreachable) -> EngineError:
    """The meaning of a registry's refusal of anything but a pull."""
    if isinstance(error, Unreachable):
        return Unavailable(str(error))
    if error.code in ("UNAUTHORIZED", "DENIED") or error.status == 401:
        return Unauthorized(str(error))
    if error.status == 404:
        return NotFound(str(error))
    return SystemFailure(str(error))


_PLAIN_HTTP = "http: server gave HTTP response to HTTPS client"
_UNKNOWN_AUTHORITY = "certificate signed by unknown authority"
_MESSAGES = {
    "UNAUTHORIZED": "authentication required",
    "DENIED": "requested access to the resource is denied",
    "TOOMANYREQUESTS": "too many requests",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "UNAVAILABLE": "service unavailable",
}
_BEARER_CODES = {"invalid_token": "UNAUTHORIZED", "insufficient_scope": "DENIED"}
_CODES = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "MANIFEST_UNKNOWN",
    429: "TOOMANYREQUESTS",
    503: "UNAVAILABLE",
}


def _code_of(status: int) -> str:
    return _CODES.get(status, "")


def _message(entry: dict[str, object]) -> str:
    return str(entry.get("message") or entry.get("detail") or "unknown error")


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {_certificate_problem(error)}"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return _tls_problem(error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: {_lookup_problem(error.os_error)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"dial tcp {error.host}:{error.port}: connect: {_strerror(error.os_error)}"
    if isinstance(error, asyncio.TimeoutError):
        return "net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.InvalidURL):
        return "invalid URL"
    if isinstance(error, OSError) and error.strerror:
        return _strerror(error)
    return str(error) or type(error).__name__


def _certificate_problem(error: BaseException) -> str:
    cause = getattr(error, "certificate_error", error)
    text = str(getattr(cause, "verify_message", "") or cause)
    if "self-signed" in text or "unable to get" in text:
        return _UNKNOWN_AUTHORITY
    if "expired" in text:
        return "certificate has expired or is not yet valid"
    return text


def _tls_problem(error: BaseException) -> str:
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text or "HTTP_REQUEST" in text:
        return _PLAIN_HTTP
    return f"remote error: tls: {text}"


def _lookup_problem(error: OSError) -> str:
    if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
        return "no such host"
    return (error.strerror or str(error)).lower()


def _strerror(error: OSError) -> str:
    cause = error.__cause__ or error.__context__
    text = error.strerror or ""
    if error.errno and (not text or text.startswith("Connect call failed")):
        text = os.strerror(error.errno)
    return (text or str(cause or error)).lower()
