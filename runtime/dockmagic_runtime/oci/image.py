"""Image documents: platforms, manifests, configs, chain IDs (OCI image-spec).

An image is its config: the sha256 of those bytes is the image ID. The config lists the diff IDs of its
layers, bottom first; the chain ID names a stack of layers (`config.md`, "Layer ChainID").
"""

import hashlib
import platform as machine
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci.descriptor import Descriptor

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
# What is known when it stands alone; in a pair anything goes.
_SYSTEMS = ("linux", "windows", "darwin", "freebsd")
_KNOWN = (
    "386",
    "amd64",
    "arm",
    "arm64",
    "loong64",
    "mips64le",
    "ppc64le",
    "riscv64",
    "s390x",
    "x86_64",
    "aarch64",
)
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}


@dataclass(frozen=True)
class Platform:
    """`os/architecture[/variant]`, in Go's words for both."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def host(cls) -> "Platform":
        """What this machine runs natively."""
        architecture = _ARCHITECTURES.get(machine.machine(), machine.machine())
        return cls("linux", architecture, _DEFAULT_VARIANTS.get(architecture, ""))

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """`linux/amd64`, `linux/arm64/v8`, or one of the two alone. Raises InvalidParameter."""
        parts = text.lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(parts):
            raise InvalidParameter(f'"{text}" is an invalid OS component or architecture of a platform')
        if len(parts) == 1:
            if parts[0] not in (*_SYSTEMS, *_KNOWN):
                raise InvalidParameter(f'"{text}": unknown operating system or architecture')
            parts = [parts[0], cls.host().architecture] if parts[0] in _SYSTEMS else ["linux", parts[0]]
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(parts[1], parts[1])
        return cls(parts[0], architecture, parts[2] if len(parts) == 3 else "")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Platform":
        return cls(
            document.get("os") or "linux", document.get("architecture") or "", document.get("variant") or ""
        )

    def accepts(self, offered: "Platform") -> bool:
        """Whether an image for `offered` is what this platform asks for."""
        same = (self.os, self.architecture) == (offered.os, offered.architecture)
        default = _DEFAULT_VARIANTS.get(self.architecture, "")
        return same and (self.variant or default) == (offered.variant or default)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def choose_manifest(index: Mapping[str, Any], platform: Platform) -> Descriptor:
    """The manifest of an image index for `platform`.

    Raises NotFound with Docker's sentence if there is none.
    """
    candidates = [Descriptor.from_json(entry) for entry in index.get("manifests") or []]
    for candidate in candidates:
        if candidate.platform and platform.accepts(Platform.from_json(candidate.platform)):
            return candidate
    if len(candidates) == 1 and candidates[0].platform is None:
        return candidates[0]
    raise NotFound(f"no matching manifest for {platform} in the manifest list entries")


def manifest(config: Descriptor, layers: Iterable[Descriptor]) -> dict[str, Any]:
    """An OCI image manifest."""
    return {
        "schemaVersion": 2,
        "mediaType": descriptor.OCI_MANIFEST,
        "config": config.as_json(),
        "layers": [layer.as_json() for layer in layers],
    }


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain ID of each prefix of `diff_ids` (bottom first): one per layer."""
    chains: list[str] = []
    for diff_id in diff_ids:
        below = chains[-1] if chains else None
        joined = f"{below} {diff_id}".encode() if below else b""
        chains.append("sha256:" + hashlib.sha256(joined).hexdigest() if below else diff_id)
    return chains


def chain_id(diff_ids: Sequence[str]) -> str:
    """The name of the whole stack; empty for no layers."""
    return chain_ids(diff_ids)[-1] if diff_ids else ""


def history_layers(config: Mapping[str, Any]) -> list[tuple[dict[str, Any], str | None]]:
    """Each history entry of an image config, oldest first, with the diff ID of the layer that it made.

    An entry that made none (`empty_layer`) has None; layers without history get an empty entry at the end.
    """
    remaining = list((config.get("rootfs") or {}).get("diff_ids") or [])
    steps: list[tuple[dict[str, Any], str | None]] = []
    for entry in config.get("history") or []:
        makes_layer = not entry.get("empty_layer") and remaining
        steps.append((entry, remaining.pop(0) if makes_layer else None))
    return steps + [({}, diff_id) for diff_id in remaining]


def timestamp(moment: datetime | None = None) -> str:
    """RFC 3339 in UTC with nanoseconds, as Docker writes `created`; now by default."""
    moment = (moment or datetime.now(UTC)).astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z"
