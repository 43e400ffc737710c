"""A layer that is hashed from what was just written is the layer that is hashed from the disk."""

import io
import os
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
    file = told.get(path.stat().st_ino)
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
CONTENTS = st.one_of(st.binary(max_size=40), st.just(bytes(SMALL + 1)))


@st.composite
def entries(draw: st.DrawFn) -> tuple[tar.Entry, bytes]:
    kind = draw(KINDS)
    link = draw(NAMES).encode() if kind in (tar.SYMLINK, tar.HARDLINK) else b""
    fields = draw(FIELDS)
    entry = tar.Entry(draw(NAMES).encode(), kind, link=link, **{**fields, "xattrs": dict(fields["xattrs"])})
    return entry, draw(CONTENTS) if kind == tar.REGULAR else b""


@given(archive=st.lists(entries(), max_size=12), room=st.sampled_from((0, 30, 1 << 20)))
@settings(max_examples=200, deadline=None)
def test_the_same_archive_either_way(archive: list[tuple[tar.Entry, bytes]], room: int) -> None:
    """Names given twice, files in the place of others, links, attributes, times that no disk can keep."""
    told = Written(room=room)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as root:
        fill(root, told, *archive)
        assert packed(Path(folder), told) == packed(Path(folder), None)


def test_what_is_known(tmp_path: Path) -> None:
    told = Written(room=SMALL + 5)
    with opened(tmp_path) as root:
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
    assert told.get((tmp_path / "large").stat().st_ino)
    assert told.get((tmp_path / "noted").stat().st_ino) is None


def test_what_may_be_gone_is_not_told_of(tmp_path: Path) -> None:
    """A file that is replaced gives its inode number away."""
    below = Written()
    told = Written(below)
    for name in ("context", "step"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "context") as context, opened(tmp_path / "step") as step:
        fill(context, below, regular("file"))
        fill(step, told, regular("one"), regular("two"))
        assert is_known(told, tmp_path / "context/file") and is_known(told, tmp_path / "step/one")
        fill(step, told, regular("two", b"again"), regular("three"))
    assert not is_known(told, tmp_path / "step/one")
    assert is_known(told, tmp_path / "step/two") and is_known(told, tmp_path / "step/three")
    assert is_known(told, tmp_path / "context/file")
    below.forget()
    assert not is_known(told, tmp_path / "context/file")


def test_a_known_file_is_not_opened(tmp_path: Path) -> None:
    """Shown by a file that nobody can read: its content is gone from the disk."""
    told = Written()
    with opened(tmp_path) as root:
        fill(root, told, regular("file", b"as it was\n"))
    before = packed(tmp_path, None)
    os.truncate(tmp_path / "file", 0)
    assert packed(tmp_path, told) == before
    assert packed(tmp_path, None) != before


def test_second_names_are_links_also_of_known_files(tmp_path: Path) -> None:
    told = Written()
    with opened(tmp_path) as root:
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
