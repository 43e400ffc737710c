"""Tars from hostile and from odd hands become layers, or are refused; nothing lands outside."""

import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.storage.layers import Layer, LayerStore, decompress

Member = tuple[str, dict[str, object], bytes]


def member(name: str, content: bytes = b"", **fields: object) -> Member:
    return name, fields, content


def directory(name: str, **fields: object) -> Member:
    return member(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def symlink(name: str, target: str) -> Member:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def archive(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, fields, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def layers(tmp_path: Path) -> LayerStore:
    return LayerStore(tmp_path / "layers")


@pytest.fixture
def apply(layers: LayerStore) -> Callable[..., Layer]:
    return lambda *members: layers.apply(None, io.BytesIO(archive(*members)))


Apply = Callable[..., Layer]


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_metadata(apply: Apply) -> None:
    layer = apply(
        directory("./", mode=0o711),
        directory("d/", mode=0o1777, uid=5, gid=6, mtime=1000),
        member("d/f", b"hello", mode=0o4755, uid=7, gid=8, mtime=2000.5),
        member("d/w", mode=0o666),
        symlink("d/l", "/nowhere"),
        hardlink("d/h", "d/f"),
        member("d/fifo", type=tarfile.FIFOTYPE, mode=0o640),
        member("d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
    )
    top = layer.path
    assert stat.S_IMODE(top.stat().st_mode) == 0o711
    d, f = (top / "d").stat(), (top / "d/f").stat()
    assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_gid, d.st_mtime) == (0o1777, 5, 6, 1000)
    assert (stat.S_IMODE(f.st_mode), f.st_uid, f.st_gid, f.st_mtime) == (0o4755, 7, 8, 2000.5)
    assert stat.S_IMODE((top / "d/w").stat().st_mode) == 0o666
    assert (top / "d/l").readlink() == Path("/nowhere")
    assert (top / "d/h").stat().st_ino == f.st_ino
    assert stat.S_ISFIFO((top / "d/fifo").stat().st_mode)
    assert (top / "d/null").stat().st_rdev == os.makedev(1, 3)
    assert layer.size == 5


def test_attributes_travel_but_overlayfs_own_do_not(apply: Apply) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    records = {
        "SCHILY.xattr.user.note": "hi",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
    }
    layer = apply(directory("d/", pax_headers=records), member("f", b"x", pax_headers=records))
    for name in ("d", "f"):
        assert sorted(os.listxattr(layer.path / name)) == ["security.capability", "user.note"]
        assert os.getxattr(layer.path / name, "security.capability") == capability


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "..", "a/b/../../../x"])
def test_a_name_that_climbs_out_is_refused(apply: Apply, layers: LayerStore, name: str) -> None:
    with pytest.raises(InvalidParameter, match="outside of the archive's root"):
        apply(directory("a/"), member(name, b"x"))
    assert layers.diff_ids() == []
    assert list((layers.root / "tmp").iterdir()) == []


def test_absolute_and_odd_names_are_relative_to_the_root(apply: Apply) -> None:
    layer = apply(member("/etc/a", b"1"), member("./b//c/./d", b"2"), member("x/../y", b"3"))
    assert (layer.path / "etc/a").read_bytes() == b"1"
    assert (layer.path / "b/c/d").read_bytes() == b"2"
    assert (layer.path / "y").read_bytes() == b"3"


