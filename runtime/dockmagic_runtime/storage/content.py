"""Blobs by digest: a plain OCI image layout on disk (OCI image-spec, `image-layout.md`).

    oci-layout                  the version of the layout
    index.json                  descriptors of the manifests that are entry points
    blobs/sha256/<hex>          every manifest, config and compressed layer, once
    ingest/<hex>                a download in progress; it resumes where it stopped, within a day

A blob appears under `blobs/` only when its bytes are on disk and hash to its name, so a reader never sees a
half-written or wrong one. Calls block; run them in a thread where the bytes are many.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from dockmagic_runtime.errors import InvalidParameter, NotFound, SystemFailure
from dockmagic_runtime.kernel import paths
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci.descriptor import Descriptor, digest_hex

_CHUNK = 1 << 20


class ContentStore:
    """The image layout at `root`, made if absent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        self._index_lock = threading.Lock()
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._ingest.mkdir(exist_ok=True)
        if not (root / "oci-layout").exists():
            replace_file(root / "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        if not (root / "index.json").exists():
            self._write_index([])

    def sweep(self, patience: float = 24 * 3600) -> int:
        """Drop what is half-written; returns its bytes. Nobody may be writing.

        A download whose digest is known may be taken up again: it stays for `patience` seconds.
        """
        freed = 0
        for path in self._ingest.iterdir():
            status = path.stat()
            if path.name.startswith("tmp-") or status.st_mtime <= time.time() - patience:
                path.unlink()
                freed += status.st_size
        return freed

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be. Raises InvalidParameter on a malformed digest."""
        return self._blobs / digest_hex(digest)

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def read(self, digest: str) -> bytes:
        """The whole blob. Raises NotFound."""
        with self._present(digest):
            return self.path(digest).read_bytes()

    def size(self, digest: str) -> int:
        """Bytes. Raises NotFound."""
        with self._present(digest):
            return self.path(digest).stat().st_size

    def digests(self) -> list[str]:
        """Every blob there is."""
        return [f"sha256:{path.name}" for path in self._blobs.iterdir()]

    def write(self, data: bytes) -> str:
        """Store a small blob; returns its digest."""
        digest = descriptor.sha256_digest(data)
        if not self.has(digest):
            replace_file(self.path(digest), data, beside=self._ingest)
        return digest

    def writer(self, expected: str | None = None, size: int | None = None) -> "BlobWriter":
        """A writer for one blob. With `expected`, it goes on at `.offset` where an earlier one stopped.

        Only one writer at a time may write the same `expected` digest.
        """
        return BlobWriter(self._ingest, self._blobs, expected, size)

    def delete(self, digest: str) -> None:
        """Forget a blob; nothing happens if it is not there."""
        self.path(digest).unlink(missing_ok=True)

    def index(self) -> list[Descriptor]:
        """The entry points: manifests with their `org.opencontainers.image.ref.name`."""
        document = json.loads((self.root / "index.json").read_bytes())
        return [Descriptor.from_json(entry) for entry in document["manifests"]]

    def add_manifest(self, manifest: Descriptor, name: str) -> None:
        """Make `manifest` the entry point called `name`, a normalised reference, in place of another."""
        named = Descriptor(
            manifest.media_type,
            manifest.digest,
            manifest.size,
            {**manifest.annotations, descriptor.REF_NAME: name},
            manifest.platform,
        )
        with self._index_lock:
            self._write_index([*self._without(lambda entry: _name(entry) == name), named])

    def remove_manifest(self, name: str) -> None:
        """Drop the entry point called `name`; its blobs stay."""
        with self._index_lock:
            self._write_index(self._without(lambda entry: _name(entry) == name))

    def _without(self, unwanted: Callable[[Descriptor], bool]) -> list[Descriptor]:
        return [entry for entry in self.index() if not unwanted(entry)]

    def _write_index(self, manifests: list[Descriptor]) -> None:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": descriptor.OCI_INDEX,
            "manifests": [entry.as_json() for entry in manifests],
        }
        replace_file(self.root / "index.json", json.dumps(document, indent=1).encode())

    @contextlib.contextmanager
    def _present(self, digest: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise NotFound(f"content digest {digest}: not found") from None


class BlobWriter:
    """One blob on its way in. As a context manager it aborts, keeping what is resumable, unless committed."""

    def __init__(self, ingest: Path, blobs: Path, expected: str | None, size: int | None) -> None:
        self._blobs, self._expected, self._size = blobs, expected, size
        self._hash = hashlib.sha256()
        self._resumable = expected is not None
        self.offset = 0
        if expected:
            self._path = ingest / digest_hex(expected)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._take_up()
        else:
            self._fd, name = tempfile.mkstemp(prefix="tmp-", dir=ingest)
            self._path = Path(name)

    def write(self, data: bytes | memoryview) -> None:
        """Raises InvalidParameter when there is more than the announced size, SystemFailure for the disk's.

        What is here already must not be what keeps a full disk full: after that it does not stay.
        """
        if self._size is not None and self.offset + len(data) > self._size:
            raise InvalidParameter(f"blob {self._expected or ''} is larger than its {self._size} bytes")
        self._hash.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self._resumable = False
            raise SystemFailure(f"write {self._path}: {(error.strerror or '').lower()}") from error
        self.offset += len(data)

    def commit(self) -> tuple[str, int]:
        """Verify, put in place durably; returns (digest, size).

        Raises InvalidParameter when digest or size are not the announced ones; the bytes are then dropped.
        """
        digest = "sha256:" + self._hash.hexdigest()
        if self._size is not None and self.offset != self._size:
            self.abort(keep=False)
            raise InvalidParameter(f"unexpected commit size {self.offset}, expected {self._size}")
        if self._expected and digest != self._expected:
            self.abort(keep=False)
            raise InvalidParameter(f"filesystem layer verification failed for digest {self._expected}")
        os.fchmod(self._fd, 0o644)
        os.fsync(self._fd)
        self._close()
        self._path.replace(self._blobs / digest_hex(digest))
        sync_directory(self._blobs)
        return digest, self.offset

    def abort(self, keep: bool = True) -> None:
        """Stop here. What has arrived stays for a later writer if `keep` and the digest is known."""
        self._close()
        if not (keep and self._resumable and self.offset):
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> "BlobWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            self.abort()

    def _take_up(self) -> None:
        while chunk := os.read(self._fd, _CHUNK):
            self._hash.update(chunk)
            self.offset += len(chunk)
        if self._size is not None and self.offset > self._size:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._hash, self.offset = hashlib.sha256(), 0

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def replace_file(path: Path, data: bytes, beside: Path | None = None) -> None:
    """Give `path` the content `data`: all of it and durably, or (after a crash) what it had before.

    `beside` is the directory for the temporary file, on the same file system; the file's own by default.
    """
    fd, temporary = tempfile.mkstemp(prefix="tmp-", dir=beside or path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, 0o644)
            os.fsync(fd)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable (a rename is not, until its directory is synced)."""
    with paths.opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def _name(entry: Descriptor) -> str | None:
    return entry.annotations.get(descriptor.REF_NAME)
