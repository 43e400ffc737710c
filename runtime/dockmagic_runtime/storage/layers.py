"""Layers: each unpacked once, kept under its diff ID, shared by every image and container.

    <root>/<hex of the diff ID>/fs       what an overlay mount takes as a lower directory
    <root>/<hex of the diff ID>/size     bytes of its regular files, in decimal
    <root>/unwritten/<hex>               a link that says in which boot of the machine the layer was made
    <root>/tmp/…                         being made or being removed; swept at start

A layer comes into being by one rename(2), and goes by one. Before it comes its bytes are on disk, or else it
is marked as unwritten, until `settle` has seen to it: who builds need not wait for the disk. What is still
marked when the machine was started anew is not believed: it stays only if it still has its diff ID.
"""

import hashlib
import io
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound, SystemFailure
from dockmagic_runtime.kernel import paths, trees
from dockmagic_runtime.kernel.syncfs import syncfs
from dockmagic_runtime.oci.descriptor import digest_hex
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.content import sync_directory
from dockmagic_runtime.storage.pack import Packer
from dockmagic_runtime.storage.tar import TarReader, chunks_of
from dockmagic_runtime.storage.unpack import Unpacker
from dockmagic_runtime.storage.written import Written

__all__ = ["Layer", "LayerStore", "decompress"]

_log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_AHEAD = 8
"""Chunks of a stream that are read and hashed before they are unpacked."""


@dataclass(frozen=True)
class Layer:
    """An unpacked layer. `path` is an overlay lower directory; `size` the bytes of its regular files."""

    diff_id: str
    path: Path
    size: int


