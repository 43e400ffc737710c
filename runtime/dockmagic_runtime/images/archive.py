"""`docker load`, `save` and `import`: images as tar files.

What we save is both at once, as modern Docker's is: an OCI image layout (`oci-layout`, `index.json`,
`blobs/`), and a Docker archive whose `manifest.json` names the same blobs. What we load may be either, from
any tool, old or new, plain or compressed, and is read once, front to back: every tar in it becomes a layer
and every JSON document is kept, until at the end of the archive its manifests say what they were for.
"""

import io
import json
import posixpath
import tarfile
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from dockmagic_runtime import streams
from dockmagic_runtime.errors import InvalidParameter, SystemFailure
from dockmagic_runtime.images.blobs import blob_for, take_in
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.progress import Progress
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci import image as oci_image
from dockmagic_runtime.oci.descriptor import Descriptor, sha256_digest
from dockmagic_runtime.oci.documents import read_config, read_manifest
from dockmagic_runtime.oci.image import Platform, choose_manifest
from dockmagic_runtime.oci.reference import Reference, parse_reference
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.layers import Layer

_IMAGE_NAME = "io.containerd.image.name"
_LINKS = 40  # as many as the kernel follows in one path
_DOCUMENT_LIMIT = 16 << 20
_DOCUMENTS_LIMIT = 128 << 20
"""Bytes of all of them: they are kept in memory until the end of the archive."""


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


async def save(images: ImageStore, names: Sequence[str]) -> AsyncGenerator[bytes, None]:
    """The archive of the images that `names` mean, piece by piece.

    A repository without a tag means all its tags, as in Docker. Raises NotFound before the first piece.
    """
    chosen = _chosen(images, names)
    async with images.adding():
        saved: list[tuple[Image, list[Reference], list[Descriptor]]] = []
        for image, references in chosen:
            blobs = [await blob_for(images, diff_id) for diff_id in image.diff_ids]
            saved.append((image, references, blobs))
        async for chunk in streams.tap(lambda out: _write_archive(images, saved, out)):
            yield chunk
    for image, _ in chosen:
        images.publish_event("save", image.id, {"name": image.id})


async def import_(
    images: ImageStore,
    chunks: AsyncIterable[bytes],
    reference: Reference | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    message: str = "",
    platform: Platform | None = None,
) -> Image:
    """A file system tar, plain or compressed, becomes an image of one layer with `settings` as its config."""
    wanted = platform or Platform.host()
    async with images.adding():
        layer, blob = await streams.feed(chunks, lambda tar: take_in(images.content, images.layers, tar))
        now = oci_image.timestamp()
        config = {
            "created": now,
            "architecture": wanted.architecture,
            **({"variant": wanted.variant} if platform and wanted.variant else {}),
            "os": wanted.os,
            "comment": message or "Imported from -",
            "config": dict(settings or {}),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created": now, "comment": message or "Imported from -"}],
        }
        names = [reference] if reference else []
        data = json.dumps(config, separators=(",", ":")).encode()
        image = images.add(data, [layer.diff_id], names, origin="imported", blobs={layer.diff_id: blob})
    images.publish_event("import", image.id, {"name": reference.familiar() if reference else image.id})
    return image


# -- reading


_Known = Mapping[str, tuple[str, Descriptor]]


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
    document = read_manifest(contents.document(_blob_name(item.digest)))
    if "manifests" in document:
        chosen = choose_manifest(document, platform)
        document = read_manifest(contents.document(_blob_name(chosen.digest)))
    layers = [contents.layer(_blob_name(layer["digest"])) for layer in document["layers"]]
    name = item.annotations.get(_IMAGE_NAME) or item.annotations.get(descriptor.REF_NAME) or ""
    # A bare tag, as some tools write it there, does not say of what it is the tag.
    names = [parse_reference(name)] if ":" in name or "/" in name else []
    return _Entry(contents.document(_blob_name(document["config"]["digest"])), layers, names)


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


