"""An image as the manifest of an OCI image layout, which is what the content store is on disk."""

import json
from collections.abc import Callable
from dataclasses import replace

from dockmagic_runtime.images.image import Image
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci import image as oci_image
from dockmagic_runtime.oci.descriptor import Descriptor
from dockmagic_runtime.storage.content import ContentStore

_AS_OCI = {
    descriptor.DOCKER_LAYER: descriptor.OCI_LAYER,
    descriptor.DOCKER_LAYER_GZIP: descriptor.OCI_LAYER_GZIP,
}


def pulled_manifest(content: ContentStore, image: Image) -> bytes | None:
    """The manifest by which an image was pulled, if that and all that it names is here."""
    if not image.manifest or not content.has(image.manifest):
        return None
    data = content.read(image.manifest)
    document = json.loads(data)
    parts = [document["config"], *document["layers"]]
    return data if all(content.has(part["digest"]) for part in parts) else None


def oci_manifest(
    content: ContentStore, image: Image, blob_of: Callable[[str], Descriptor | None]
) -> Descriptor | None:
    """An OCI manifest of the image in the content store, written if need be; None if a blob is missing.

    `blob_of` gives the compressed form of a layer by its diff ID. The manifest that the image was pulled by
    may be Docker's kind, which tools that read image layouts do not take.
    """
    data = pulled_manifest(content, image)
    if data is None or json.loads(data).get("mediaType", descriptor.OCI_MANIFEST) != descriptor.OCI_MANIFEST:
        blobs = [blob_of(diff_id) for diff_id in image.diff_ids]
        if not all(blobs):
            return None
        config = Descriptor(descriptor.OCI_CONFIG, image.id, content.size(image.id))
        document = oci_image.manifest(config, [_as_oci(blob) for blob in blobs if blob])
        data = json.dumps(document).encode()
    platform = {"os": image.platform.os, "architecture": image.platform.architecture}
    return Descriptor(descriptor.OCI_MANIFEST, content.write(data), len(data), platform=platform)


def _as_oci(blob: Descriptor) -> Descriptor:
    return replace(blob, media_type=_AS_OCI.get(blob.media_type, blob.media_type))