class LayerStore:
    """All layers of one engine. Calls block: run them in a thread. Safe to use from several threads."""

    def __init__(self, root: Path, *, limit: int = 100 << 30) -> None:
        """`limit`: bytes of an unpacked layer; a blob that says more is taken for a bomb."""
        self.root = root
        self.limit = limit
        self._tmp = root / "tmp"
        self._unwritten = root / "unwritten"
        for directory in (self._tmp, self._unwritten):
            directory.mkdir(parents=True, exist_ok=True)
        self._marked: set[str] = set()
        self._doomed: list[Path] = []
        self._unsettled = threading.Lock()
        self._settling = threading.Lock()
        # What is set-user-ID inside of an image is nobody's business on the host.
        root.chmod(0o700)

    def sweep(self) -> None:
        """Remove what a crash left half-made, and layers that a power failure did. Call once, at start."""
        for path in self._tmp.iterdir():
            trees.remove(path)
        for mark in self._unwritten.iterdir():
            is_here = (self.root / mark.name).exists()  # and was not removed since, or never finished
            if is_here and str(mark.readlink()) != _boot() and not self._is_whole(mark.name):
                _log.warning("layer %s was lost: the machine stopped before it was on disk", mark.name)
                self.remove(f"sha256:{mark.name}")
            self._marked.add(mark.name)
        self.settle()

    def get(self, diff_id: str) -> Layer | None:
        """The layer, or None if it is not here."""
        directory = self.root / digest_hex(diff_id)
        try:
            size = int((directory / "size").read_text())
        except FileNotFoundError:
            return None
        return Layer(diff_id, directory / "fs", size)

    def paths(self, diff_ids: Iterable[str]) -> tuple[Path, ...]:
        """The directories of a stack given bottom first, topmost first as overlayfs wants them.

        A layer that occurs twice (two steps that did the same) is given once, for overlayfs refuses it twice
        (ELOOP): at its topmost place, where it covers everything that it says further down.

        Raises NotFound if one is missing.
        """
        topmost_first = dict.fromkeys(reversed(list(diff_ids)))
        return tuple(self._existing(diff_id).path for diff_id in topmost_first)

    def size_of(self, diff_ids: Iterable[str]) -> int:
        """Bytes of those of the layers that are here."""
        return sum(layer.size for diff_id in diff_ids if (layer := self.get(diff_id)))

    def diff_ids(self) -> list[str]:
        """Every layer there is."""
        return [f"sha256:{path.name}" for path in self.root.iterdir() if len(path.name) == 64]

    def apply(self, diff_id: str | None, stream: BinaryIO) -> Layer:
        """Unpack an *uncompressed* tar stream into a layer; verified against `diff_id` if given.

        Returns the existing layer, stream unread, if `diff_id` is here already. No entry can land outside of
        the layer. Raises InvalidParameter for a malformed or hostile tar, or another diff ID; nothing stays.
        """
        if diff_id and (layer := self.get(diff_id)):
            return layer
        with self._temporary() as temporary, _HashedChunks(stream, self.limit) as chunks:
            tree = temporary / "fs"
            tree.mkdir(mode=0o755)
            tree.chmod(0o755)
            with paths.opened(tree, os.O_RDONLY | os.O_DIRECTORY) as root:
                reader = TarReader(iter(chunks))
                with Unpacker(root, whiteouts=True) as unpacker:
                    unpacker.unpack(reader)
                reader.drain()
            actual = chunks.digest()
            if diff_id and actual != diff_id:
                raise InvalidParameter(f"layer has diff ID {actual}, but its image says {diff_id}")
            syncfs(temporary)
            layer = self._publish(temporary, actual, unpacker.size)
            sync_directory(self.root)
            return layer

    def commit(self, upper: Path, written: Written | None = None) -> Layer:
        """An overlay upper directory *becomes* the layer, by rename. It must not be mounted any more.

        Its diff ID is the hash of the tar stream that `tar` would write; no tar is stored. If the same layer
        is here already, that one is returned. `written` tells of files that need not be read. What the disk
        has to do for it is left to `settle`, which is to be called some time. Raises SystemFailure.
        """
        diff_id, size = _summed(upper, written)
        if layer := self.get(diff_id):
            self._discard(upper)
            return layer
        with self._temporary() as temporary:
            upper.rename(temporary / "fs")
            self._mark(digest_hex(diff_id))
            return self._publish(temporary, diff_id, size)

    def settle(self) -> None:
        """Return when all layers that are here now are on disk, and what `commit` had no use for is gone.

        Raises OSError. If the disk failed, its layers stay marked until the next start: the kernel tells only
        once of bytes that it could not write, and has dropped them then.
        """
        with self._settling:
            while self._doomed:
                trees.remove(self._doomed.pop())
            with self._unsettled:
                marked, self._marked = self._marked, set()
            if not marked:
                return
            syncfs(self.root)
            with self._unsettled:
                for name in marked - self._marked:  # not those that were made again meanwhile
                    (self._unwritten / name).unlink(missing_ok=True)

    def copy(self, upper: Path) -> Layer:
        """As `commit`, but of a copy: `upper` stays as it is, and may even be in use."""
        with tempfile.TemporaryFile(dir=self._tmp) as file:
            _pack(upper, file.write)
            file.seek(0)
            return self.apply(None, file)

    def tar(self, diff_id: str, out: BinaryIO) -> None:
        """Write the layer as an uncompressed tar.

        A layer made by `commit` gives the very bytes its diff ID is of. One that was unpacked from somebody
        else's tar may not: then this raises Conflict after writing, and its blob in the content store is the
        source to use. Raises NotFound.
        """
        layer = self._existing(diff_id)
        diff_hash = hashlib.sha256()

        def write(data: bytes) -> None:
            diff_hash.update(data)
            out.write(data)

        _pack(layer.path, write)
        if f"sha256:{diff_hash.hexdigest()}" != diff_id:
            raise Conflict(f"layer {diff_id} was made from another tar than its directory gives")

    def remove(self, diff_id: str) -> None:
        """Delete the layer, if here. That nothing uses it any more is for the caller to know."""
        doomed = Path(tempfile.mkdtemp(prefix="removed-", dir=self._tmp))
        try:
            (self.root / digest_hex(diff_id)).rename(doomed / "layer")
        except FileNotFoundError:
            pass
        finally:
            trees.remove(doomed)

    def _existing(self, diff_id: str) -> Layer:
        layer = self.get(diff_id)
        if layer is None:
            raise NotFound(f"layer does not exist: {diff_id}")
        return layer

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A directory that is swept after a crash, and gone afterwards unless it was published."""
        path = Path(tempfile.mkdtemp(prefix="layer-", dir=self._tmp))
        try:
            yield path
        finally:
            if path.exists():
                trees.remove(path)

    def _publish(self, temporary: Path, diff_id: str, size: int) -> Layer:
        """Give a finished layer its name. If another thread was faster, its layer stays and this one goes."""
        (temporary / "size").write_text(str(size))
        target = self.root / digest_hex(diff_id)
        try:
            temporary.rename(target)
        except OSError:
            if not target.exists():
                raise
        return self._existing(diff_id)

    def _discard(self, tree: Path) -> None:
        doomed = Path(tempfile.mkdtemp(prefix="removed-", dir=self._tmp))
        tree.rename(doomed / "fs")
        self._doomed.append(doomed)

    def _mark(self, name: str) -> None:
        """As unwritten. A link, for its target is in its inode: it is there as soon as the layer is."""
        with self._unsettled:
            self._marked.add(name)
            with suppress(FileExistsError):
                (self._unwritten / name).symlink_to(_boot())

    def _is_whole(self, name: str) -> bool:
        """Whether a layer is what its name says."""
        directory = self.root / name
        try:
            diff_id, size = _summed(directory / "fs")
            if digest_hex(diff_id) != name:
                return False
            (directory / "size").write_text(str(size))
        except (OSError, SystemFailure):
            return False
        return True


class _HashedChunks:
    """Reads and hashes a stream in a thread, ahead of whoever takes its chunks.

    Decompressing, hashing and writing files all leave the interpreter free, so the three overlap.
    Leaving the context stops the thread, at the latest when its present read returns.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._chunks = chunks_of(stream.read, _CHUNK, limit, "layer")
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="layer-reader")

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._queue.get():
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    def digest(self) -> str:
        """Of the whole stream; call it at its end."""
        self._thread.join()
        return "sha256:" + self._hash.hexdigest()

    def _read(self) -> None:
        try:
            for chunk in self._chunks:
                if self._stopped.is_set():
                    break
                self._hash.update(chunk)
                self._queue.put(chunk)
            self._queue.put(b"")
        except BaseException as error:  # noqa: BLE001  raised again where the chunks are taken
            self._queue.put(error)

    def __enter__(self) -> "_HashedChunks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        # With the queue empty, what the thread may still put fits, so it comes to its end.
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join()


def _boot() -> str:
    """What tells this run of the kernel from all others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _summed(directory: Path, written: Written | None = None) -> tuple[str, int]:
    """The diff ID of a tree, and the bytes of its regular files."""
    diff_hash = hashlib.sha256()
    packer = _pack(directory, diff_hash.update, written)
    return f"sha256:{diff_hash.hexdigest()}", packer.size


def _pack(directory: Path, write: Callable[[bytes], object], written: Written | None = None) -> Packer:
    with paths.opened(directory, os.O_RDONLY | os.O_DIRECTORY) as root:
        # Hashing many bytes at once leaves the interpreter free, and is quicker.
        with io.BufferedWriter(_Sink(write), _CHUNK) as buffered:
            packer = Packer(buffered.write, overlay=True, written=written)
            packer.tree(root)
            packer.finish()
    return packer


class _Sink(io.RawIOBase):
    """A function that takes bytes, as a stream to write to."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._take(data)
        return len(data)
