"""`docker pull`: a reference becomes an image here.

    endpoints in order → manifest (of an index: the platform's) → config → layers, three at a time → record

The image exists when its record is written, in one transaction, after everything else is on disk. A pull that
is cancelled, or killed, leaves downloaded parts, which the next one takes up, and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from dockmagic_runtime.errors import InvalidParameter, NotFound, NotImplementedHere
from dockmagic_runtime.images import host
from dockmagic_runtime.images.download import LayerDownload
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.progress import Meter, Progress, short, status
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.images.together import together
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci.descriptor import Descriptor
from dockmagic_runtime.oci.documents import read_config
from dockmagic_runtime.oci.image import Platform, choose_manifest
from dockmagic_runtime.oci.reference import DEFAULT_TAG, Reference
from dockmagic_runtime.registry.client import Registry
from dockmagic_runtime.registry.failures import RegistryError, Unreachable, pull_failure
from dockmagic_runtime.registry.repository import SCHEMA_1, Manifest, Repository

AT_ONCE = 3
"""Layers downloaded at the same time, as Docker's `max-concurrent-downloads`."""
_CONFIG_LIMIT = 8 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Found:
    """What a tag or digest led to: the manifest of our platform, and the digest that names the image."""

    manifest: Manifest
    digest: str


class Puller:
    """All pulls of one engine; two of the same layer share one download."""

    def __init__(self, images: ImageStore, registry: Registry) -> None:
        self._images = images
        self._registry = registry
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def pull(
        self,
        reference: Reference,
        platform: Platform | None = None,
        auth: Mapping[str, Any] | None = None,
        progress: Progress = lambda message: None,
    ) -> Image:
        """Get `reference` for `platform` (this machine's by default), telling `progress` in Docker's words.

        Nothing is told before the registry knows the image, so that an error until then is the whole answer.
        Raises NotFound, Unauthorized, Unavailable, InvalidParameter (what came is not what its digest says).
        """
        if reference.repository == host.NAME.repository:
            raise InvalidParameter("'host' is a reserved name")
        wanted = platform or Platform.host()

        async def from_endpoint(repository: Repository) -> Image:
            found = await _find(repository, reference, wanted)
            status_of = reference.digest or reference.tag or DEFAULT_TAG
            progress({"status": f"Pulling from {reference.path}", "id": status_of})
            return await self._fetch(repository, reference, found, progress)

        return await self._from_best(reference, auth, from_endpoint)

    async def pull_all(
        self,
        repository: Reference,
        platform: Platform | None = None,
        auth: Mapping[str, Any] | None = None,
        progress: Progress = lambda message: None,
    ) -> list[Image]:
        """Every tag of a repository (`docker pull --all-tags`)."""

        async def tags(opened: Repository) -> list[str]:
            return await opened.tags()

        names = await self._from_best(repository, auth, tags)
        return [await self.pull(repository.with_tag(tag), platform, auth, progress) for tag in names]

    async def look(
        self, reference: Reference, auth: Mapping[str, Any] | None = None
    ) -> tuple[Descriptor, list[dict[str, Any]]]:
        """What the registry has under `reference`, and for which platforms; no layer is fetched."""

        async def use(repository: Repository) -> tuple[Descriptor, list[dict[str, Any]]]:
            found = await repository.manifest(reference.digest or reference.tag or DEFAULT_TAG)
            described = Descriptor(found.media_type, found.digest, len(found.data))
            if _kind(found) in descriptor.INDEXES:
                entries = found.document.get("manifests") or []
                return described, [entry["platform"] for entry in entries if entry.get("platform")]
            blob = Descriptor.from_json(found.document.get("config") or {})
            config = read_config(await self._config(repository, blob))
            names = ("architecture", "os", "variant")
            return described, [{name: config[name] for name in names if config.get(name)}]

        return await self._from_best(reference, auth, use)

    async def _from_best(
        self,
        reference: Reference,
        auth: Mapping[str, Any] | None,
        use: Callable[[Repository], Awaitable[Result]],
    ) -> Result:
        """What `use` makes of the first endpoint that has the image; of all failures the last counts."""
        failure: RegistryError | Unreachable | None = None
        for endpoint in self._registry.endpoints(reference):
            try:
                return await use(await self._registry.open(endpoint, reference, auth))
            except (RegistryError, Unreachable) as error:
                failure = error
                if isinstance(error, RegistryError) and not endpoint.mirror:
                    break
        raise pull_failure(failure or Unreachable(f"no endpoint for {reference}"), reference) from failure

    async def _fetch(
        self, repository: Repository, reference: Reference, found: _Found, progress: Progress
    ) -> Image:
        images = self._images
        before = images.find(reference)
        document = found.manifest.document
        config_blob = Descriptor.from_json(document.get("config") or {})
        blobs = [Descriptor.from_json(layer) for layer in document.get("layers") or []]
        async with images.adding():
            config = await self._config(repository, config_blob)
            diff_ids = _diff_ids(config, blobs)
            await self._layers(repository, list(zip(blobs, diff_ids, strict=True)), progress)
            manifest = await asyncio.to_thread(images.content.write, found.manifest.data)
            whole = {
                diff_id: blob
                for blob, diff_id in zip(blobs, diff_ids, strict=True)
                if images.content.has(blob.digest)
            }
            named = Reference(reference.domain, reference.path, digest=found.digest)
            names = [named] if reference.digest else [reference, named]
            image = images.add(config, diff_ids, names, origin="pulled", manifest=manifest, blobs=whole)
        images.publish_event("pull", reference.familiar(), {"name": reference.familiar_name})
        status(progress, f"Digest: {found.digest}")
        news = "Image is up to date" if before and before.id == image.id else "Downloaded newer image"
        status(progress, f"Status: {news} for {reference.familiar()}")
        return image

    def _alone(self, blob: Descriptor) -> asyncio.Lock:
        """Whoever holds it is the only one to download that blob."""
        return self._locks.setdefault(blob.digest, asyncio.Lock())

    async def _config(self, repository: Repository, blob: Descriptor) -> bytes:
        """The image config, verified; at most some megabytes."""
        content = self._images.content
        if blob.size > _CONFIG_LIMIT:
            raise InvalidParameter(f"image config of {blob.size} bytes is too large")
        async with self._alone(blob):
            if not content.has(blob.digest):
                with content.writer(blob.digest, blob.size) as writer:
                    async for chunk in repository.blob(blob.digest, blob.size, writer.offset):
                        writer.write(chunk)
                    writer.commit()
        return content.read(blob.digest)

    async def _layers(
        self, repository: Repository, layers: list[tuple[Descriptor, str]], progress: Progress
    ) -> None:
        """All layers that are not here yet. One failing stops the others, which keep what they have.

        A slot is for downloading only: `_layer` gives it back when the blob is there, and goes on unpacking.
        """
        slots = asyncio.Semaphore(AT_ONCE)
        missing: dict[str, Descriptor] = {}
        for blob, diff_id in layers:
            if self._images.layers.get(diff_id):
                status(progress, "Already exists", short(blob.digest))
            else:
                status(progress, "Pulling fs layer", short(blob.digest))
                missing.setdefault(diff_id, blob)
        for blob in list(missing.values())[AT_ONCE:]:
            status(progress, "Waiting", short(blob.digest))
        await together(
            self._layer(repository, blob, diff_id, slots, progress) for diff_id, blob in missing.items()
        )

    async def _layer(
        self,
        repository: Repository,
        blob: Descriptor,
        diff_id: str,
        slots: asyncio.Semaphore,
        progress: Progress,
    ) -> None:
        name = short(blob.digest)
        downloading = Meter(progress, "Downloading", name, blob.size)
        extracting = Meter(progress, "Extracting", name, blob.size)

        def verified() -> None:
            slots.release()
            status(progress, "Verifying Checksum", name)
            status(progress, "Download complete", name)

        async with self._alone(blob):
            await slots.acquire()
            await LayerDownload(
                self._images.content,
                self._images.layers,
                blob,
                diff_id,
                source=lambda offset: repository.blob(blob.digest, blob.size, offset),
                downloaded=downloading.at,
                verified=verified,
                unpacked=extracting.at,
            ).fetch()
        extracting.at(blob.size)
        status(progress, "Pull complete", name)


