"""Tar headers that `tarfile` does not write: numbers, names and depths that nobody has."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import trees
from dockmagic_runtime.storage.layers import LayerStore

END = bytes(1024)


def block(name: bytes = b"f", kind: bytes = b"0", link: bytes = b"", **fields: bytes) -> bytes:
    """One header; `fields` are mode, uid, gid, size, mtime, device, tail, as they stand in it."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:148] = b"0000644\0" + b"0000000\0" * 2 + b"00000000000\0" * 2
    header[156:157], header[157 : 157 + len(link)], header[257:265] = kind, link, b"ustar\x0000"
    places = {"mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "device": 329, "tail": 386}
    for field, value in fields.items():
        header[places[field] : places[field] + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(**records: bytes) -> bytes:
    data = b""
    for key, value in records.items():
        body = b" " + key.replace("__", ".").encode() + b"=" + value + b"\n"
        length = next(n for n in range(len(body), len(body) + 9) if n == len(body) + len(str(n)))
        data += b"%d" % length + body
    return block(b"pax", b"x", size=b"%011o\0" % len(data)) + padded(data)


def base256(value: int, width: int) -> bytes:
    return (value + (1 << 8 * width) if value < 0 else value | 0x80 << 8 * (width - 1)).to_bytes(width, "big")


def sparse(pairs: list[tuple[int, int]], size: int, stored: int) -> bytes:
    table = b"".join(b"%011o\0%011o\0" % pair for pair in pairs).ljust(97, b"\0") + b"%011o\0" % size
    return block(kind=b"S", size=b"%011o\0" % stored, tail=table) + padded(b"x" * stored)


NULL_NAMED = "SCHILY__xattr__user__a\0b"
HOSTILE = {
    "a size of 2^80": block(size=base256(1 << 80, 12)),
    "a size of 2^63": block(size=base256(1 << 63, 12)),
    "a negative size": block(size=base256(-5, 12)),
    "a size with a sign": block(size=b"-0000000005\0"),
    "a pax size of 20 digits": pax(size=b"9" * 20) + block(),
    "an owner of 2^50": block(uid=base256(1 << 50, 8)),
    "a negative owner": block(gid=base256(-7, 8)),
    "a directory's owner": block(b"d/", b"5", uid=base256(1 << 50, 8)),
    "a link's owner": block(b"l", b"2", b"x", uid=base256(1 << 50, 8)),
    "a pax owner": pax(uid=b"9" * 19) + block(),
    "a device of 2^50": block(kind=b"3", device=base256(1 << 50, 8) * 2),
    "a negative device": block(kind=b"4", device=base256(-1, 8) * 2),
    "a time of 2^80": block(mtime=base256(1 << 80, 12)),
    "a mode for Python": block(mode=b"0_644\0\0\0"),
    "NUL in a name": pax(path=b"a\0b") + block(),
    "NUL in a link": pax(linkpath=b"a\0b") + block(kind=b"2", link=b"x"),
    "NUL in a hard link": pax(linkpath=b"a\0b") + block(kind=b"1", link=b"x"),
    "NUL in an attribute's name": pax(**{NULL_NAMED: b"v"}) + block(),
    "a long attribute": pax(SCHILY__xattr__user__k=b"v" * 70_000) + block(),
    "a link to nothing": block(kind=b"2"),
    "a hard link to a directory": block(b"d/", b"5") + block(b"h", b"1", b"d"),
    "a name beyond PATH_MAX": pax(path=b"a/" * 3000 + b"f") + block(),
    "a name that climbs out": pax(path=b"../../f") + block(),
    "a sparse name that climbs out": pax(
        GNU__sparse__major=b"1", GNU__sparse__realsize=b"5", GNU__sparse__name=b"../../f"
    )
    + block(size=b"%011o\0" % 517)
    + padded(b"1\n0\n5\n")
    + padded(b"x" * 5),
    "sparse parts that overlap": sparse([(0, 5), (3, 5)], 100, 10),
    "sparse parts beyond the end": sparse([(0, 5), (200, 5)], 100, 10),
    "less than the sparse parts": sparse([(0, 5)], 100, 10),
    "a sparse size of 10^19": pax(GNU__sparse__map=b"0,5", GNU__sparse__size=b"9" * 19)
    + block(size=b"00000000005\0")
    + padded(b"x" * 5),
    "a long name of a negative size": block(kind=b"L", size=base256(-5, 12)),
}


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[LayerStore]:
    store = LayerStore(tmp_path / "layers")
    yield store
    trees.remove(store.root)  # pytest's own way fails on a deep one


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_in_a_line_and_nothing_stays(layers: LayerStore, name: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        layers.apply(None, io.BytesIO(HOSTILE[name] + END))
    assert "checksum" not in str(refused.value), "the test's own header is wrong"
    assert len(str(refused.value)) < 500 and "\n" not in str(refused.value)
    assert layers.diff_ids() == [] and list((layers.root / "tmp").iterdir()) == []


def test_a_name_of_as_many_parts_as_there_may_be(layers: LayerStore) -> None:
    layer = layers.apply(None, io.BytesIO(pax(path=b"a/" * 2000 + b"f") + block() + END))
    fd = os.open(layer.path, os.O_RDONLY)
    names = [name for _, name, _ in trees.contents_first(fd)]
    os.close(fd)
    assert names == [b"f", *[b"a"] * 2000]
    layers.remove(layer.diff_id)
    assert list((layers.root / "tmp").iterdir()) == []


def test_a_deep_layer_goes_and_is_swept(layers: LayerStore) -> None:
    """Directories deeper than a path is long, through links that shorten it."""
    half = b"a/" * 1900
    tar = pax(path=half) + block(b"d/", b"5") + pax(linkpath=half) + block(b"l", b"2", b"x")
    tar += pax(path=b"l/" + half) + block(b"d/", b"5") + END
    layer = layers.apply(None, io.BytesIO(tar))
    layer.path.parent.rename(layers.root / "tmp/left")
    LayerStore(layers.root).sweep()
    assert list((layers.root / "tmp").iterdir()) == []
