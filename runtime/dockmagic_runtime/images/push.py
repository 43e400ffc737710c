"""`docker push`: an image here becomes a tag in a registry.

Layers first, three at a time, each unless the registry has it, or has it in a repository that an image with
this layer was pulled from or pushed to: then it is mounted from there; then the config, then the manifest,
which makes the tag. An image that was pulled, and is whole as blobs, is pushed by the manifest it came
with, so that its digest stays; any other by a Docker schema 2 manifest.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import NotFound
from dockmagic_runtime.images import host
from dockmagic_runtime.images.blobs import blob_for
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.layout import pulled_manifest
from dockmagic_runtime.images.progress import Meter, Progress, short, status
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.images.together import together
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci.descriptor import Descriptor, sha256_digest
from dockmagic_runtime.oci.reference import Reference
from dockmagic_runtime.registry.client import Registry
from dockmagic_runtime.registry.failures import RegistryError, Unreachable, failure
from dockmagic_runtime.registry.repository import Repository

AT_ONCE = 3
_CHUNK = 1 << 18
_AS_DOCKER = {
    descriptor.OCI_LAYER: descriptor.DOCKER_LAYER,
    descriptor.OCI_LAYER_GZIP: descriptor.DOCKER_LAYER_GZIP,
}


async def push(
    images: ImageStore,
    registry: Registry,
    reference: Reference,
    auth: Mapping[str, Any] | None = None,
    progress: Progress = lambda message: None,
) -> str:
    """Push one tag; returns the digest of its manifest.

    Raises NotFound ("An image does not exist locally …"), Unauthorized, Unavailable, SystemFailure. If it is
    cancelled, the registry may have some more blobs, and no new tag.
    """
    status(progress, f"The push refers to repository [{reference.repository}]")
    image = images.find(reference)
    if image is None or image.host or reference.repository == host.NAME.repository:
        raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
    problem: RegistryError | Unreachable | None = None
    for endpoint in registry.endpoints(reference, push=True):
        try:
            repository = await registry.open(endpoint, reference, auth)
            return await _push(images, repository, image, reference, progress)
        except Unreachable as error:
            problem = error
        except RegistryError as error:
            raise failure(error) from error
    raise failure(problem or Unreachable(f"no endpoint for {reference}")) from problem


async def push_all(
    images: ImageStore,
    registry: Registry,
    repository: Reference,
    auth: Mapping[str, Any] | None = None,
    progress: Progress = lambda message: None,
) -> list[str]:
    """Push every tag of a repository that is here. Raises as `push`."""
    tags = sorted(
        reference.tag
        for image in images.list()
        for reference in image.references
        if reference.repository == repository.repository and reference.tag
    )
    if not tags:
        raise NotFound(f"An image does not exist locally with the tag: {repository.familiar_name}")
    return [await push(images, registry, repository.with_tag(tag), auth, progress) for tag in tags]


async def _push(
    images: ImageStore, repository: Repository, image: Image, reference: Reference, progress: Progress
) -> str:
    for diff_id in reversed(image.diff_ids):
        status(progress, "Preparing", short(diff_id))
    async with images.adding():
        slots = asyncio.Semaphore(AT_ONCE)
        diff_ids = list(dict.fromkeys(image.diff_ids))
        pushed = await together(
            _push_layer(images, repository, reference, diff_id, slots, progress) for diff_id in diff_ids
        )
        blobs = dict(zip(diff_ids, pushed, strict=True))
        config = images.content.read(image.id)
        if not await repository.has_blob(image.id):
            await repository.upload(image.id, len(config), lambda offset: config[offset:])
        data = pulled_manifest(images.content, image) or _manifest(image, len(config), blobs)
        media_type = json.loads(data).get("mediaType") or descriptor.OCI_MANIFEST
        tag = reference.tag or ""
        await repository.put_manifest(tag, media_type, data)
    digest = sha256_digest(data)
    images.name(image, Reference(reference.domain, reference.path, digest=digest))
    images.publish_event("push", reference.familiar(), {"name": reference.familiar_name})
    status(progress, f"{tag}: digest: {digest} size: {len(data)}")
    progress({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": len(data)}})
    return digest


async def _push_layer(
    images: ImageStore,
    repository: Repository,
    reference: Reference,
    diff_id: str,
    slots: asyncio.Semaphore,
    progress: Progress,
) -> Descriptor:
    name = short(diff_id)
    async with slots:
        blob = await blob_for(images, diff_id)
        if await repository.has_blob(blob.digest):
            status(progress, "Layer already exists", name)
            return blob
        meter = Meter(progress, "Pushing", name, blob.size)
        path = images.content.path(blob.digest)
        source = _elsewhere(images, reference, diff_id)
        if await repository.upload(
            blob.digest, blob.size, lambda offset: _file_chunks(path, meter, offset), source
        ):
            status(progress, f"Mounted from {source}", name)
        else:
            status(progress, "Pushed", name)
        return blob


def _elsewhere(images: ImageStore, reference: Reference, diff_id: str) -> str:
    """Another repository of the same registry that has had the layer, or nothing."""
    for image in images.list():
        if diff_id in image.diff_ids:
            for known in image.references:
                if known.digest and known.domain == reference.domain and known.path != reference.path:
                    return known.path
    return ""


async def _file_chunks(path: Path, meter: Meter, offset: int) -> AsyncIterator[bytes]:
    sent = offset
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            yield chunk
            sent += len(chunk)
            meter.at(sent)


def _manifest(image: Image, config_size: int, blobs: Mapping[str, Descriptor]) -> bytes:
    """A Docker schema 2 manifest; with a zstd layer, which that does not know, an OCI one."""
    layers = [blobs[diff_id] for diff_id in image.diff_ids]
    docker = all(layer.media_type != descriptor.OCI_LAYER_ZSTD for layer in layers)
    if docker:
        layers = [
            Descriptor(_AS_DOCKER.get(layer.media_type, layer.media_type), layer.digest, layer.size)
            for layer in layers
        ]
    config_type = descriptor.DOCKER_CONFIG if docker else descriptor.OCI_CONFIG
    document = {
        "schemaVersion": 2,
        "mediaType": descriptor.DOCKER_MANIFEST if docker else descriptor.OCI_MANIFEST,
        "config": Descriptor(config_type, image.id, config_size).as_json(),
        "layers": [layer.as_json() for layer in layers],
    }
    return json.dumps(document, indent=3).encode()
