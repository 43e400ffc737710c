"""Compressed streams that are whole, cut off, corrupt, or followed by something."""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable

import pytest
import zstandard
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.storage.compression import decompress

Compress = Callable[[bytes], bytes]
# What does not compress, what does, and more than one block of each.
DATA = os.urandom(300_000) + bytes(400_000) + b"text" * 50_000


def zstd_stream(data: bytes) -> bytes:
    """As a tool writes it that does not know the size before, with a checksum, in several blocks."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(out, closefd=False) as writer:
        for start in range(0, len(data), 50_000):
            writer.write(data[start : start + 50_000])
            writer.flush()
    return out.getvalue()


ALL = pytest.mark.parametrize(
    "compress", [gzip.compress, zstandard.compress, zstd_stream, bz2.compress, lzma.compress]
)


def plain(data: bytes) -> bytes:
    with decompress(io.BytesIO(data)) as stream:
        return b"".join(iter(lambda: stream.read(1 << 16), b""))


@ALL
def test_whole_and_several(compress: Compress) -> None:
    assert plain(compress(DATA)) == DATA
    assert plain(compress(DATA) + compress(b"more")) == DATA + b"more"


@ALL
@pytest.mark.parametrize("left", [0.999, 0.5, 0.1])
def test_cut_off(compress: Compress, left: float) -> None:
    packed = compress(DATA)
    with pytest.raises(InvalidParameter, match="invalid compressed data"):
        plain(packed[: int(len(packed) * left)])


def test_zstd_cut_off_anywhere() -> None:
    """Its decoder takes the end of its input for the end of the data: a backup would be short, unseen."""
    packed = zstd_stream(b"data" * 100) + zstandard.compress(b"more")
    ends = []
    for end in range(4, len(packed) + 1):
        try:
            plain(packed[:end])
            ends.append(end)
        except InvalidParameter:
            continue
    assert ends == [len(zstd_stream(b"data" * 100)), len(packed)]


def test_zstd_frames_without_data_are_skipped() -> None:
    nothing = b"\x5f\x2a\x4d\x18" + (70_000).to_bytes(4, "little") + bytes(70_000)
    assert plain(zstandard.compress(b"one") + nothing + zstandard.compress(b"two")) == b"onetwo"
    with pytest.raises(InvalidParameter, match="in the middle of a frame"):
        plain(zstandard.compress(b"one") + nothing[:-1])


@pytest.mark.parametrize("compress", [gzip.compress, zstd_stream, bz2.compress, lzma.compress])
def test_corrupt(compress: Compress) -> None:
    packed = bytearray(compress(DATA))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(InvalidParameter, match="invalid compressed data"):
        plain(bytes(packed))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_what_follows_is_no_part_of_it(compress: Compress) -> None:
    with pytest.raises(InvalidParameter, match="invalid compressed data"):
        plain(compress(DATA) + b"garbage")


def test_more_memory_than_anybody_needs() -> None:
    """A zstd frame may ask for a window of terabytes."""
    with pytest.raises(InvalidParameter, match="too much memory"):
        plain(b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00" + bytes(20))


def test_an_error_of_the_disk_stays_one() -> None:
    class Failing(io.RawIOBase):
        rest = gzip.compress(DATA)[:200_000]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            if not self.rest:
                raise OSError(5, "Input/output error")
            data, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
            buffer[: len(data)] = data
            return len(data)

    with decompress(Failing()) as stream, pytest.raises(OSError, match="Input/output"):  # type: ignore[arg-type]
        stream.read()
