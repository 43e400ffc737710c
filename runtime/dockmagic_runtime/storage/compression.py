"""Layer blobs as plain tar streams: gzip (through isal) and zstd, told apart by their first bytes."""

import bz2
import io
import lzma
from pathlib import Path
from typing import BinaryIO, cast

import zstandard
from isal import igzip

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"


def decompress(source: Path | BinaryIO) -> BinaryIO:
    """The uncompressed bytes of `source` as a stream; what is not compressed is passed through.

    The content decides, not the media type, for registries are known to get that wrong. Close the result;
    that closes the file which this opened for a path, and leaves a stream of the caller's alone.
    """
    raw: BinaryIO = source.open("rb") if isinstance(source, Path) else source
    buffered = raw if hasattr(raw, "peek") else io.BufferedReader(cast(io.RawIOBase, raw), 1 << 16)
    magic = cast(io.BufferedReader, buffered).peek(6)[:6]
    owned = isinstance(source, Path)
    if magic.startswith(_GZIP):
        return cast(
            BinaryIO, _Stream(igzip.IGzipFile(fileobj=buffered, mode="rb"), buffered if owned else None)
        )
    if magic.startswith(_ZSTD):
        reader = zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True, closefd=False)
        return cast(BinaryIO, _Stream(reader, buffered if owned else None))
    if magic.startswith(_BZIP2):
        return cast(BinaryIO, _Stream(bz2.BZ2File(buffered), buffered if owned else None))
    if magic.startswith(_XZ):
        return cast(BinaryIO, _Stream(lzma.LZMAFile(buffered), buffered if owned else None))
    return cast(BinaryIO, _Stream(buffered, buffered if owned else None))


class _Stream(io.RawIOBase):
    """A decoder, and the file under it to close with it."""

    def __init__(self, decoder: object, file: BinaryIO | io.BufferedReader | None) -> None:
        self._decoder = cast(BinaryIO, decoder)
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._decoder.read(size)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._decoder.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._file:
            self._file.close()
        super().close()
