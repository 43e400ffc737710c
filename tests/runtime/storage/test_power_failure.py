"""Layers that are used before they are on disk, and a machine that loses its power meanwhile.

The disk is a file system in a file: a copy of that file is what the disk would have held at that moment.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dockmagic_runtime.storage import layers as module
from dockmagic_runtime.storage.layers import Layer, LayerStore

OTHER_BOOT = "11111111-2222-3333-4444-555555555555"


@contextmanager
def mounted(disk: Path, path: Path) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    return image


def made(store: LayerStore, number: int = 1) -> Layer:
    upper = store.root / "upper"
    (upper / "d").mkdir(parents=True)
    (upper / "d/file").write_text(f"{number}\n" * 1000)
    for path in (upper / "d/file", upper / "d"):
        os.utime(path, (0, 0))
    return store.commit(upper)


def fsync_something(store: LayerStore) -> None:
    """As a database does for the image's record: the file system's journal comes to the disk with it."""
    with (store.root / "record").open("w") as file:
        file.write("image\n")
        file.flush()
        os.fsync(file.fileno())


def after_a_start(root: Path) -> LayerStore:
    """The same disk in another run of the machine."""
    for mark in (root / "unwritten").iterdir():
        mark.unlink()
        mark.symlink_to(OTHER_BOOT)
    return LayerStore(root)


def test_what_was_not_on_disk_is_lost_and_can_be_made_again(
    disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mounted(disk, tmp_path / "before") as root:
        store = LayerStore(root)
        layer = made(store)
        fsync_something(store)
        shutil.copy(disk, tmp_path / "copy")
    with mounted(tmp_path / "copy", tmp_path / "after") as root:
        there = root / layer.path.relative_to(tmp_path / "before")
        assert (there / "d/file").read_bytes() == b"", "else there is nothing to notice"
        store = after_a_start(root)
        assert store.diff_ids() == [layer.diff_id]
        with caplog.at_level(logging.WARNING):
            store.sweep()
        assert store.diff_ids() == [] and list((root / "unwritten").iterdir()) == []
        hexadecimal = layer.diff_id.removeprefix("sha256:")
        assert caplog.messages == [f"layer {hexadecimal} was lost: the machine stopped before it was on disk"]
        assert made(store).diff_id == layer.diff_id


def test_what_was_written_out_stays(disk: Path, tmp_path: Path) -> None:
    with mounted(disk, tmp_path / "before") as root:
        store = LayerStore(root)
        layer = made(store)
        store.settle()
        fsync_something(store)
        shutil.copy(disk, tmp_path / "copy")
    with mounted(tmp_path / "copy", tmp_path / "after") as root:
        assert list((root / "unwritten").iterdir()) == []
        store = after_a_start(root)
        store.sweep()
        again = store.get(layer.diff_id)
        assert again and (again.path / "d/file").read_text() == "1\n" * 1000


def test_what_came_to_the_disk_by_itself_stays(tmp_path: Path) -> None:
    """The power went after the bytes were there, and before the mark was taken away."""
    layer = made(LayerStore(tmp_path))
    (layer.path.parent / "size").write_text("")
    store = after_a_start(tmp_path)
    store.sweep()
    assert store.get(layer.diff_id) == layer
    assert list((tmp_path / "unwritten").iterdir()) == []


def test_a_killed_engine_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine went on, with all that was written: nothing need be looked at."""
    layer = made(LayerStore(tmp_path))
    monkeypatch.setattr(module, "_summed", None)
    store = LayerStore(tmp_path)
    store.sweep()
    assert store.get(layer.diff_id) == layer and list((tmp_path / "unwritten").iterdir()) == []


def test_what_is_made_while_others_are_written_out_is_still_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same layer too, removed and made again."""
    store = LayerStore(tmp_path)
    first = made(store)

    def meanwhile(path: Path) -> None:
        monkeypatch.undo()
        store.remove(first.diff_id)
        assert made(store) == first
        made(store, 2)

    monkeypatch.setattr(module, "syncfs", meanwhile)
    store.settle()
    assert len(list((tmp_path / "unwritten").iterdir())) == 2
    store.settle()
    assert list((tmp_path / "unwritten").iterdir()) == []


def test_a_disk_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LayerStore(tmp_path)
    made(store)

    def fails(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(module, "syncfs", fails)
        with pytest.raises(OSError, match="Input/output"):
            store.settle()
    assert len(list((tmp_path / "unwritten").iterdir())) == 1
    store.settle()
    assert list((tmp_path / "unwritten").iterdir()) == []
