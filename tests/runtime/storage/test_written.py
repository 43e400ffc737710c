"""A layer that is hashed from what was just written is the layer that is hashed from the disk."""

import io
import os
import stat
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.storage import tar
from dockmagic_runtime.storage.layers import LayerStore
from dockmagic_runtime.storage.pack import Packer
from dockmagic_runtime.storage.unpack import Unpacker
from dockmagic_runtime.storage.written import SMALL, Written
from hypothesis import given, settings
from hypothesis import strategies as st

SECOND = 1_000_000_000


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


class Given:
    """The content of an entry."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def content(self) -> Iterator[memoryview]:
        yield memoryview(self._data)

    def whole(self) -> bytes:
        return self._data


def packed(path: Path, told: Written | None) -> tuple[bytes, int]:
    out = io.BytesIO()
    packer = Packer(out.write, overlay=True, written=told)
    with opened(path) as root:
        packer.tree(root)
    packer.finish()
    return out.getvalue(), packer.size


@contextmanager
def told_of(path: Path, told: Written) -> Iterator[int]:
    """A directory, empty so far."""
    told.made(path.stat().st_ino)
    with opened(path) as root:
        yield root


def fill(root: int, told: Written, *entries: tuple[tar.Entry, bytes]) -> None:
    """Unpack; what an archive may not say is left out."""
    with Unpacker(root, written=told) as unpacker:
        for entry, data in entries:
            entry.size = len(data)
            with suppress(InvalidParameter):
                unpacker.add(entry, Given(data))
        unpacker.finish()


def regular(name: str, data: bytes = b"data\n", **fields: Any) -> tuple[tar.Entry, bytes]:
    return tar.Entry(name.encode(), tar.REGULAR, **fields), data


def is_known(told: Written, path: Path) -> bool:
    """Whether the file can be told of, its content with it."""
    with opened(path.parent) as directory:
        file = told.file(directory, os.fsencode(path.name))
    return bool(file and file.content is not None)


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
KINDS = st.sampled_from([tar.REGULAR] * 4 + [tar.DIRECTORY, tar.SYMLINK, tar.HARDLINK])
FIELDS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from((0o644, 0o600, 0o4755, 0o2750, 0o777)),
        "uid": st.sampled_from((0, 1000, 3_000_000)),
        "gid": st.sampled_from((0, 1000, 3_000_000)),
        "mtime_ns": st.sampled_from((0, 1_700_000_000 * SECOND + 5, -3 * SECOND, 1 << 62, 1 << 70)),
        "xattrs": st.sampled_from(({}, {}, {b"user.note": b"v"})),
    }
)
PLAIN = st.just({"mode": 0o644, "mtime_ns": 1_700_000_000 * SECOND + 5, "xattrs": {}})
CONTENTS = st.one_of(st.binary(max_size=40), st.just(bytes(SMALL + 1)))


@st.composite
def entries(draw: st.DrawFn) -> tuple[tar.Entry, bytes]:
    kind = draw(KINDS)
    link = draw(NAMES).encode() if kind in (tar.SYMLINK, tar.HARDLINK) else b""
    fields = draw(st.one_of(PLAIN, FIELDS))
    entry = tar.Entry(draw(NAMES).encode(), kind, link=link, **{**fields, "xattrs": dict(fields["xattrs"])})
    return entry, draw(CONTENTS) if kind == tar.REGULAR else b""


@given(archive=st.lists(entries(), max_size=12), room=st.sampled_from((0, 30, 1 << 20)))
@settings(max_examples=200, deadline=None)
def test_the_same_archive_either_way(archive: list[tuple[tar.Entry, bytes]], room: int) -> None:
    """Names given twice, files in the place of others, links, attributes, times that no disk can keep."""
    told = Written(room=room)
    with tempfile.TemporaryDirectory() as folder, told_of(Path(folder), told) as root:
        fill(root, told, *archive)
        assert packed(Path(folder), told) == packed(Path(folder), None)


def test_what_is_known(tmp_path: Path) -> None:
    told = Written(room=SMALL + 5)
    with told_of(tmp_path, told) as root:
        fill(
            root,
            told,
            regular("small"),
            regular("large", bytes(SMALL + 1)),
            regular("noted", xattrs={b"user.note": b"v"}),
            regular("fills", bytes(SMALL)),
            regular("no room is left"),
        )
    known = {path.name for path in tmp_path.iterdir() if is_known(told, path)}
    assert known == {"small", "fills"}
    with opened(tmp_path) as root:
        large, noted = told.file(root, b"large"), told.file(root, b"noted")
        assert large and large.content is None and noted is None
        assert [name for name, _ in told.listed(root) or ()] == [
            b"fills",
            b"large",
            b"no room is left",
            b"noted",
            b"small",
        ]


def test_what_may_be_gone_is_not_told_of(tmp_path: Path) -> None:
    """A directory that is replaced gives its inode number away."""
    below = Written()
    told = Written(below)
    for name in ("context", "step"):
        (tmp_path / name).mkdir()
    context, step = tmp_path / "context", tmp_path / "step"
    with told_of(context, below) as root, told_of(step, told) as above:
        fill(root, below, regular("d/file"))
        fill(above, told, regular("one"), regular("d/two"))
        assert is_known(told, context / "d/file")
        assert is_known(told, step / "one") and is_known(told, step / "d/two")
        fill(above, told, regular("one", b"again"), regular("three"))
        assert is_known(told, step / "one") and is_known(told, step / "three")
        fill(above, told, regular("d", b"no directory"))
        assert told.listed(above) is None
        fill(above, told, regular("e/four"))
        assert is_known(told, step / "e/four")
    assert is_known(told, context / "d/file")
    below.forget()
    assert not is_known(told, context / "d/file")


def test_what_was_there_is_looked_at(tmp_path: Path) -> None:
    """Of a directory that others have put something into nothing is told, but of new ones in it."""
    told = Written()
    (tmp_path / "old").mkdir()
    (tmp_path / "old/other").write_text("somebody's")
    with opened(tmp_path) as root:
        fill(root, told, regular("old/file"), regular("old/new/file"))
    assert not is_known(told, tmp_path / "old/file") and is_known(told, tmp_path / "old/new/file")
    assert packed(tmp_path, told) == packed(tmp_path, None)


def test_what_is_taken_away_is_not_told_of(tmp_path: Path) -> None:
    told = Written()
    with told_of(tmp_path, told) as root:
        fill(root, told, regular("goes"), regular("stays"))
        os.unlink("goes", dir_fd=root)
        told.gone(root, b"goes")
        assert [name for name, _ in told.listed(root) or ()] == [b"stays"]


def test_links_to_known_files_are_known_as_one(tmp_path: Path) -> None:
    """The same file of a context twice in one layer, once where all is known, once where something was."""
    context, upper, below = tmp_path / "context", tmp_path / "upper", Written()
    context.mkdir()
    (upper / "old").mkdir(parents=True)
    told = Written(below)
    with told_of(context, below) as root, opened(upper) as above:
        fill(root, below, regular("file"))
        known = below.file(root, b"file")
        assert known
        with Unpacker(above, written=told) as unpacker:
            for name in (b"new/one", b"new/two", b"old/three"):
                assert unpacker.link(known.entry(name), root, b"file", known)
            unpacker.finish()
    assert is_known(told, upper / "new/one") and not is_known(told, upper / "old/three")
    assert packed(upper, told) == packed(upper, None)
    with tarfile.open(fileobj=io.BytesIO(packed(upper, told)[0])) as members:
        assert [member.name for member in members if member.islnk()] == ["new/two", "old/three"]


def test_files_have_their_modes_where_a_default_acl_would_take_bits(tmp_path: Path) -> None:
    """setfacl -d -m u::rwx,g::---,o::--- on the data root of the engine."""
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in ((1, 7), (4, 0), (32, 0))
    )
    told = Written()
    with told_of(tmp_path, told) as root:
        os.setxattr(root, "system.posix_acl_default", acl)
        fill(root, told, regular("d/file", mode=0o664))
        os.removexattr(root, "system.posix_acl_default")
    assert stat.S_IMODE((tmp_path / "d/file").stat().st_mode) == 0o664
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o755
    assert packed(tmp_path, told) == packed(tmp_path, None)


def test_a_known_file_is_not_opened(tmp_path: Path) -> None:
    """Shown by a file that nobody can read: its content is gone from the disk."""
    told = Written()
    with told_of(tmp_path, told) as root:
        fill(root, told, regular("file", b"as it was\n"))
    before = packed(tmp_path, None)
    os.truncate(tmp_path / "file", 0)
    assert packed(tmp_path, told) == before
    assert packed(tmp_path, None) != before


def test_second_names_are_links_also_of_known_files(tmp_path: Path) -> None:
    told = Written()
    with told_of(tmp_path, told) as root:
        fill(root, told, regular("first"), (tar.Entry(b"second", tar.HARDLINK, link=b"first"), b""))
    archive = packed(tmp_path, told)[0]
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        assert [(member.name, member.islnk()) for member in members] == [("first", False), ("second", True)]


def test_a_layer_is_the_same_either_way(tmp_path: Path) -> None:
    told = Written()
    (tmp_path / "upper").mkdir()
    with opened(tmp_path / "upper") as root:
        fill(root, told, *(regular(f"d/{number}", os.urandom(number * 50)) for number in range(40)))
    layers = LayerStore(tmp_path / "layers")
    copied = layers.copy(tmp_path / "upper")
    assert layers.commit(tmp_path / "upper", told) == copied


def test_in_a_directory_that_gives_its_group_files_keep_theirs(tmp_path: Path) -> None:
    """Set-group-ID directories of Debian's /usr/local: a COPY into one is root's all the same."""
    (tmp_path / "shared").mkdir()
    os.chown(tmp_path / "shared", 0, 50)
    (tmp_path / "shared").chmod(0o2775)
    with opened(tmp_path) as root, Unpacker(root, owner=(0, 0)) as unpacker:
        unpacker.add(*_given(regular("shared/file")))
        unpacker.add(*_given((tar.Entry(b"shared/link", tar.SYMLINK, link=b"file"), b"")))
        unpacker.finish()
    assert {path.lstat().st_gid for path in (tmp_path / "shared").iterdir()} == {0}


def _given(entry: tuple[tar.Entry, bytes]) -> tuple[tar.Entry, Given]:
    return entry[0], Given(entry[1])


def test_on_a_disk_where_all_directories_give_their_group(tmp_path: Path) -> None:
    """Mounted with `grpid`, and the data root is the group docker's."""
    disk, path = tmp_path / "disk", tmp_path / "mount"
    with disk.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    path.mkdir()
    subprocess.run(["mount", "-o", "loop,grpid", disk, path], check=True)
    try:
        os.chown(path, 0, 999)
        (path / "new").mkdir()
        told = Written()
        with told_of(path / "new", told) as root:
            fill(root, told, regular("d/file"), regular("theirs", gid=1000))
            assert is_known(told, path / "new/d/file")
        assert (path / "new/d/file").stat().st_gid == 0
        assert packed(path / "new", told) == packed(path / "new", None)
    finally:
        subprocess.run(["umount", path], check=True)
