"""`docker load`: images out of an archive.

It may be an OCI image layout or a Docker archive, from any tool, old or new, plain or compressed. It is read
once, front to back: every tar in it becomes a layer and every JSON document is kept, until at the end of the
archive its manifests say what they were for.
"""

import io
import json
import posixpath
import tarfile
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from dockmagic_runtime import streams
from dockmagic_runtime.errors import InvalidParameter, SystemFailure
from dockmagic_runtime.images.blobs import take_in
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.progress import Progress
from dockmagic_runtime.images.saving import IMAGE_NAME, blob_name
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci.descriptor import Descriptor, sha256_digest
from dockmagic_runtime.oci.documents import read_config, read_manifest
from dockmagic_runtime.oci.image import Platform, choose_manifest
from dockmagic_runtime.oci.reference import Reference, parse_reference
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.layers import Layer

_LINKS = 40  # as many as the kernel follows in one path
_DOCUMENT_LIMIT = 16 << 20
_DOCUMENTS_LIMIT = 128 << 20
"""Bytes of all of them: they are kept in memory until the end of the archive."""

_Known = Mapping[str, tuple[str, Descriptor]]


@dataclass
class _Contents:
    """What an archive holds, by the names in it: documents, layers, and links between names."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, tuple[Layer, Descriptor | None]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    kept: int = 0
    """Bytes that documents and links were of, in the archive."""

    def count(self, size: int) -> None:
        """One more document of that size, or link. Raises InvalidParameter when it is too much for memory."""
        self.kept += tarfile.BLOCKSIZE + size
        if self.kept > _DOCUMENTS_LIMIT:
            raise InvalidParameter(f"invalid archive: documents of more than {_DOCUMENTS_LIMIT} bytes")

    def document(self, name: str) -> bytes:
        """Raises InvalidParameter if the archive has no such file."""
        found = self.documents.get(self._follow(name))
        if found is None:
            raise InvalidParameter(f"invalid archive: {name} is missing")
        return found

    def layer(self, name: str) -> tuple[Layer, Descriptor | None]:
        found = self.layers.get(self._follow(name))
        if found is None:
            raise InvalidParameter(f"invalid archive: layer {name} is missing")
        return found

    def _follow(self, name: str) -> str:
        name = posixpath.normpath(name)
        for _ in range(_LINKS):
            name = self.links.get(name, name)
        return name


@dataclass(frozen=True)
class _Entry:
    """One image of an archive."""

    config: bytes
    layers: Sequence[tuple[Layer, Descriptor | None]]
    names: Sequence[Reference]


async def load(
    images: ImageStore,
    chunks: AsyncIterable[bytes],
    progress: Progress = lambda message: None,
    platform: Platform | None = None,
) -> list[Image]:
    """Take in all images of an archive; tells `progress` what docker load tells.

    Raises InvalidParameter for what is no image archive. Cancelled or failed, no image is recorded and what
    was unpacked is collected.
    """
    loaded: list[Image] = []
    try:
        async with images.adding():
            known = images.blobs()
            contents = await streams.feed(chunks, lambda stream: _read_archive(images, stream, known))
            for entry in _entries(contents, platform or Platform.host()):
                loaded.append(_record(images, entry, progress))
    finally:
        await images.collect()
    return loaded


def _read_archive(images: ImageStore, stream: BinaryIO, known: _Known) -> _Contents:
    """Read an archive to its end: layers into the stores, unless `known`, documents into memory. Blocks."""
    contents = _Contents()
    try:
        with (
            decompress(stream) as plain,
            tarfile.open(fileobj=io.BufferedReader(cast(io.RawIOBase, plain), 1 << 18), mode="r|") as archive,
        ):
            for member in archive:
                _read_member(images, archive, member, contents, known)
    except (tarfile.TarError, ValueError) as error:
        # tarfile lets the errors of int() out, for numbers that are none.
        raise InvalidParameter(f"invalid archive: {error}") from error
    except OSError as error:
        raise SystemFailure(f"cannot load the archive: {error.strerror or error}") from error
    return contents


def _read_member(
    images: ImageStore, archive: tarfile.TarFile, member: tarfile.TarInfo, contents: _Contents, known: _Known
) -> None:
    name = posixpath.normpath(member.name)
    if member.issym():
        contents.links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
    elif member.islnk():
        contents.links[name] = posixpath.normpath(member.linkname)
    file = archive.extractfile(member) if member.isreg() else None
    if file is None:
        contents.count(0)
        return
    digest = f"sha256:{posixpath.basename(name)}" if name.startswith("blobs/sha256/") else None
    present = _present_layer(images, digest, known) if digest else None
    if present:
        contents.layers[name] = present
    elif _is_layer(cast(io.BufferedReader, file).peek(512)):
        layer, blob = take_in(images.content, images.layers, cast(BinaryIO, file))
        _check_digest(name, digest, layer.diff_id, blob.digest)
        contents.layers[name] = (layer, blob)
    elif member.size > _DOCUMENT_LIMIT:
        raise InvalidParameter(f"invalid archive: {name} is neither a layer nor a document")
    else:
        contents.count(member.size)
        data = file.read()
        _check_digest(name, digest, sha256_digest(data))
        contents.documents[name] = data


def _present_layer(images: ImageStore, digest: str, known: _Known) -> tuple[Layer, Descriptor | None] | None:
    """The layer that a blob of an archive is, if it is here already: by its blob's digest or its diff ID."""
    diff_id, blob = known.get(digest, (digest, None))
    layer = images.layers.get(diff_id)
    return (layer, blob) if layer else None


