"""Trees deeper than Python calls itself, than a path is long and than a process has descriptors."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dockmagic_runtime.kernel import trees

DEPTH = 2500
Held = Callable[[], list[str]]


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file, a link and a directory in each of its many levels."""
    top = tmp_path / "deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        os.symlink(tmp_path, "link", dir_fd=fd)
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    yield top
    if top.exists():  # pytest's own way fails on it
        trees.remove(top)


def test_a_deep_tree_goes_and_nothing_else(deep: Path, tmp_path: Path, held: Held) -> None:
    (tmp_path / "beside").write_text("stays")
    trees.remove(deep)
    assert [path.name for path in tmp_path.iterdir()] == ["beside"]
    assert held() == []


def test_what_a_directory_has_comes_before_it(deep: Path) -> None:
    top = os.open(deep, os.O_RDONLY)
    inside = 0
    for directory, name, is_directory in trees.contents_first(top):
        if is_directory:
            # It was walked already: its three, unless it is the last one, which is empty.
            assert inside in (0, 3) and name == b"d"
            inside = 0
        inside += 1
        assert os.stat(name, dir_fd=directory, follow_symlinks=False)
    os.close(top)


def test_a_directory_that_is_moved_away_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "top/a/b").mkdir(parents=True)
    (tmp_path / "top/a/b/file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/precious").touch()
    top = os.open(tmp_path / "top", os.O_RDONLY)
    walk = trees.contents_first(top)
    assert next(walk)[1] == b"file"
    (tmp_path / "top/a/b").rename(tmp_path / "other/b")
    with pytest.raises(OSError, match="moved"):
        next(walk)
    os.close(top)
    assert (tmp_path / "other/precious").exists()


def test_a_file_a_link_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    trees.remove(tmp_path / "file")
    trees.remove(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(FileNotFoundError):
        trees.remove(tmp_path / "file")


def test_sizes(deep: Path) -> None:
    (deep / "one").write_bytes(bytes(1000))
    (deep / "two").hardlink_to(deep / "one")
    (deep / "d/three").write_bytes(bytes(50))
    of_links = trees.sizes(deep) - 1050
    assert of_links > 500 * len(str(deep.parent)), "links count, down to where a path ends"
