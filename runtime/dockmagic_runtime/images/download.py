"""One layer on its way in: downloaded, verified and unpacked at the same time.

The event loop writes the compressed bytes into the content store as they arrive. A thread follows that file,
some way behind, and decompresses and unpacks what is there already (`Arriving` makes it wait for more). So
the network is never held up by the unpacking, and a download taken up where it broke off is nothing special:
the beginning is in the file already.

The thread sees the end of the file only when the blob's digest is verified, and keeps the layer only if its
diff ID is the one the image's config says. Cancelling stops the thread; the partial blob stays, to be
resumed. It is a thread of its own, not one of the event loop's pool: it waits for bytes, and a pool full of
such would have none left to do what brings them.
"""

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.oci.descriptor import Descriptor, digest_hex
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.content import BlobWriter, ContentStore
from dockmagic_runtime.storage.layers import Layer, LayerStore
from dockmagic_runtime.threads import in_own_thread, settled

Source = Callable[[int], AsyncIterator[bytes]]
"""Gives the bytes of a blob from an offset on."""


class Interrupted(Exception):
    """The rest of the bytes will not arrive."""


class Arriving(io.RawIOBase):
    """A file that is being written, as a stream that waits at its end.

    Whoever writes the file says what happens: `announce`, `finish`, `fail`.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._changed = threading.Condition()
        self._available = 0
        self._position = 0
        self._ended = False
        self._failed = False

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._position

    def announce(self, available: int) -> None:
        with self._changed:
            self._available = available
            self._changed.notify()

    def finish(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def fail(self) -> None:
        with self._changed:
            self._failed = True
            self._changed.notify()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with self._changed:
            while not (self._failed or self._ended or self._position < self._available):
                self._changed.wait()
            if self._failed:
                raise Interrupted
            wanted = min(len(buffer), self._available - self._position)
        got = os.preadv(self._fd, [buffer[:wanted]], self._position)
        self._position += got
        return got

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


@dataclass(frozen=True)
class LayerDownload:
    """A layer that is to be fetched: as a blob into the content store, unpacked into the layer store.

    `downloaded` and `unpacked` are told bytes of the compressed blob, on the event loop's thread; `verified`
    that all of it came and has its digest.
    """

    content: ContentStore
    layers: LayerStore
    blob: Descriptor
    diff_id: str
    source: Source
    downloaded: Callable[[int], None]
    verified: Callable[[], None]
    unpacked: Callable[[int], None]

    async def fetch(self) -> Layer:
        """What was left by an earlier attempt and proves to be rotten is dropped, and it starts over once.

        Raises InvalidParameter for a blob that is not what the manifest says, and whatever `source` raises.
        """
        if self.content.has(self.blob.digest):
            self.verified()
            return await asyncio.to_thread(self._unpack, self.content.path(self.blob.digest))
        writer = await asyncio.to_thread(self.content.writer, self.blob.digest, self.blob.size)
        resumed = writer.offset > 0
        try:
            return await self._stream(writer)
        except InvalidParameter:
            if not resumed:
                raise
        return await self._stream(self.content.writer(self.blob.digest, self.blob.size))

    async def _stream(self, writer: BlobWriter) -> Layer:
        path = self.content.root / "ingest" / digest_hex(self.blob.digest)
        with writer, Arriving(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as arriving:
            arriving.announce(writer.offset)
            unpacking = in_own_thread(lambda: self._unpack(cast(BinaryIO, arriving)))
            try:
                async for chunk in self.source(writer.offset):
                    writer.write(chunk)
                    arriving.announce(writer.offset)
                    self.downloaded(writer.offset)
                    if unpacking.done():
                        break
                else:
                    await asyncio.to_thread(writer.commit)
                    self.verified()
                    arriving.finish()
                while not unpacking.done():
                    await asyncio.wait((unpacking,), timeout=0.1)
                    self.unpacked(arriving.position)
                return unpacking.result()
            except BaseException:
                arriving.fail()
                await settled(unpacking)
                raise

    def _unpack(self, packed: Path | BinaryIO) -> Layer:
        with decompress(packed) as plain:
            return self.layers.apply(self.diff_id, plain)
