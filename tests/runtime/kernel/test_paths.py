"""Paths in a root that is not ours."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dockmagic_runtime.kernel import paths


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root/dir").mkdir(parents=True)
    fd = os.open(tmp_path / "root", os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("text", ["/outside", "../../outside", "/dir/../../../outside", "loop/../../outside"])
def test_links_stay_inside(root: int, tmp_path: Path, text: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "root/loop").symlink_to("dir")
    (tmp_path / "root/link").symlink_to(text)
    os.close(paths.make_in_root(root, "/link/new/file", directory=False))
    assert list((tmp_path / "outside").iterdir()) == []
    assert (tmp_path / "root/outside/new/file").is_file()


def test_links_can_be_refused(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/link").symlink_to("dir")
    for path in ("/link", "/link/x"):
        with pytest.raises(OSError, match="symbolic links"):
            paths.make_in_root(root, path, directory=True, symlinks=False)


def test_endless_links_and_files_in_the_way(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/a").symlink_to("b")
    (tmp_path / "root/b").symlink_to("a")
    (tmp_path / "root/file").touch()
    with pytest.raises(OSError, match="symbolic links"):
        paths.make_in_root(root, "/a/x", directory=True)
    with pytest.raises(NotADirectoryError):
        paths.make_in_root(root, "/file/x", directory=True)


def test_magic_links_are_not_followed(tmp_path: Path) -> None:
    proc = os.open("/proc", os.O_PATH)
    with pytest.raises(OSError, match="symbolic links"):
        paths.open_in_root(proc, "/self/root/etc")
    assert paths.is_procfs(proc)
    os.close(proc)


def test_no_descriptor_is_left_open(root: int, held: Callable[[], list[str]]) -> None:
    before = held()
    assert before
    os.close(paths.make_in_root(root, "/a/b/../c/d", directory=True))
    with pytest.raises(NotADirectoryError):
        os.close(paths.make_in_root(root, "/f", directory=False))
        paths.make_in_root(root, "/f/g", directory=True)
    assert held() == before
