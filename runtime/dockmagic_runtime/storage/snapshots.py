"""Snapshots: the writable layer of a container, on a stack of read-only ones.

The life of a snapshot, in containerd's words:

    1. A *committed* layer has a diff ID and never changes; a chain of them, bottom first, is an image.
    2. `prepare(key, chain)` opens an *active* snapshot on it: an empty upper directory under the key.
    3. Its Rootfs (lowers, upper, work) is all that a mount needs; every start mounts it anew.
    4. `view` is the same without an upper: the chain read-only, to look into an image.
    5. `commit(key)` turns what was written into a committed layer: its parent chain plus one.
    6. `remove(key)` discards what was written; the committed layers below stay.

A key is a container ID: the directory `<root>/<key>` is shared with the container's other files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from dockmagic_runtime.storage.layers import Layer, LayerStore
    from dockmagic_runtime.storage.overlay import Rootfs


@dataclass(frozen=True)
class Usage:
    """What a snapshot's own files take: bytes of regular files, and how many files."""

    size: int
    files: int


class SnapshotStore:
    """Snapshots under `root` (`<data_root>/containers`). Calls block; each key is used by one caller at a time."""

    def __init__(self, root: Path, layers: "LayerStore") -> None:
        raise NotImplementedError

    def prepare(self, key: str, diff_ids: Sequence[str], *, host: bool = False) -> "Rootfs":
        """Make an active snapshot on `diff_ids` (bottom first). `host`: on the machine's own root instead.

        Raises Conflict if the key is taken, NotFound if a layer is missing.
        """
        raise NotImplementedError

    def view(self, diff_ids: Sequence[str], *, host: bool = False) -> "Rootfs":
        """The read-only stack of an image."""
        raise NotImplementedError

    def get(self, key: str) -> "Rootfs":
        """Raises NotFound."""
        raise NotImplementedError

    def changes(self, key: str) -> list[tuple[int, str]]:
        """(kind, path) for `docker diff`: 0 modified, 1 added, 2 deleted."""
        raise NotImplementedError

    def usage(self, key: str) -> Usage:
        """The writable layer's size. Also right while a container runs, but not a single moment's."""
        raise NotImplementedError

    def commit(self, key: str, *, move: bool = False) -> "Layer":
        """The changes as a layer. `move`: the upper directory becomes the layer and the snapshot is gone."""
        raise NotImplementedError

    def export(self, key: str, out: BinaryIO, *, root: int | None = None) -> None:
        """Write the merged tree as a tar.

        `root` is a directory descriptor of a running container's root (/proc/<pid>/root): it is read instead
        of a second mount, which the kernel leaves undefined while the first is being written to.
        """
        raise NotImplementedError

    def remove(self, key: str) -> None:
        """Discard what was written. Other files in `<root>/<key>` stay. Nothing happens if there is none."""
        raise NotImplementedError

    def sweep(self, keep: Iterable[str]) -> None:
        """Remove the snapshots of all keys but `keep`, and what a crash left half-removed."""
        raise NotImplementedError
