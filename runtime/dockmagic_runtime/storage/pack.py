"""A directory tree as a tar stream that depends on nothing but the tree.

The order is fixed (the files of a directory by name, then its subdirectories by name, each followed by its
own), user and group names are left empty, times are whole seconds as in Docker's layers. So the diff ID of
a layer can be computed from its directory at any time, and no tar needs keeping. Sockets are left out: they
mean nothing without their process. Second names of one file become hard links to the first.

All opens go through directory descriptors and follow no symbolic link.
"""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace

from dockmagic_runtime.errors import SystemFailure
from dockmagic_runtime.kernel import paths
from dockmagic_runtime.kernel.mounts import mount_id
from dockmagic_runtime.storage import overlayform, tar
from dockmagic_runtime.storage.written import File, Written

_CHUNK = 1 << 20
_KINDS = {file_type: kind for kind, file_type in tar.FILE_TYPES.items()}
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Packer:
    """Writes one archive: any number of `tree` and `member`, then `finish`.

    `overlay`: the trees are overlay upper or lower directories, and their deletions are written as OCI
    whiteouts. `one_mount`: what is mounted on a tree is not entered; its mount point is written empty.
    `written` tells of files that need not be read.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        overlay: bool = False,
        one_mount: bool = False,
        written: Written | None = None,
    ) -> None:
        self.size = 0
        """Bytes of the regular files written so far."""
        self._write = write
        self._overlay = overlay
        self._one_mount = one_mount
        self._written = written or Written()
        self._device = -1
        self._mount = -1
        self._first_names: dict[tuple[int, int], bytes] = {}

    def tree(self, root: int, prefix: bytes = b"") -> None:
        """Everything below the directory `root`, which itself is not written, named under `prefix`.

        Raises SystemFailure for what the kernel refuses.
        """
        if self._one_mount:
            self._device, self._mount = os.fstat(root).st_dev, mount_id(root)
        pending: list[tuple[bytes, os.stat_result | None]] = [(b"", None)]
        while pending:
            path, status = pending.pop()
            try:
                pending += self._directory(root, path, status, prefix)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise SystemFailure(f"cannot read {tar.shown(b'/' + prefix + path)}: {reason}") from error

    def member(self, directory: int, name: bytes, as_name: bytes) -> None:
        """The file or whole directory `name` of `directory`, written as `as_name`."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            self._file(directory, name, as_name, status)
            return
        fd = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            self._directory_header(fd, as_name, status)
            self.tree(fd, as_name + b"/")
        finally:
            os.close(fd)

    def finish(self) -> None:
        self._write(tar.END)

    def _directory(
        self, root: int, path: bytes, status: os.stat_result | None, prefix: bytes
    ) -> list[tuple[bytes, os.stat_result | None]]:
        """Write one directory and its files; returns its subdirectories, last first."""
        fd = paths.openat2(root, os.fsdecode(path) or ".", _DIRECTORY, paths.RESOLVE_NO_SYMLINKS)
        try:
            if status:
                self._directory_header(fd, prefix + path, status)
            if self._overlay and status and overlayform.is_opaque(fd):
                self._marker(prefix + path + b"/" + overlayform.OPAQUE_MARKER)
            if self._device >= 0 and os.fstat(fd).st_dev != self._device:
                return []
            inside = path + b"/" if path else b""
            subdirectories: list[tuple[bytes, os.stat_result | None]] = []
            inside_prefix = prefix + inside
            for name, known in self._listed(fd):
                if isinstance(known, File) and known.content is not None:
                    self._told(inside_prefix + name, known, known.content)
                    continue
                if known:
                    self._regular(fd, name, inside_prefix + name)
                    continue
                entry = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(entry.st_mode):
                    subdirectories.append((inside + name, entry))
                elif self._overlay and overlayform.is_whiteout(entry):
                    self._marker(prefix + inside + overlayform.WHITEOUT_PREFIX + name)
                else:
                    self._file(fd, name, prefix + inside + name, entry)
            return subdirectories[::-1]
        finally:
            os.close(fd)

    def _listed(self, fd: int) -> Sequence[tuple[bytes, File | bool | None]]:
        """What a directory has, by name: a File, or whether it is a regular file that is to be opened."""
        told = self._written.listed(fd)
        return overlayform.listed(fd) if told is None else told

    def _directory_header(self, fd: int, name: bytes, status: os.stat_result) -> None:
        entry = _entry(name + b"/", tar.DIRECTORY, status)
        entry.xattrs = overlayform.portable_xattrs(fd)
        self._write(tar.header(entry))

    def _marker(self, name: bytes) -> None:
        """A whiteout: an empty file that belongs to nobody and to no time."""
        self._write(tar.header(tar.Entry(name, tar.REGULAR, 0)))

    def _file(self, directory: int, name: bytes, as_name: bytes, status: os.stat_result) -> None:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        if kind == tar.REGULAR:
            self._regular(directory, name, as_name)
            return
        entry = _entry(as_name, kind, status)
        if status.st_nlink > 1 and self._second_name(entry, (status.st_dev, status.st_ino)):
            return
        if kind == tar.SYMLINK:
            entry.link = os.readlink(name, dir_fd=directory)
        elif kind in (tar.CHARACTER, tar.BLOCKDEV):
            entry.device = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._write(tar.header(entry))

    def _second_name(self, entry: tar.Entry, file: tuple[int, int]) -> bool:
        """Whether `file` (device, inode) has another name here; then it is written as a link to that."""
        first = self._first_names.setdefault(file, entry.name)
        if first == entry.name:
            return False
        self._write(tar.header(replace(entry, kind=tar.HARDLINK, link=first, size=0)))
        return True

    def _told(self, as_name: bytes, file: File, content: bytes) -> None:
        """A regular file that need not be opened."""
        mode, uid, gid, size, mtime_ns, _, _, shared = file
        if shared and self._second_name(file.entry(as_name), shared):
            return
        self.size += size
        header = tar.plain_header(as_name, mode, uid, gid, size, mtime_ns)
        self._write(header + content + tar.padding(size))

    def _regular(self, directory: int, name: bytes, as_name: bytes) -> None:
        fd = os.open(name, _FILE, dir_fd=directory)
        try:
            status = os.fstat(fd)
            entry = _entry(as_name, tar.REGULAR, status)
            if status.st_nlink > 1 and self._second_name(entry, (status.st_dev, status.st_ino)):
                return
            if self._device >= 0 and status.st_dev != self._device and mount_id(fd) != self._mount:
                self._write(tar.header(entry))
                return
            entry.xattrs = overlayform.portable_xattrs(fd)
            entry.size = missing = status.st_size
            self.size += entry.size
            self._write(tar.header(entry))
            while missing:
                # A file that shrinks while it is read is filled up: its header has promised the size.
                data = os.read(fd, min(missing, _CHUNK)) or bytes(min(missing, _CHUNK))
                missing -= len(data)
                self._write(data)
            self._write(tar.padding(entry.size))
        finally:
            os.close(fd)


def _entry(name: bytes, kind: bytes, status: os.stat_result) -> tar.Entry:
    return tar.Entry(
        name,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        mtime_ns=status.st_mtime_ns,
    )
