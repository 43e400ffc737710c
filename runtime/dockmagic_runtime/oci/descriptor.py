"""Content descriptors and media types (OCI image-spec, `descriptor.md` and `media-types.md`).

A descriptor says what a blob is without having it: its media type, digest and size. Docker's older
media types name the same documents; `MANIFESTS`, `INDEXES` and `LAYERS` hold both spellings.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dockmagic_runtime.errors import InvalidParameter

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
LAYERS = frozenset({OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP})

REF_NAME = "org.opencontainers.image.ref.name"

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def sha256_digest(data: bytes) -> str:
    """`sha256:<hex>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_hex(digest: str) -> str:
    """The hexadecimal part of a digest, which is also a safe file name.

    Raises InvalidParameter unless it is a sha256 digest, the one algorithm every registry uses.
    """
    if not _SHA256.fullmatch(digest):
        raise InvalidParameter(f"invalid digest: {digest}")
    return digest.removeprefix("sha256:")


@dataclass(frozen=True)
class Descriptor:
    """One blob as a manifest or an index names it; `size` in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Descriptor":
        """Raises InvalidParameter if a required field is absent or makes no sense."""
        digest, size = document.get("digest"), document.get("size")
        if not isinstance(digest, str) or not isinstance(size, int) or size < 0:
            raise InvalidParameter("invalid descriptor: digest and size are required")
        digest_hex(digest)
        return cls(
            document.get("mediaType") or "",
            digest,
            size,
            document.get("annotations") or {},
            document.get("platform"),
        )

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform:
            document["platform"] = dict(self.platform)
        return document
