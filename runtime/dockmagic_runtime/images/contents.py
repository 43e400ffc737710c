"""What each layer of an image adds, changes and removes, and how much of it later layers hide.

Read from the layers' directories (their form is that of `storage/overlayform.py`), bottom first. A file is
hidden when a later layer has something else at its path, deletes it, or deletes a directory above it: its
bytes stay in the image, and no container sees them.
"""

import heapq
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime.kernel import paths
from dockmagic_runtime.storage import overlayform

LARGEST = 50


@dataclass
class _Layer:
    """`changes` by path. What comes later overrules: an emptied directory may have the file again."""

    changes: dict[str, tuple[str, int]] = field(default_factory=dict)
    hidden: int = 0
    covered: set[str] = field(default_factory=set)
    """The paths of this layer that no container sees."""

    def as_json(self) -> dict[str, Any]:
        counts = Counter(kind for kind, _ in self.changes.values())
        largest = heapq.nsmallest(LARGEST, self.changes.items(), key=lambda each: (-each[1][1], each[0]))
        told: list[dict[str, Any]] = []
        for path, (kind, size) in largest:
            hidden = {"hidden": True} if path in self.covered else {}
            told.append({"kind": kind, "path": path, "size": size, **hidden})
        kinds = {kind: counts[kind] for kind in ("added", "changed", "removed")}
        return {**kinds, "hidden": self.hidden, "largest": told}


def contents(directories: Sequence[Path]) -> list[dict[str, Any]]:
    """For each layer `{"added", "changed", "removed", "hidden": bytes, "largest": [{kind, path, size}]}`.

    Of the files the `LARGEST` largest are named; of a removed one the size is what it hides. Those that a
    later layer hides say so: `"hidden": true`.
    """
    layers: list[_Layer] = []
    present: dict[str, tuple[int, _Layer]] = {}
    for directory in directories:
        layer = _Layer()
        before = present.copy()
        for path, kind, size in _entries(directory, "", set()):
            if kind in ("gone", "opaque"):
                _remove(path, before, present, layer, itself=kind == "gone")
            elif kind == "directory":
                if path in before:
                    _hide(path, before, present)
                    layer.changes[path] = ("removed", before[path][0])
            else:
                if path in before:
                    _hide(path, before, present)
                else:
                    _remove(path, before, present, layer, itself=False)
                layer.changes[path] = ("changed" if path in before else "added", size)
                present[path] = (size, layer)
        layers.append(layer)
    return [layer.as_json() for layer in layers]


def _hide(path: str, before: dict[str, tuple[int, _Layer]], present: dict[str, tuple[int, _Layer]]) -> None:
    """What earlier layers have at this very path."""
    if path in before and present.get(path) is before[path]:
        size, owner = present.pop(path)
        owner.hidden += size
        owner.covered.add(path)


def _remove(
    path: str,
    before: dict[str, tuple[int, _Layer]],
    present: dict[str, tuple[int, _Layer]],
    layer: _Layer,
    *,
    itself: bool,
) -> None:
    """All that earlier layers have below the path, and at it if `itself`; what this layer has stays."""
    inside = path + "/"
    doomed = [each for each in before if each.startswith(inside) and present.get(each) is before[each]]
    if itself and path in before:
        doomed.append(path)
    for each in doomed:
        _hide(each, before, present)
        layer.changes[each] = ("removed", before[each][0])


def _entries(directory: Path, prefix: str, linked: set[int]) -> Iterator[tuple[str, str, int]]:
    """(path, kind, bytes), parents first; an opaque directory is told before what is in it.

    Of several links to one file the first has its bytes; `linked` are the inodes of those that were seen.
    """
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = f"{prefix}/{entry.name}"
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield path, "opaque" if _is_opaque(entry.path) else "directory", 0
            yield from _entries(Path(entry.path), path, linked)
        elif overlayform.is_whiteout(status):
            yield path, "gone", 0
        else:
            counts = stat.S_ISREG(status.st_mode) and status.st_ino not in linked
            if status.st_nlink > 1:
                linked.add(status.st_ino)
            yield path, "file", status.st_size if counts else 0


def _is_opaque(path: str) -> bool:
    with paths.opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as fd:
        return overlayform.is_opaque(fd)
