"""Images made by hand: small layers, config, manifest, and an OCI layout of them for other tools to push."""

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard
from dockmagic_runtime.oci import descriptor


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_tar(files: dict[str, bytes]) -> bytes:
    """An uncompressed layer with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Made:
    """An image with one layer for each of `files`."""

    layers: list[bytes]
    settings: dict[str, Any] = field(default_factory=lambda: {"Cmd": ["sh"], "Env": ["PATH=/bin"]})
    architecture: str = "amd64"
    variant: str = ""
    created: str = "2024-05-06T07:08:09.123456789Z"
    compression: str = "gzip"
    docker: bool = False

    @property
    def diff_ids(self) -> list[str]:
        return [digest(layer) for layer in self.layers]

    @property
    def config(self) -> bytes:
        history = [
            {"created": self.created, "created_by": f"COPY layer{i} / # buildkit"}
            for i, _ in enumerate(self.layers)
        ]
        history.append({"created": self.created, "created_by": 'CMD ["sh"]', "empty_layer": True})  # type: ignore[dict-item]
        document = {
            "created": self.created,
            "architecture": self.architecture,
            **({"variant": self.variant} if self.variant else {}),
            "os": "linux",
            "config": self.settings,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": history,
        }
        return json.dumps(document).encode()

    @property
    def id(self) -> str:
        return digest(self.config)

    @property
    def blobs(self) -> list[bytes]:
        if self.compression == "zstd":
            return [zstandard.compress(layer) for layer in self.layers]
        if self.compression == "gzip":
            return [gzip.compress(layer, mtime=0) for layer in self.layers]
        return self.layers

    @property
    def layer_type(self) -> str:
        if self.docker:
            return descriptor.DOCKER_LAYER_GZIP
        return {
            "gzip": descriptor.OCI_LAYER_GZIP,
            "zstd": descriptor.OCI_LAYER_ZSTD,
            "none": descriptor.OCI_LAYER,
        }[self.compression]

    @property
    def media_type(self) -> str:
        return descriptor.DOCKER_MANIFEST if self.docker else descriptor.OCI_MANIFEST

    @property
    def manifest(self) -> bytes:
        config_type = descriptor.DOCKER_CONFIG if self.docker else descriptor.OCI_CONFIG
        document = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": {"mediaType": config_type, "digest": self.id, "size": len(self.config)},
            "layers": [
                {"mediaType": self.layer_type, "digest": digest(blob), "size": len(blob)}
                for blob in self.blobs
            ],
        }
        return json.dumps(document).encode()

    @property
    def platform(self) -> dict[str, str]:
        return {
            "os": "linux",
            "architecture": self.architecture,
            **({"variant": self.variant} if self.variant else {}),
        }

    def layout(self, folder: Path, name: str) -> Path:
        """Write an OCI image layout with this one image in it."""
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for data in (self.config, self.manifest, *self.blobs):
            (blobs / digest(data).removeprefix("sha256:")).write_bytes(data)
        entry = {
            "mediaType": self.media_type,
            "digest": digest(self.manifest),
            "size": len(self.manifest),
            "annotations": {descriptor.REF_NAME: name},
        }
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return folder


def small(*texts: str, **options: Any) -> Made:
    """An image whose layers each hold one file `/layer<i>` with a text."""
    layers = [layer_tar({f"layer{i}": text.encode()}) for i, text in enumerate(texts or ("one", "two"))]
    return Made(layers, **options)
