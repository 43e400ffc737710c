"""Directories become an image: deterministic layer tars and an OCI image layout (image-spec 1.1).

The same files give the same digests: entries are sorted, owners have numbers only, and what was written while
building carries one fixed time. (Files from packages keep their times: Python checks its bytecode by them.)
"""

import gzip
import hashlib
import json
import os
import stat
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

BUILT_AT = 1735689600  # 2025-01-01T00:00:00Z
CREATED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(BUILT_AT))

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's architecture in the words of OCI platforms."""
    machine = os.uname().machine
    return _MACHINES.get(machine, machine)


class _Digester:
    """Passes bytes through to a file and hashes them on the way."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class Layout:
    """An OCI image layout under construction in the directory `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs/sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add_layer(self, directory: Path, since: float) -> tuple[dict[str, Any], str]:
        """Pack the upper directory `directory`; return the layer's descriptor and diff ID.

        Files changed after `since` (seconds, the epoch's) get the fixed time.
        """
        temporary = self._blobs / "layer"
        with temporary.open("wb") as file:
            packed = _Digester(file)
            with gzip.GzipFile("", "wb", compresslevel=4, fileobj=cast(Any, packed), mtime=0) as zipped:
                plain = _Digester(cast(IO[bytes], zipped))
                with tarfile.open(fileobj=cast(Any, plain), mode="w|", format=tarfile.PAX_FORMAT) as tar:
                    _pack(directory, tar, since)
        size = temporary.stat().st_size
        temporary.rename(self._blobs / packed.digest.removeprefix("sha256:"))
        return {"mediaType": _LAYER, "digest": packed.digest, "size": size}, plain.digest

    def add_image(
        self,
        name: str,
        config: dict[str, Any],
        layers: list[dict[str, Any]],
        diff_ids: list[str],
        history: list[Any],
    ) -> None:
        """Write config, manifest and a one-platform index; `name` is what the layout calls the image."""
        platform = {"architecture": architecture(), "os": "linux"}
        image = platform | {
            "created": CREATED,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._add_json(image, _CONFIG),
            "layers": layers,
        }
        index = {
            "schemaVersion": 2,
            "mediaType": _INDEX,
            "manifests": [self._add_json(manifest, _MANIFEST) | {"platform": platform}],
        }
        named = self._add_json(index, _INDEX) | {"annotations": {"org.opencontainers.image.ref.name": name}}
        (self.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))

    def _add_json(self, document: Any, media_type: str) -> dict[str, Any]:
        data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self._blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}


def _pack(directory: Path, tar: tarfile.TarFile, since: float) -> None:
    for path in _walk(directory):
        name = str(path.relative_to(directory))
        status = path.lstat()
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:  # overlayfs' mark for "removed"
            tar.addfile(tarfile.TarInfo(str(Path(name).parent / f".wh.{path.name}")))
            continue
        if stat.S_ISDIR(status.st_mode) and "trusted.overlay.opaque" in os.listxattr(path):
            tar.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))
        entry = tar.gettarinfo(path, name)  # knows second names of one file as hard links
        entry.uname = entry.gname = ""
        entry.mtime = BUILT_AT if status.st_mtime > since else int(status.st_mtime)
        if entry.isreg():
            with path.open("rb") as content:
                tar.addfile(entry, content)
        else:
            tar.addfile(entry)


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
