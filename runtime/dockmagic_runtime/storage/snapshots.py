"""Snapshots: the writable layer of a container, on a stack of read-only ones.

The life of a snapshot, in containerd's words:

    1. A *committed* layer has a diff ID and never changes; a chain of them, bottom first, is an image.
    2. `prepare(key, chain)` opens an *active* snapshot on it: an empty upper directory under the key.
    3. Its Rootfs (lowers, upper, work) is all that a mount needs; every start mounts it anew.
    4. `view(chain)` is the same without an upper: the chain read-only, to look into an image.
    5. `commit(key)` turns what was written into a committed layer: its parent chain plus one.
    6. `remove(key)` discards what was written; the committed layers below stay.

A key is a container ID: the directory `<root>/<key>` is shared with the container's other files. A snapshot
takes `upper/`, `work/` (overlayfs' own) and `snapshot.json` (its parent chain) there.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dockmagic_runtime.errors import Conflict, NotFound, SystemFailure
from dockmagic_runtime.kernel import paths, trees
from dockmagic_runtime.storage.changes import changes
from dockmagic_runtime.storage.initlayer import InitLayers
from dockmagic_runtime.storage.layers import Layer, LayerStore
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs
from dockmagic_runtime.storage.pack import Packer
from dockmagic_runtime.storage.written import Written


@dataclass(frozen=True)
class Usage:
    """What a snapshot's own files take: bytes of regular files, and how many files."""

    size: int
    files: int


