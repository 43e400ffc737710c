"""A layer's two forms: unpacked, to run on, and as a compressed blob, to send away.

Layers that were pulled have both. `take_in` makes both of a tar that somebody hands us, in one reading of it;
`blob_for` makes the blob of a layer that was built here, when it is pushed or saved for the first time.
"""

import asyncio
import io
import threading
from typing import BinaryIO, cast

from isal import igzip

from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci.descriptor import Descriptor
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.content import BlobWriter, ContentStore
from dockmagic_runtime.storage.layers import Layer, LayerStore
from dockmagic_runtime.threads import in_own_thread, settled

_LEVEL = 1
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def take_in(content: ContentStore, layers: LayerStore, stream: BinaryIO) -> tuple[Layer, Descriptor]:
    """Unpack a layer tar, plain or compressed, and keep it as a blob. Blocks.

    What is gzip or zstd is kept byte for byte; anything else becomes gzip. Raises InvalidParameter for a tar
    that can't be a layer.
    """
    source = io.BufferedReader(cast(io.RawIOBase, stream), 1 << 18)
    magic = source.peek(4)
    with content.writer() as writer:
        if magic.startswith((_GZIP, _ZSTD)):
            kind = descriptor.OCI_LAYER_GZIP if magic.startswith(_GZIP) else descriptor.OCI_LAYER_ZSTD
            copying = Tee(source, cast(BinaryIO, _Sink(writer)))
            with decompress(cast(BinaryIO, copying)) as plain:
                layer = layers.apply(None, plain)
            while copying.read(1 << 18):
                pass
        else:
            kind = descriptor.OCI_LAYER_GZIP
            with decompress(source) as plain, _gzip(writer) as packed:
                layer = layers.apply(None, cast(BinaryIO, Tee(plain, packed)))
        digest, size = writer.commit()
    return layer, Descriptor(kind, digest, size)


async def blob_for(images: ImageStore, diff_id: str) -> Descriptor:
    """The blob of a layer, made if there is none. For use inside of `images.adding()`.

    Of two that want the same one makes it, and the other waits. Cancelled, it stops and leaves nothing.
    """
    async with images.packing(diff_id):
        blob = images.blob_of(diff_id)
        # One that has lost its end is made anew: whoever is sent it would wait for the rest.
        if not (blob and images.content.has(blob.digest) and images.content.size(blob.digest) == blob.size):
            blob = await _packed(images, diff_id)
            images.record_blob(diff_id, blob)
        return blob


async def _packed(images: ImageStore, diff_id: str) -> Descriptor:
    stop = threading.Event()
    packing = in_own_thread(lambda: _pack(images.content, images.layers, diff_id, stop))
    try:
        return await asyncio.shield(packing)
    except BaseException:
        stop.set()
        await settled(packing)
        raise


class _Stopped(Exception):
    """Nobody wants the blob any more."""


def _pack(content: ContentStore, layers: LayerStore, diff_id: str, stop: threading.Event) -> Descriptor:
    with content.writer() as writer:
        with _gzip(writer) as packed:
            layers.tar(diff_id, cast(BinaryIO, _Stoppable(packed, stop)))
        digest, size = writer.commit()
    return Descriptor(descriptor.OCI_LAYER_GZIP, digest, size)


def _gzip(writer: BlobWriter) -> BinaryIO:
    """Without a time in its header, so that the same layer always gives the same blob."""
    return cast(BinaryIO, igzip.IGzipFile(fileobj=_Sink(writer), mode="wb", compresslevel=_LEVEL, mtime=0))


class Tee(io.RawIOBase):
    """A stream that is copied to `sink` as it is read."""

    def __init__(self, source: BinaryIO | io.BufferedReader, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        self._sink.write(data)
        buffer[: len(data)] = data
        return len(data)


class _Stoppable:
    """A stream to write to, until `stop` is set."""

    def __init__(self, stream: BinaryIO, stop: threading.Event) -> None:
        self._stream = stream
        self._stop = stop

    def write(self, data: bytes) -> int:
        if self._stop.is_set():
            raise _Stopped
        return self._stream.write(data)


class _Sink(io.RawIOBase):
    """A blob writer as a file."""

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer

    def writable(self) -> bool:
        return True

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        self._writer.write(data)
        return len(data)