async def _find(repository: Repository, reference: Reference, platform: Platform) -> _Found:
    """The manifest for `platform`. Raises NotFound, NotImplementedHere, RegistryError, Unreachable."""
    first = await repository.manifest(reference.digest or reference.tag or DEFAULT_TAG)
    manifest = first
    if _kind(first) in descriptor.INDEXES:
        chosen = choose_manifest(first.document, platform)
        manifest = await repository.manifest(chosen.digest)
    kind = _kind(manifest)
    if kind.startswith(SCHEMA_1.removesuffix("+json")):
        raise NotImplementedHere(
            f"{reference.familiar()} is in Docker Image manifest version 2, schema 1, which is no longer "
            "supported. Suggest the author to upgrade the image to the OCI Format or Docker Image manifest "
            "v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/"
        )
    if kind not in descriptor.MANIFESTS:
        raise InvalidParameter(f"unsupported media type {kind or 'unknown'} of {reference.familiar()}")
    return _Found(manifest, first.digest)


def _kind(manifest: Manifest) -> str:
    """The media type: the document's own word, then the header's, then what its fields say."""
    document = manifest.document
    declared = document.get("mediaType") or manifest.media_type
    if document.get("schemaVersion") == 1:
        return SCHEMA_1
    if declared in descriptor.INDEXES | descriptor.MANIFESTS:
        return str(declared)
    if "manifests" in document:
        return descriptor.OCI_INDEX
    return descriptor.OCI_MANIFEST if "config" in document else str(declared)


def _diff_ids(config: bytes, blobs: list[Descriptor]) -> list[str]:
    """The diff IDs of an image's layers. Raises InvalidParameter if config and manifest disagree."""
    document = read_config(config)
    diff_ids = (document.get("rootfs") or {}).get("diff_ids")
    if diff_ids is None:
        raise InvalidParameter("invalid image config: no rootfs.diff_ids (not a container image?)")
    if document.get("os") not in (None, "", "linux"):
        raise NotFound(f'image operating system "{document["os"]}" cannot be used on this platform')
    if len(diff_ids) != len(blobs):
        raise InvalidParameter(f"image config has {len(diff_ids)} layers, but its manifest {len(blobs)}")
    for diff_id in diff_ids:
        descriptor.digest_hex(diff_id)
    return list(diff_ids)
