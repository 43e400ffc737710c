"""`docker save`: an archive of images.

It is both at once, as modern Docker's is: an OCI image layout (`oci-layout`, `index.json`, `blobs/`), and a
Docker archive whose `manifest.json` names the same blobs.
"""

import io
import json
import tarfile
from collections.abc import AsyncGenerator, Sequence
from typing import Any, BinaryIO

from dockmagic_runtime import streams
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.images.blobs import blob_for
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci import image as oci_image
from dockmagic_runtime.oci.descriptor import Descriptor, sha256_digest
from dockmagic_runtime.oci.reference import Reference, parse_reference

IMAGE_NAME = "io.containerd.image.name"
"""The annotation that names an image of a layout whole."""


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
                        _file(archive, blob_name(blob.digest), file, blob.size)
            config = images.content.read(image.id)
            as_config = Descriptor(descriptor.OCI_CONFIG, image.id, len(config))
            manifest = json.dumps(oci_image.manifest(as_config, blobs)).encode()
            entry = Descriptor(descriptor.OCI_MANIFEST, sha256_digest(manifest), len(manifest))
            for digest, data in ((image.id, config), (entry.digest, manifest)):
                if digest not in written:
                    written.add(digest)
                    _document(archive, blob_name(digest), data)
            index += _index_entries(entry, references)
            manifests.append(
                {
                    "Config": blob_name(image.id),
                    "RepoTags": [reference.familiar() for reference in references] or None,
                    "Layers": [blob_name(blob.digest) for blob in blobs],
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
            {IMAGE_NAME: reference.normalized(), descriptor.REF_NAME: reference.tag or ""},
        ).as_json()
        for reference in references
    ]


def blob_name(digest: str) -> str:
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
