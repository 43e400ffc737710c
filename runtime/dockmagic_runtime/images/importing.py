"""`docker import`: an image out of a file system's tar."""

import json
from collections.abc import AsyncIterable, Mapping
from typing import Any

from dockmagic_runtime import streams
from dockmagic_runtime.images.blobs import take_in
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci import image as oci_image
from dockmagic_runtime.oci.image import Platform
from dockmagic_runtime.oci.reference import Reference


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
