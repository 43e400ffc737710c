"""Image references: the names people type, and the repositories and tags they mean.

The grammar and its defaults are those of `distribution/reference`, Docker's own parser:

    reference  = name [ ":" tag ] [ "@" digest ]
    name       = [ domain "/" ] path          domain defaults to docker.io, where a
    domain     = host [ ":" port ]            one-word path means library/<path>

The first part of a name is a domain if it holds a dot, a colon or an upper-case letter, or is `localhost`.
"""

import re
from dataclasses import dataclass, replace

from dockmagic_runtime.errors import InvalidParameter

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])"
_DOMAIN = rf"{_HOST}(?::[0-9]+)?"
_TAG = r"[\w][\w.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?",
    re.ASCII,
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_HASH_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True)
class Reference:
    """A fully normalised reference. At least one of `tag` and `digest` is set unless asked otherwise."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """`docker.io/library/nginx`"""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """`nginx`: the repository as Docker shows it."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        short = self.path.removeprefix("library/")
        return self.path if "/" in short else short

    def familiar(self) -> str:
        """`nginx:latest`: the whole reference as Docker shows it."""
        return self.familiar_name + self._suffix()

    def normalized(self) -> str:
        """`docker.io/library/nginx:latest`"""
        return self.repository + self._suffix()

    def with_tag(self, tag: str) -> "Reference":
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: str) -> "Reference":
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        return self.familiar()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def check_tag(tag: str) -> None:
    """A tag that comes without a name. Raises InvalidParameter with Docker's sentence."""
    if not re.fullmatch(_TAG, tag, re.ASCII):
        raise InvalidParameter("invalid tag format")


def parse_reference(text: str, default_tag: str | None = DEFAULT_TAG) -> Reference:
    """The reference that `text` means; without tag or digest it gets `default_tag` (None: stays untagged).

    Raises InvalidParameter with Docker's sentence.
    """
    if not text:
        raise InvalidParameter("invalid reference format")
    if _IDENTIFIER.fullmatch(text):
        raise InvalidParameter(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remainder = _split_domain(text)
    name = remainder.split("@", 1)[0].split(":", 1)[0]
    if name != name.lower():
        raise InvalidParameter(f"invalid reference format: repository name ({name}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if not match:
        raise InvalidParameter("invalid reference format")
    if len(match["path"]) > 255:
        raise InvalidParameter("repository name must not be more than 255 characters")
    digest = match["digest"]
    if digest:
        _check_digest(digest)
    tag = match["tag"]
    return Reference(domain, match["path"], tag or (None if digest else default_tag), digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_domain = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    domain, remainder = (first, rest) if is_domain else (DEFAULT_DOMAIN, text)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"library/{remainder}"
    return domain, remainder


def _check_digest(digest: str) -> None:
    algorithm, _, value = digest.partition(":")
    if algorithm not in _HASH_LENGTHS:
        raise InvalidParameter("unsupported digest algorithm")
    if len(value) != _HASH_LENGTHS[algorithm] or value != value.lower():
        raise InvalidParameter("invalid checksum digest length")
