"""What an image is here: its ID, its names, its config, its stack of layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dockmagic_runtime.oci.image import Platform
from dockmagic_runtime.oci.reference import Reference, parse_reference

UNDATED = "0001-01-01T00:00:00Z"
"""Go's zero time, which Docker shows for an image without a date."""


@dataclass(frozen=True)
class Image:
    """An image that is here. `config` is its OCI config document, `diff_ids` its layers, bottom first.

    `references` are all its normalised names, tags and digests. `origin` says how it came here: `pulled`,
    `loaded`, `imported`, `built`, or `host` for the reserved image `host`. `size` in bytes, layers unpacked.
    `cached` are the layers that the last build of the image found made already.
    """

    id: str
    config: Mapping[str, Any]
    diff_ids: tuple[str, ...]
    size: int = 0
    origin: str = "built"
    parent: str = ""
    references: tuple[Reference, ...] = ()
    last_tagged: str | None = None
    manifest: str | None = None
    cached: frozenset[str] = frozenset()
    host: bool = field(default=False)

    @property
    def repo_tags(self) -> list[str]:
        """`nginx:latest` …, sorted."""
        return sorted(reference.familiar() for reference in self.references if not reference.digest)

    @property
    def repo_digests(self) -> list[str]:
        """`nginx@sha256:…` …, sorted."""
        return sorted(reference.familiar() for reference in self.references if reference.digest)

    @property
    def created(self) -> str:
        """RFC 3339."""
        return self.config.get("created") or UNDATED

    @property
    def settings(self) -> Mapping[str, Any]:
        """What containers inherit: `Cmd`, `Env`, `Entrypoint` … (the config's `config`)."""
        return self.config.get("config") or {}

    @property
    def labels(self) -> Mapping[str, str]:
        return self.settings.get("Labels") or {}

    @property
    def platform(self) -> Platform:
        return Platform.from_json(self.config)

    @property
    def short_id(self) -> str:
        """Twelve hex digits, as Docker shows it."""
        return self.id.removeprefix("sha256:")[:12]


def key(reference: Reference) -> Reference:
    """The name under which a reference is kept: of a tag and a digest together the digest decides."""
    return reference.with_digest(reference.digest) if reference.digest else reference


def stored_reference(name: str) -> Reference:
    """A normalised name read back from the database."""
    return parse_reference(name, default_tag=None)