@pytest.mark.parametrize(
    "target", ["/", "/etc", "../../..", "{outside}", "/proc/self/root", "/proc/self/cwd"]
)
def test_symlinks_lead_nowhere_else(apply: Apply, tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = target.format(outside=outside)
    try:
        layer = apply(symlink("link", target), member("link/evil", b"x"))
    except InvalidParameter:
        pass
    else:
        found = list(layer.path.rglob("evil"))
        assert all(path.is_relative_to(layer.path) for path in found) and found
    assert list(outside.iterdir()) == []
    assert not Path("/evil").exists() and not Path("/etc/evil").exists()


def test_a_link_in_the_layer_is_followed_inside(apply: Apply) -> None:
    layer = apply(
        directory("usr/lib/"), symlink("lib", "usr/lib"), member("lib/x", b"1"), directory("lib/d/")
    )
    assert (layer.path / "usr/lib/x").read_bytes() == b"1"
    assert (layer.path / "usr/lib/d").is_dir() and (layer.path / "lib").is_symlink()


def test_a_file_never_goes_through_a_symlink_of_its_own_name(apply: Apply, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    layer = apply(symlink("f", str(victim)), member("f", b"evil"))
    assert victim.read_text() == "safe" and (layer.path / "f").read_bytes() == b"evil"
    layer = apply(symlink("d", str(tmp_path)), directory("d/", mode=0o777), member("d/victim", b"evil"))
    assert victim.read_text() == "safe" and not (layer.path / "d").is_symlink()


@pytest.mark.parametrize("target", ["{victim}", "../../../../{victim}", "link/victim", "missing"])
def test_hard_links_stay_inside(apply: Apply, tmp_path: Path, target: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    with pytest.raises(InvalidParameter):
        apply(symlink("link", str(tmp_path)), hardlink("h", target.format(victim=victim)))
    assert victim.stat().st_nlink == 1


def test_a_hard_link_to_a_symlink_is_to_the_link(apply: Apply, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    layer = apply(symlink("s", str(victim)), hardlink("h", "s"), member("h", b"evil"))
    assert victim.read_text() == "safe" and (layer.path / "h").read_bytes() == b"evil"


def test_whiteouts_take_overlayfs_form(apply: Apply) -> None:
    layer = apply(directory("d/"), member("d/.wh.gone"), directory("o/"), member("o/.wh..wh..opq"))
    assert is_whiteout(layer.path / "d/gone")
    assert is_opaque(layer.path / "o") and list((layer.path / "o").iterdir()) == []


@pytest.mark.parametrize("first", [True, False])
def test_whiteouts_are_about_lower_layers_only(apply: Apply, first: bool) -> None:
    new = [member("f", b"new"), directory("d/"), member("d/x", b"new")]
    gone = [member(".wh.f"), member(".wh.d")]
    layer = apply(*(gone + new if first else new + gone))
    assert (layer.path / "f").read_bytes() == b"new"
    assert (layer.path / "d/x").read_bytes() == b"new" and is_opaque(layer.path / "d")


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh...", ".wh.d/x"])
def test_false_whiteouts_are_refused(apply: Apply, name: str) -> None:
    with pytest.raises(InvalidParameter):
        apply(directory("d/"), member(name))


def test_aufs_bookkeeping_is_skipped(apply: Apply) -> None:
    layer = apply(directory(".wh..wh.plnk/"), member(".wh..wh.plnk/1.2", b"x"), member("f"))
    assert [path.name for path in layer.path.iterdir()] == ["f"]


def test_the_last_of_duplicates_stays(apply: Apply) -> None:
    layer = apply(
        member("a", b"1", mode=0o600),
        member("a", b"22"),
        directory("b/"),
        member("b/c/d", b"x"),
        member("b", b"file"),
        directory("e/", mode=0o700),
        member("e/f", b"x"),
        directory("e/", mode=0o711),
    )
    assert (layer.path / "a").read_bytes() == b"22"
    assert (layer.path / "b").read_bytes() == b"file"
    assert (layer.path / "e/f").exists() and stat.S_IMODE((layer.path / "e").stat().st_mode) == 0o711


def test_a_directory_replaced_after_it_was_filled(apply: Apply) -> None:
    layer = apply(
        directory("a/", mode=0o777),
        member("a/x", b"1"),
        symlink("a", "b"),
        directory("b/"),
        member("a/y", b"2"),
    )
    assert (layer.path / "a").is_symlink() and [p.name for p in (layer.path / "b").iterdir()] == ["y"]


def test_a_directory_replaced_by_another_name_than_it_was_made_by(apply: Apply) -> None:
    layer = apply(
        directory("b"), symlink("a", "b"), directory("a/d", mode=0o700), member("b/d", b"a file now\n")
    )
    assert (layer.path / "a").is_symlink() and (layer.path / "b/d").read_text() == "a file now\n"


def test_a_file_where_a_directory_is_needed(apply: Apply) -> None:
    with pytest.raises(InvalidParameter, match=r"[nN]ot a directory"):
        apply(member("f", b"x"), member("f/g", b"y"))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(layers: LayerStore, format: int) -> None:
    name = "/".join(["directory" * 8] * (2 if format == tarfile.USTAR_FORMAT else 5)) + "/ünïcödé"
    data = archive(member(name, b"x"), member("große-datei", b"y"), format=format)
    layer = layers.apply(None, io.BytesIO(data))
    assert (layer.path / name).read_bytes() == b"x"
    assert (layer.path / "große-datei").read_bytes() == b"y"


def test_names_that_are_not_utf8(layers: LayerStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Path(os.fsdecode(bytes(source) + b"/\xff\xfe")).write_bytes(b"x")
    data = subprocess.run(["tar", "-C", source, "-c", "."], capture_output=True, check=True).stdout
    layer = layers.apply(None, io.BytesIO(data))
    assert [os.fsencode(path.name) for path in layer.path.iterdir()] == [b"\xff\xfe"]


@pytest.mark.parametrize("format", ["gnu", "pax 0.0", "pax 0.1", "pax 1.0"])
def test_sparse_files(layers: LayerStore, tmp_path: Path, format: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for number in range(30):  # more than the four that fit into an old GNU header
            file.seek(number * 1_000_000)
            file.write(b"data%d" % number)
        file.truncate(50_000_000)
    kind, _, version = format.partition(" ")
    options = [f"--format={kind}", *([f"--sparse-version={version}"] if version else [])]
    data = subprocess.run(
        ["tar", "-C", source, "-c", "--sparse", *options, "sparse"], capture_output=True, check=True
    ).stdout
    assert len(data) < 5_000_000
    layer = layers.apply(None, io.BytesIO(data))
    assert (layer.path / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (layer.path / "sparse").stat().st_blocks * 512 < 5_000_000
    assert layer.size == 50_000_000


def test_a_file_larger_than_the_buffers(layers: LayerStore) -> None:
    content = os.urandom(1 << 20) * 9 + b"end"
    layer = layers.apply(None, io.BytesIO(archive(member("big", content), member("after", b"x"))))
    assert (layer.path / "big").read_bytes() == content and (layer.path / "after").read_bytes() == b"x"


def broken(change: Callable[[bytearray], None]) -> bytes:
    data = bytearray(archive(member("f", b"x" * 2000)))
    change(data)
    return bytes(data)


def rechecksummed(data: bytearray) -> None:
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])


def negative_size(data: bytearray) -> None:
    data[124:136] = b"\xff" * 11 + b"\x00"
    rechecksummed(data)


def unknown_type(data: bytearray) -> None:
    data[156:157] = b"Z"
    rechecksummed(data)


def wrong_checksum(data: bytearray) -> None:
    data[0] ^= 1


def truncated(data: bytearray) -> None:
    del data[1500:]


def bad_number(data: bytearray) -> None:
    data[100:108] = b"zzzzzzz\0"
    rechecksummed(data)


@pytest.mark.parametrize("change", [negative_size, unknown_type, wrong_checksum, truncated, bad_number])
def test_malformed_tars_are_refused(layers: LayerStore, change: Callable[[bytearray], None]) -> None:
    with pytest.raises(InvalidParameter):
        layers.apply(None, io.BytesIO(broken(change)))
    assert layers.diff_ids() == []
    assert list((layers.root / "tmp").iterdir()) == []


def test_the_diff_id_covers_every_byte(layers: LayerStore) -> None:
    data = archive(member("f", b"x")) + b"trailing"
    diff_id = "sha256:" + hashlib.sha256(data).hexdigest()
    with pytest.raises(InvalidParameter, match="diff ID"):
        layers.apply("sha256:" + "0" * 64, io.BytesIO(data))
    assert layers.apply(diff_id, io.BytesIO(data)).diff_id == diff_id
    assert layers.apply(diff_id, io.BytesIO(b"not even read")).diff_id == diff_id


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, bytes])
def test_decompress(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = os.urandom(1000) * 3000
    (tmp_path / "blob").write_bytes(compress(data))
    with decompress(tmp_path / "blob") as stream:
        assert stream.read(10) == data[:10]
        rest = b"".join(iter(lambda: stream.read(100_000), b""))
        assert data[:10] + rest == data
    assert decompress(io.BytesIO(compress(data))).read() == data
    (tmp_path / "empty").write_bytes(b"")
    with decompress(tmp_path / "empty") as stream:
        assert stream.read() == b""


def test_two_gzip_members_are_one_stream(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(gzip.compress(b"one") + gzip.compress(b"two"))
    with decompress(tmp_path / "blob") as stream:
        assert stream.read() == b"onetwo"


def test_an_error_of_the_stream_reaches_the_caller(layers: LayerStore, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(gzip.compress(archive(member("f", os.urandom(100_000))))[:-5000])
    with decompress(tmp_path / "blob") as stream, pytest.raises(InvalidParameter):
        layers.apply(None, stream)
    assert layers.diff_ids() == []


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """A gigabyte of zeros packs to a megabyte; no more is written than the limit allows."""
    store = LayerStore(tmp_path / "small", limit=5_000_000)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        info = tarfile.TarInfo("zeros")
        info.size = 1 << 28
        tar.addfile(info, io.BytesIO(bytes(1 << 28)))
    packed.seek(0)
    with pytest.raises(InvalidParameter, match="larger than 5000000 bytes when unpacked"):
        store.apply(None, decompress(packed))
    assert list((tmp_path / "small/tmp").iterdir()) == [] and store.diff_ids() == []


def test_a_hundred_thousand_entries(layers: LayerStore) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(100_000):
            info = tarfile.TarInfo(f"{number // 1000}/{number}")
            info.type = tarfile.SYMTYPE if number % 10 == 0 else tarfile.REGTYPE
            info.linkname = "x" if number % 10 == 0 else ""
            tar.addfile(info)
    stream.seek(0)
    layer = layers.apply(None, stream)
    assert sum(len(files) for _, _, files in os.walk(layer.path)) == 100_000
    layers.remove(layer.diff_id)