# -- writing


def _chosen(images: ImageStore, names: Sequence[str]) -> list[tuple[Image, list[Reference]]]:
    """Each image once, with the names under which it is saved."""
    chosen: dict[str, tuple[Image, list[Reference]]] = {}
    for name in names:
        references = _named(images, name)
        found: list[tuple[Image, Reference | None]] = [
            (image, reference) for reference in references if (image := images.find(reference))
        ]
        for image, reference in found or [(images.get(name), None)]:
            if image.host:
                raise InvalidParameter(
                    "'host' is a reserved name: the machine's own file system can't be saved"
                )
            kept = chosen.setdefault(image.id, (image, []))[1]
            if reference and not reference.digest and reference not in kept:
                kept.append(reference)
    return list(chosen.values())


def _named(images: ImageStore, name: str) -> list[Reference]:
    """The references that `name` asks for: itself, or all tags of the repository if it says no tag."""
    try:
        bare = parse_reference(name, default_tag=None)
    except InvalidParameter:
        return []
    if bare.tag or bare.digest:
        return [bare]
    tags = [each for image in images.list() for each in image.references if not each.digest]
    return [each for each in tags if each.repository == bare.repository]


def _write_archive(
    images: ImageStore, saved: Sequence[tuple[Image, list[Reference], list[Descriptor]]], out: BinaryIO
) -> None:
    """The whole archive; every blob in it once. Blocks."""
    index: list[dict[str, Any]] = []
    manifests: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    written: set[str] = set()
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        _directory(archive, "blobs")
        _directory(archive, "blobs/sha256")
        for image, references, blobs in saved:
            for blob in blobs:
                if blob.digest not in written:
                    written.add(blob.digest)
                    with images.content.path(blob.digest).open("rb") as file:
                        _file(archive, _blob_name(blob.digest), file, blob.size)
            config = images.content.read(image.id)
            as_config = Descriptor(descriptor.OCI_CONFIG, image.id, len(config))
            manifest = json.dumps(oci_image.manifest(as_config, blobs)).encode()
            entry = Descriptor(descriptor.OCI_MANIFEST, sha256_digest(manifest), len(manifest))
            for digest, data in ((image.id, config), (entry.digest, manifest)):
                if digest not in written:
                    written.add(digest)
                    _document(archive, _blob_name(digest), data)
            index += _index_entries(entry, references)
            manifests.append(
                {
                    "Config": _blob_name(image.id),
                    "RepoTags": [reference.familiar() for reference in references] or None,
                    "Layers": [_blob_name(blob.digest) for blob in blobs],
                }
            )
            for reference in references:
                top = oci_image.chain_id(image.diff_ids).removeprefix("sha256:")
                repositories.setdefault(reference.familiar_name, {})[reference.tag or ""] = top
        layout = {"schemaVersion": 2, "mediaType": descriptor.OCI_INDEX, "manifests": index}
        _document(archive, "index.json", json.dumps(layout).encode())
        _document(archive, "manifest.json", json.dumps(manifests).encode())
        _document(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        if repositories:
            _document(archive, "repositories", json.dumps(repositories).encode())


def _index_entries(entry: Descriptor, references: Sequence[Reference]) -> list[dict[str, Any]]:
    if not references:
        return [entry.as_json()]
    return [
        Descriptor(
            entry.media_type,
            entry.digest,
            entry.size,
            {_IMAGE_NAME: reference.normalized(), descriptor.REF_NAME: reference.tag or ""},
        ).as_json()
        for reference in references
    ]


def _blob_name(digest: str) -> str:
    return "blobs/sha256/" + descriptor.digest_hex(digest)


def _directory(archive: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(info)


def _document(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    _file(archive, name, io.BytesIO(data), len(data))


def _file(archive: tarfile.TarFile, name: str, content: BinaryIO, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    archive.addfile(info, content)
