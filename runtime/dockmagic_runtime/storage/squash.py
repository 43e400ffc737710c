"""Several layers as one: `docker build --squash`.

The layers are applied one after another to a snapshot on what stays below them, as the OCI image
specification says for change sets: a layer's deletions are of what is below it, so they come before its
files. What the snapshot's upper directory then has is the one layer.
"""

import os
import tempfile
from collections.abc import Sequence
from typing import BinaryIO

from dockmagic_runtime.kernel import paths, trees
from dockmagic_runtime.storage import overlayform, tar
from dockmagic_runtime.storage.layers import Layer, LayerStore
from dockmagic_runtime.storage.snapshots import SnapshotStore
from dockmagic_runtime.storage.unpack import Unpacker

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def squash(
    snapshots: SnapshotStore, layers: LayerStore, key: str, below: Sequence[str], above: Sequence[str]
) -> Layer:
    """The layers `above` (diff IDs, bottom first), which lie on `below`, as one; `key` is new."""
    snapshots.prepare(key, below)
    with snapshots.mounted(key, writable=True) as root:
        for diff_id in above:
            with tempfile.TemporaryFile(dir=snapshots.upper(key).parent) as packed:
                layers.tar(diff_id, packed)
                _delete(packed, root)
                _add(packed, root)
    return snapshots.commit(key, move=True)


def _delete(packed: BinaryIO, root: int) -> None:
    for entry in _entries(packed):
        above, _, name = entry.name.rpartition(b"/")
        if not name.startswith(overlayform.WHITEOUT_PREFIX):
            continue
        try:
            directory = paths.open_in_root(root, os.fsdecode(above) or ".", _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            continue  # below the deletion there never was anything
        try:
            opaque = name == overlayform.OPAQUE_MARKER
            gone = overlayform.names(directory) if opaque else [name[len(overlayform.WHITEOUT_PREFIX) :]]
            for each in list(gone):
                trees.remove_at(directory, each)
        except FileNotFoundError:
            continue
        finally:
            os.close(directory)


def _add(packed: BinaryIO, root: int) -> None:
    with Unpacker(root) as unpacker:
        reader = _entries(packed)
        for entry in reader:
            if not entry.name.rpartition(b"/")[2].startswith(overlayform.WHITEOUT_PREFIX):
                unpacker.add(entry, reader)
        unpacker.finish()


def _entries(packed: BinaryIO) -> tar.TarReader:
    packed.seek(0)
    return tar.TarReader(tar.chunks_of(packed.read))
