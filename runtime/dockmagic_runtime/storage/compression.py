"""Layer blobs as plain tar streams: gzip (through isal) and zstd, told apart by their first bytes.

What is corrupt or cut off is an InvalidParameter, whoever the decoder is. Zstd's says nothing of a stream
that ends in the middle of a frame, so its frames are walked beside it (RFC 8878 §3.1).
"""

import bz2
import io
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard
from isal import igzip
from isal.igzip_lib import IsalError

from dockmagic_runtime.errors import InvalidParameter

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
"""What follows the first byte of a frame that holds no data; that byte is 0x50 to 0x5f."""
# The types of isal call its exception one instance of Exception.
_BROKEN = (EOFError, cast(type[Exception], IsalError), zstandard.ZstdError, lzma.LZMAError)


def decompress(source: Path | BinaryIO) -> BinaryIO:
    """The uncompressed bytes of `source` as a stream; what is not compressed is passed through.

    The content decides, not the media type, for registries are known to get that wrong. Close the result;
    that closes the file which this opened for a path, and leaves a stream of the caller's alone. Reading
    raises InvalidParameter where the compressed bytes make no sense, or end too early.
    """
    raw: BinaryIO = source.open("rb") if isinstance(source, Path) else source
    buffered = raw if hasattr(raw, "peek") else io.BufferedReader(cast(io.RawIOBase, raw), 1 << 16)
    magic = cast(io.BufferedReader, buffered).peek(6)[:6]
    file = buffered if isinstance(source, Path) else None
    if magic.startswith(_GZIP):
        return cast(BinaryIO, _Stream(igzip.IGzipFile(fileobj=buffered, mode="rb"), file))
    if magic.startswith(_ZSTD):
        frames = cast(BinaryIO, _WholeFrames(buffered))
        reader = zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True, closefd=False)
        return cast(BinaryIO, _Stream(reader, file))
    if magic.startswith(_BZIP2):
        return cast(BinaryIO, _Stream(bz2.BZ2File(buffered), file))
    if magic.startswith(_XZ):
        return cast(BinaryIO, _Stream(lzma.LZMAFile(buffered), file))
    return cast(BinaryIO, _Stream(buffered, file))


class _Stream(io.RawIOBase):
    """A decoder, and the file under it to close with it."""

    def __init__(self, decoder: object, file: BinaryIO | io.BufferedReader | None) -> None:
        self._decoder = cast(BinaryIO, decoder)
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._decoder.read(size)
        except _BROKEN as error:
            raise InvalidParameter(f"invalid compressed data: {error}") from error
        except OSError as error:
            # Gzip and bzip2 say it so, too; an error of the disk has a number.
            if error.errno is not None:
                raise
            raise InvalidParameter(f"invalid compressed data: {error}") from error

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._file:
            self._file.close()
        super().close()


class _WholeFrames:
    """A zstd stream as it is, a block at a time; reading raises InvalidParameter where it is cut off."""

    def __init__(self, source: BinaryIO | io.BufferedReader) -> None:
        self._source = source
        self._pieces = self._frames()

    def read(self, size: int = -1) -> bytes:
        """The next block: never more than a decoder asks for, which is the largest that there can be."""
        return next(self._pieces, b"")

    def _frames(self) -> Iterator[bytes]:
        while magic := self._source.read(4):
            if magic[1:] == _ZSTD_SKIPPABLE and magic[0] >> 4 == 5:
                yield from self._skippable(magic)
            elif magic == _ZSTD:
                yield from self._frame(magic)
            else:
                raise InvalidParameter("invalid compressed data: no zstd frame where one should begin")

    def _skippable(self, magic: bytes) -> Iterator[bytes]:
        size = self._exactly(4)
        yield magic + size
        missing = int.from_bytes(size, "little")
        while missing:
            yield (piece := self._exactly(min(missing, 1 << 16)))
            missing -= len(piece)

    def _frame(self, magic: bytes) -> Iterator[bytes]:
        descriptor = self._exactly(1)
        flags = descriptor[0]
        window, size = (0, (1, 2, 4, 8)) if flags & 0x20 else (1, (0, 2, 4, 8))
        yield magic + descriptor + self._exactly(window + (0, 1, 2, 4)[flags & 3] + size[flags >> 6])
        last = 0
        while not last:
            header = self._exactly(3)
            number = int.from_bytes(header, "little")
            last, repeated = number & 1, number >> 1 & 3 == 1
            yield header + self._exactly(1 if repeated else number >> 3)
        if flags & 4:
            yield self._exactly(4)

    def _exactly(self, count: int) -> bytes:
        data = self._source.read(count)
        if len(data) < count:
            raise InvalidParameter("invalid compressed data: zstd data ends in the middle of a frame")
        return data
