"""Layers: each unpacked once, kept under its diff ID, shared by every image and container.

    <root>/<hex of the diff ID>/fs       what an overlay mount takes as a lower directory
    <root>/<hex of the diff ID>/size     bytes of its regular files, in decimal
    <root>/tmp/…                         being made or being removed; swept at start

On disk deletions are in overlayfs' own form (a 0/0 character device; the xattr trusted.overlay.opaque), in
tar streams in OCI's (`.wh.<name>`; `.wh..wh..opq`). A layer comes into being by one rename(2).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dockmagic_runtime.storage.compression import decompress

__all__ = ["Layer", "LayerStore", "decompress"]


@dataclass(frozen=True)
class Layer:
    """An unpacked layer. `path` is an overlay lower directory; `size` the bytes of its regular files."""

    diff_id: str
    path: Path
    size: int


class LayerStore:
    """All layers of one engine. Calls block: run them in a thread. Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        raise NotImplementedError

    def sweep(self) -> None:
        """Remove what a crash left half-made. Call once, when the engine starts."""
        raise NotImplementedError

    def get(self, diff_id: str) -> Layer | None:
        """The layer, or None if it is not here."""
        raise NotImplementedError

    def paths(self, diff_ids: Iterable[str]) -> tuple[Path, ...]:
        """The directories of a stack given bottom first, topmost first as overlayfs wants them.

        Raises NotFound if one is missing.
        """
        raise NotImplementedError

    def diff_ids(self) -> list[str]:
        """Every layer there is."""
        raise NotImplementedError

    def apply(self, diff_id: str | None, stream: BinaryIO) -> Layer:
        """Unpack an *uncompressed* tar stream into a layer; verified against `diff_id` if given.

        Returns the existing layer, stream unread, if `diff_id` is here already. No entry can land outside of
        the layer. Raises InvalidParameter for a malformed or hostile tar, or another diff ID; nothing stays.
        """
        raise NotImplementedError

    def commit(self, upper: Path) -> Layer:
        """An overlay upper directory *becomes* the layer, by rename; nobody may be writing to it.

        Its diff ID is the hash of the tar stream that `tar` would write; no tar is stored.
        """
        raise NotImplementedError

    def tar(self, diff_id: str, out: BinaryIO) -> None:
        """Write the layer as an uncompressed tar.

        A layer made by `commit` gives the very bytes its diff ID is of. One that was unpacked from somebody
        else's tar may not: then this raises Conflict after writing, and its blob in the content store is the
        source to use. Raises NotFound.
        """
        raise NotImplementedError

    def remove(self, diff_id: str) -> None:
        """Delete the layer, if here. That nothing uses it any more is for the caller to know."""
        raise NotImplementedError