class SnapshotStore:
    """Snapshots under `root` (`<data_root>/containers`). Calls block; a key has one user at a time."""

    def __init__(self, root: Path, layers: LayerStore) -> None:
        self._root = root
        self._layers = layers
        self._init = InitLayers(layers.root / "init")
        self._empty = layers.root / "empty"
        self._empty.mkdir(exist_ok=True)
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)

    def prepare(self, key: str, diff_ids: Sequence[str], *, host: bool = False) -> Rootfs:
        """Make an active snapshot on `diff_ids` (bottom first). `host`: on the machine's own root instead.

        The lowers start with an init layer: the mount points that the image lacks. Raises Conflict if the
        key is taken, NotFound if a layer is missing.
        """
        lower = self._lower(diff_ids)
        init = None if host else self._init.for_image(lower).name
        directory = self._root / key
        directory.mkdir(mode=0o700, exist_ok=True)
        try:
            (directory / "upper").mkdir(mode=0o755)
        except FileExistsError:
            raise Conflict(f"snapshot {key}: already exists") from None
        (directory / "upper").chmod(0o755)
        (directory / "work").mkdir(mode=0o700)
        # Not fsynced: no machine crash can leave the container's record without leaving it unstarted too.
        record = directory / "snapshot.json.new"
        record.write_text(json.dumps({"diff_ids": list(diff_ids), "host": host, "init": init}))
        record.rename(directory / "snapshot.json")
        return self._rootfs(key, lower, host, init)

    def view(self, diff_ids: Sequence[str], *, host: bool = False) -> Rootfs:
        """The read-only stack of an image. Raises NotFound if a layer is missing."""
        return Rootfs(self._lower(diff_ids) or (str(self._empty),), host=host)

    def get(self, key: str) -> Rootfs:
        """Raises NotFound."""
        record = self._record(key)
        return self._rootfs(key, self._lower(record["diff_ids"]), record["host"], record["init"])

    def layer(self, diff_id: str) -> Layer | None:
        """A committed layer, or None if it is not here."""
        return self._layers.get(diff_id)

    def upper(self, key: str) -> Path:
        """Where the snapshot's changes are."""
        return self._root / key / "upper"

    def changes(self, key: str) -> list[tuple[int, str]]:
        """(kind, path) for `docker diff`: 0 modified, 1 added, 2 deleted; by path."""
        rootfs = self.get(key)
        below = _mounted(Rootfs(rootfs.lower or (str(self._empty),), host=rootfs.host))
        try:
            with paths.opened(self.upper(key), os.O_RDONLY | os.O_DIRECTORY) as upper:
                return changes(upper, below)
        finally:
            os.close(below)

    def usage(self, key: str) -> Usage:
        """The writable layer's size. Also right while a container runs, but not a single moment's."""
        self._record(key)
        size = files = 0
        seen: set[int] = set()
        for status in _files(self.upper(key)):
            files += 1
            if stat.S_ISREG(status.st_mode) and status.st_ino not in seen:
                size += status.st_size
                if status.st_nlink > 1:
                    seen.add(status.st_ino)
        return Usage(size, files)

    def commit(self, key: str, *, move: bool = False, written: Written | None = None) -> Layer:
        """The changes as a layer. `move`: the upper directory becomes the layer and the snapshot is gone.

        Without `move` the container may be running; pause it, or a file may be caught half-written.
        `written` tells of files that need not be read.
        """
        self._record(key)
        if not move:
            return self._layers.copy(self.upper(key))
        layer = self._layers.commit(self.upper(key), written)
        self.remove(key)
        return layer

    def export(self, key: str, out: BinaryIO, *, root: int | None = None) -> None:
        """Write the merged tree as a tar.

        `root` is a directory descriptor of a running container's root (/proc/<pid>/root): it is read instead
        of a second mount, which the kernel leaves undefined while the first is being written to. What is
        mounted in it (/proc, volumes) is left out.
        """
        packer = Packer(out.write, one_mount=True)
        if root is not None:
            packer.tree(root)
        else:
            with self.mounted(key) as stopped:
                packer.tree(stopped)
        packer.finish()

    @contextmanager
    def mounted(self, key: str, *, writable: bool = False) -> Iterator[int]:
        """The merged tree of a *stopped* container, as a descriptor of a detached mount.

        `writable`: once in the life of a snapshot, and `commit` is to follow: its writes are not waited for.
        """
        rootfs = self.get(key)
        if not writable:
            assert rootfs.upper
            rootfs = Rootfs((rootfs.upper, *rootfs.lower), host=rootfs.host)
        mount = _mounted(rootfs, volatile=writable)
        try:
            yield mount
        finally:
            os.close(mount)

    def remove(self, key: str) -> None:
        """Discard what was written. Other files in `<root>/<key>` stay. Nothing happens if there is none."""
        directory = self._root / key
        # The record first: a snapshot without one does not exist, whatever a crash leaves of it.
        (directory / "snapshot.json").unlink(missing_ok=True)
        for name in ("upper", "work"):
            if (directory / name).exists():
                trees.remove(directory / name)

    def sweep(self, keep: Iterable[str]) -> None:
        """Remove the directories of all keys but `keep`, and what a crash left half-made. At engine start."""
        kept = set(keep)
        self._init.sweep()
        for directory in self._root.iterdir():
            if directory.name not in kept:
                trees.remove(directory)

    def _lower(self, diff_ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(str, self._layers.paths(diff_ids)))

    def _rootfs(self, key: str, lower: tuple[str, ...], host: bool, init: str | None) -> Rootfs:
        directory = self._root / key
        top = (str(self._layers.root / "init" / init),) if init else ()
        return Rootfs((*top, *lower), str(directory / "upper"), str(directory / "work"), host)

    def _record(self, key: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((self._root / key / "snapshot.json").read_bytes())
        except FileNotFoundError:
            raise NotFound(f"snapshot {key} does not exist: not found") from None
        return record


def _mounted(rootfs: Rootfs, *, volatile: bool = False) -> int:
    try:
        return mount_rootfs(rootfs, volatile=volatile)
    except OSError as error:
        raise SystemFailure(f"cannot mount the layers: {error.strerror}") from error


def _files(directory: Path) -> Iterator[os.stat_result]:
    """Everything below, itself not; what disappears meanwhile is left out."""
    pending = [directory]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            try:
                yield entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