def _check_digest(name: str, digest: str | None, *actual: str) -> None:
    if digest and digest not in actual:
        raise InvalidParameter(f"invalid archive: {name} does not have that digest")


def _is_layer(start: bytes) -> bool:
    """A tar (also the empty one, all zeros), or anything compressed; documents are JSON or one-line texts."""
    compressed = start.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00"))
    return compressed or start[257:262] == b"ustar" or (len(start) >= 512 and not any(start[:512]))


def _entries(contents: _Contents, platform: Platform) -> list[_Entry]:
    """The images of an archive: by Docker's `manifest.json`, else by the layout's `index.json`."""
    try:
        if "manifest.json" in contents.documents:
            return [_docker_entry(contents, item) for item in json.loads(contents.document("manifest.json"))]
        if "index.json" in contents.documents:
            index = read_manifest(contents.document("index.json"))
            return [_oci_entry(contents, Descriptor.from_json(item), platform) for item in index["manifests"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidParameter(f"invalid archive: malformed manifest: {error}") from error
    raise InvalidParameter("invalid archive: does not contain a manifest.json")


def _docker_entry(contents: _Contents, item: Mapping[str, Any]) -> _Entry:
    names = [parse_reference(name) for name in item.get("RepoTags") or []]
    layers = [contents.layer(name) for name in item.get("Layers") or []]
    return _Entry(contents.document(item["Config"]), layers, names)


def _oci_entry(contents: _Contents, item: Descriptor, platform: Platform) -> _Entry:
    document = read_manifest(contents.document(blob_name(item.digest)))
    if "manifests" in document:
        chosen = choose_manifest(document, platform)
        document = read_manifest(contents.document(blob_name(chosen.digest)))
    layers = [contents.layer(blob_name(layer["digest"])) for layer in document["layers"]]
    name = item.annotations.get(IMAGE_NAME) or item.annotations.get(descriptor.REF_NAME) or ""
    # A bare tag, as some tools write it there, does not say of what it is the tag.
    names = [parse_reference(name)] if ":" in name or "/" in name else []
    return _Entry(contents.document(blob_name(document["config"]["digest"])), layers, names)


def _record(images: ImageStore, entry: _Entry, progress: Progress) -> Image:
    diff_ids = [layer.diff_id for layer, _ in entry.layers]
    expected = (read_config(entry.config).get("rootfs") or {}).get("diff_ids") or []
    if len(expected) != len(diff_ids):
        raise InvalidParameter(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(expected)}"
        )
    for position, (wanted, actual) in enumerate(zip(expected, diff_ids, strict=True)):
        if wanted != actual:
            raise InvalidParameter(
                f'invalid diffID for layer {position}: expected "{wanted}", got "{actual}"'
            )
    blobs = {layer.diff_id: blob for layer, blob in entry.layers if blob}
    image_id = sha256_digest(entry.config)
    for name in entry.names:
        before = images.find(name)
        if before and before.id != image_id:
            progress(
                {
                    "stream": f"The image {name.familiar()} already exists, renaming the old one with ID "
                    f"{before.id} to empty string\n"
                }
            )
    image = images.add(entry.config, diff_ids, entry.names, origin="loaded", blobs=blobs)
    images.publish_event("load", image.id, {"name": image.id})
    for name in entry.names:
        progress({"stream": f"Loaded image: {name.familiar()}\n"})
    if not entry.names:
        progress({"stream": f"Loaded image ID: {image.id}\n"})
    return image
