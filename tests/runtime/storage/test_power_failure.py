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
from threading import Event, Thread

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


def test_what_a_disk_did_not_take_is_not_believed(tmp_path: Path) -> None:
    """The kernel says so once, and then drops the bytes: the next time it says that all is well."""
    small, disk = tmp_path / "small", tmp_path / "small/disk"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        with disk.open("wb") as file:
            file.truncate(64 << 20)
        options = ["-O", "^has_journal", "-e", "continue", "-N", "64"]
        subprocess.run(["mkfs.ext4", "-q", "-F", *options, disk], check=True)
        with mounted(disk, tmp_path / "mount") as root:
            store = LayerStore(root)
            (root / "upper").mkdir()
            (root / "upper/file").write_bytes(os.urandom(16 << 20))
            store.commit(root / "upper")
            with pytest.raises(OSError, match="Input/output"):
                store.settle()
            store.settle()
            assert len(list((root / "unwritten").iterdir())) == 1
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)  # its loop device goes a moment later


def test_a_removal_that_fails_is_no_end_of_what_was_marked(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    made(store)
    made(store)
    (doomed,) = (tmp_path / "tmp").iterdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", doomed / "fs/d"], check=True)
    try:
        with pytest.raises(OSError, match="busy"):
            store.settle()
    finally:
        subprocess.run(["umount", doomed / "fs/d"], check=True)
    assert len(list((tmp_path / "unwritten").iterdir())) == 1
    store.settle()
    assert list((tmp_path / "unwritten").iterdir()) == []


def test_who_comes_second_returns_when_the_first_layers_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LayerStore(tmp_path)
    made(store)
    begun, second = Event(), Event()

    def slow(path: Path) -> None:
        begun.set()
        assert not second.wait(0.2), "it did not wait"

    def another() -> None:
        begun.wait()
        store.settle()
        second.set()

    monkeypatch.setattr(module, "syncfs", slow)
    thread = Thread(target=another)
    thread.start()
    try:
        store.settle()
    finally:
        thread.join()
    assert second.is_set() and list((tmp_path / "unwritten").iterdir()) == []


def test_what_was_removed_is_not_told_of_as_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LayerStore(tmp_path)
    store.remove(made(store).diff_id)
    after_a_start(tmp_path).sweep()
    assert caplog.messages == [] and list((tmp_path / "unwritten").iterdir()) == []
