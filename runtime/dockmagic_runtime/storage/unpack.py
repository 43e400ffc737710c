"""Tar entries into a directory, whoever made the tar.

What keeps every entry inside: names and link targets are taken relative to the root and may not climb out of
it; the directory that an entry goes into is opened with openat2(RESOLVE_IN_ROOT), so symbolic links of the
archive (or of a container that moves things meanwhile) lead nowhere else; the entry itself is made through
that descriptor, with O_EXCL and without following.

What makes it fast: one large-buffer tar reader, descriptors of recent directories kept open, and no call
that would change nothing. Modes and times of directories are set last, for filling a directory alters them.
"""

import errno
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dockmagic_runtime.errors import InvalidParameter, SystemFailure
from dockmagic_runtime.kernel import paths, trees
from dockmagic_runtime.storage import overlayform, tar
from dockmagic_runtime.storage.written import SMALL, File, Listing, Written

_log = logging.getLogger(__name__)

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_DIRECTORIES = 64
_ANY_DISK = 1_000_000_000 << 31
"""Nanoseconds since the epoch: later ones do not fit into every file system's inodes."""
_NO_OWNER = 0xFFFFFFFF
"""To chown(2) this means: as it is."""
_RESOLVE = paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_MAGICLINKS
_DISK_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.EPERM,
        errno.EACCES,
    }
)


class Source(Protocol):
    """Where an entry's bytes come from: a TarReader, or a file. `whole` is for small ones."""

    def content(self) -> Iterator[memoryview]: ...

    def whole(self) -> bytes: ...


@dataclass(frozen=True)
class _DirectoryState:
    entry: tar.Entry
    owner: tuple[int, int]


class Unpacker:
    """Unpacks into the directory descriptor `root`, which stays the caller's.

    `whiteouts`: OCI deletions become overlayfs' (for a layer); otherwise `.wh.` is a name like any other.
    `owner`: (uid, gid) for everything, instead of what the archive says.
    `written`: is told what the directories get that it knows as new, and of new ones.
    Use as a context manager: leaving it closes descriptors; `finish` must have been called for a good tree.
    """

    def __init__(
        self,
        root: int,
        *,
        whiteouts: bool = False,
        owner: tuple[int, int] | None = None,
        written: Written | None = None,
    ) -> None:
        self.size = 0
        """Bytes of the regular files unpacked so far."""
        self._root = root
        self._whiteouts = whiteouts
        self._owner = owner
        self._written = written
        self._open: dict[bytes, int] = {}
        self._listings: dict[int, Listing] = {}
        """What there is to note, by open directory."""
        self._states: dict[bytes, _DirectoryState] = {}
        self._umask = _umask(root)
        self._me = (os.geteuid(), os.getegid())
        self._giving_groups: set[int] = set()
        """Open directories of another group, which may give it to what is made in them: those that are
        set-group-ID, and all on a disk that is mounted with `grpid`."""
        self._opened(root)

    def unpack(self, reader: tar.TarReader) -> None:
        """All entries, and `finish`. Raises InvalidParameter (the archive) or SystemFailure (the disk)."""
        for entry in reader:
            self.add(entry, reader)
        self.finish()

    def add(self, entry: tar.Entry, reader: Source) -> None:
        """One entry, its content read from `reader`."""
        path = _inside(entry.name)
        try:
            if self._whiteouts and path.find(overlayform.WHITEOUT_PREFIX) >= 0 and self._deletion(path):
                return
            if entry.kind == tar.REGULAR and path:
                self._regular(path, entry, reader)
            else:
                self._make(path, entry)
        except OSError as error:
            raise _explained(path, error) from error

    def link(self, entry: tar.Entry, directory: int, name: bytes, known: File | None = None) -> bool:
        """A regular file as another link to the file `name` in `directory`; False if that can't be.

        The file must be nobody else's, never change again, and be in all things as `entry` says. `known` is
        what else can be told of it.
        """
        try:
            path = _inside(entry.name)
            above, _, last = path.rpartition(b"/")
            into = self._directory(above)
            self._again(
                path,
                into,
                last,
                lambda: os.link(name, last, src_dir_fd=directory, dst_dir_fd=into, follow_symlinks=False),
            )
            if known and into in self._listings:
                status = os.stat(last, dir_fd=into, follow_symlinks=False)
                self._listings[into][last] = known._replace(shared=(status.st_dev, status.st_ino))
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                return False
            raise _explained(entry.name, error) from error
        self.size += entry.size
        return True

    def finish(self) -> None:
        """Give the directories their owners, modes and times."""
        for path, state in self._states.items():
            try:
                fd = paths.openat2(self._root, os.fsdecode(path) or ".", _DIRECTORY, _RESOLVE)
                try:
                    self._directory_metadata(fd, state)
                finally:
                    os.close(fd)
            except (FileNotFoundError, NotADirectoryError):
                continue  # the archive replaced it, under another name that led there
            except OSError as error:
                raise _explained(path, error) from error
        self._states.clear()

    def __enter__(self) -> "Unpacker":
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_descriptors()

    def _make(self, path: bytes, entry: tar.Entry) -> None:
        owner = self._owner or (entry.uid, entry.gid)
        if not path:
            if entry.kind == tar.DIRECTORY:
                self._states[path] = _DirectoryState(entry, owner)
            return
        above, _, name = path.rpartition(b"/")
        directory = self._directory(above)
        if entry.kind == tar.DIRECTORY:
            self._make_directory(directory, path, name, 0o700)
            self._states[path] = _DirectoryState(entry, owner)
        elif entry.kind == tar.SYMLINK:
            self._again(path, directory, name, lambda: os.symlink(entry.link, name, dir_fd=directory))
            self._metadata(directory, name, entry, owner)
        elif entry.kind == tar.HARDLINK:
            self._hardlink(directory, path, name, entry)
        else:
            mode = entry.mode | tar.FILE_TYPES[entry.kind]
            device = os.makedev(*entry.device) if entry.kind != tar.FIFO else 0
            self._again(path, directory, name, lambda: os.mknod(name, mode, device, dir_fd=directory))
            self._metadata(directory, name, entry, owner)
            os.chmod(name, entry.mode, dir_fd=directory)

    def _regular(self, path: bytes, entry: tar.Entry, reader: Source) -> None:
        above, _, name = path.rpartition(b"/")
        directory = self._open.get(above) or self._directory(above)
        owner = self._owner or (entry.uid, entry.gid)
        mode = entry.mode
        try:
            fd = os.open(name, _NEW_FILE, mode & 0o777, dir_fd=directory)
        except FileExistsError:
            self._remove(path, directory, name)
            fd = os.open(name, _NEW_FILE, mode & 0o777, dir_fd=directory)
        listing = self._listings.get(directory)
        known = None
        try:
            if listing is not None:
                listing[name] = None
            if entry.sparse is not None:
                _write_sparse(fd, entry, reader)
            elif listing is not None and _is_plain(entry, owner):
                known = self._write_told(fd, entry, owner, reader)
            else:
                for data in reader.content():
                    _write(fd, data)
            if owner != self._me or directory in self._giving_groups:
                os.fchown(fd, *owner)
            # After the change of owner, which takes set-user-ID bits and capabilities away.
            if mode & 0o7000 or mode & self._umask:
                os.fchmod(fd, mode)
            if entry.xattrs:
                _set_xattrs(fd, entry)
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)
        if known and listing is not None:
            listing[name] = known
        self.size += entry.size

    def _write_told(self, fd: int, entry: tar.Entry, owner: tuple[int, int], source: Source) -> File:
        """The content, and what can be told of the file."""
        size, content = entry.size, None
        if size <= SMALL:
            content = source.whole()
            _write(fd, content)
            size, digest = len(content), hashlib.sha256(content).digest()
            content = self._written.kept(content) if self._written else None
        else:
            running = hashlib.sha256()
            for data in source.content():
                _write(fd, data)
                running.update(data)
            digest = running.digest()
        return File(entry.mode, *owner, size, entry.mtime_ns, digest, content)

    def _hardlink(self, directory: int, path: bytes, name: bytes, entry: tar.Entry) -> None:
        target = _inside(entry.link)
        if target == path:
            return
        above, _, target_name = target.rpartition(b"/")
        try:
            source = paths.openat2(self._root, os.fsdecode(above) or ".", _DIRECTORY, _RESOLVE)
        except FileNotFoundError:
            raise InvalidParameter(
                f"hard link {tar.shown(path)} to {tar.shown(target)}: no such file"
            ) from None
        try:
            self._again(
                path,
                directory,
                name,
                lambda: os.link(
                    target_name, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False
                ),
            )
            if self._written and (listing := self._written.listing(os.fstat(source).st_ino)) is not None:
                listing[target_name] = None
        except PermissionError:
            # What link(2) says of a directory, too.
            if stat.S_ISDIR(os.stat(target_name, dir_fd=source, follow_symlinks=False).st_mode):
                raise InvalidParameter(
                    f"hard link {tar.shown(path)} to {tar.shown(target)}: a directory"
                ) from None
            raise
        finally:
            os.close(source)

    def _metadata(self, directory: int, name: bytes, entry: tar.Entry, owner: tuple[int, int]) -> None:
        if owner != self._me or directory in self._giving_groups:
            os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
        os.utime(name, ns=_times(entry), dir_fd=directory, follow_symlinks=False)

    def _directory_metadata(self, fd: int, state: _DirectoryState) -> None:
        os.fchown(fd, *state.owner)
        os.fchmod(fd, state.entry.mode)
        _set_xattrs(fd, state.entry)
        os.utime(fd, ns=_times(state.entry))

    def _deletion(self, path: bytes) -> bool:
        """If the name is an OCI whiteout, do what it says."""
        *above, name = path.split(b"/")
        if any(part.startswith(b".wh..wh.") and part != overlayform.OPAQUE_MARKER for part in (*above, name)):
            return True  # AUFS' own bookkeeping, in images from its time
        if any(part.startswith(overlayform.WHITEOUT_PREFIX) for part in above):
            raise InvalidParameter(f"invalid layer: {tar.shown(path)} is inside of a whiteout")
        if not name.startswith(overlayform.WHITEOUT_PREFIX):
            return False
        directory = self._directory(b"/".join(above))
        if name == overlayform.OPAQUE_MARKER:
            overlayform.make_opaque(directory)
            return True
        deleted = name.removeprefix(overlayform.WHITEOUT_PREFIX)
        if deleted in (b"", b".", b".."):
            raise InvalidParameter(f"invalid layer: {tar.shown(path)} is not a whiteout")
        try:
            overlayform.make_whiteout(directory, deleted)
            self._note(directory, deleted)
        except FileExistsError:
            # A whiteout is about the layers below: what this layer itself has stays.
            if stat.S_ISDIR(os.stat(deleted, dir_fd=directory, follow_symlinks=False).st_mode):
                self._make_opaque(directory, deleted)
        return True

    def _make_directory(self, directory: int, path: bytes, name: bytes, mode: int) -> None:
        try:
            os.mkdir(name, mode, dir_fd=directory)
        except FileExistsError:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return
            self._remove(path, directory, name)
            os.mkdir(name, mode, dir_fd=directory)
            if self._whiteouts and overlayform.is_whiteout(status):
                self._make_opaque(directory, name)
        if self._written is not None:
            self._written.made(os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino)
            self._note(directory, name)

    def _note(self, directory: int, name: bytes) -> None:
        """That something is there now of which nothing is told."""
        if (listing := self._listings.get(directory)) is not None:
            listing[name] = None

    def _make_opaque(self, directory: int, name: bytes) -> None:
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            overlayform.make_opaque(fd)
        finally:
            os.close(fd)

    def _directory(self, path: bytes) -> int:
        """A descriptor for the directory at `path`, made with its parents where the archive left them out."""
        missing: list[bytes] = []
        while (fd := self._present(path)) is None:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for each in reversed(missing):
            fd = self._keep(each, self._make_parent(fd, each))
        return fd

    def _present(self, path: bytes) -> int | None:
        """A descriptor for the directory at `path`; None if there is none."""
        fd = self._open.get(path) if path else self._root
        if fd is not None:
            return fd
        try:
            return self._keep(path, paths.openat2(self._root, os.fsdecode(path), _DIRECTORY, _RESOLVE))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _keep(self, path: bytes, fd: int) -> int:
        if len(self._open) >= _OPEN_DIRECTORIES:
            self._forget_descriptors()
        self._open[path] = self._opened(fd)
        return fd

    def _opened(self, directory: int) -> int:
        status = os.fstat(directory)
        if status.st_gid != self._me[1]:
            self._giving_groups.add(directory)
        if self._written and (listing := self._written.listing(status.st_ino)) is not None:
            self._listings[directory] = listing
        return directory

    def _make_parent(self, directory: int, path: bytes) -> int:
        name = path.rpartition(b"/")[2]
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if not (self._whiteouts and overlayform.is_whiteout(status)):
                raise InvalidParameter(f"{tar.shown(path)} is not a directory")
        self._make_directory(directory, path, name, 0o755)
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        if self._umask & 0o755:
            os.fchmod(fd, 0o755)
        if self._owner:
            os.fchown(fd, *self._owner)
        return fd

    def _again(self, path: bytes, directory: int, name: bytes, make: Callable[[], None]) -> None:
        """Make something; if the name is taken, instead of what is there."""
        try:
            make()
        except FileExistsError:
            self._remove(path, directory, name)
            make()
        self._note(directory, name)

    def _remove(self, path: bytes, directory: int, name: bytes) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        trees.remove_at(directory, name)
        if self._written is not None:
            self._written.gone(directory, name)
            if stat.S_ISDIR(status.st_mode):
                self._written.forget()
        self._forget_descriptors(but=directory)
        inside = path + b"/"
        for known in [p for p in self._states if p == path or p.startswith(inside)]:
            del self._states[known]

    def _forget_descriptors(self, but: int = -1) -> None:
        kept = {path: fd for path, fd in self._open.items() if fd == but}
        for fd in self._open.values():
            if fd != but:
                os.close(fd)
                self._giving_groups.discard(fd)
                self._listings.pop(fd, None)
        self._open = kept


def _inside(name: bytes) -> bytes:
    """`name` relative to the root, without `.`, `..` and empty parts; InvalidParameter if it climbs out."""
    # Bytes `in` bytes raises and catches an error inside; find does not, and this is asked for every file.
    odd = (
        name.startswith(b"/") or name.endswith((b"/", b".")) or name.find(b"//") >= 0 or name.find(b"./") >= 0
    )
    if not odd:
        if 0 in name:
            raise InvalidParameter("invalid tar header: NUL in a name")
        return name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidParameter(f"invalid tar: {tar.shown(name)} is outside of the archive's root")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    path = b"/".join(parts)
    if 0 in path:
        raise InvalidParameter("invalid tar header: NUL in a name")
    return path


def _write(fd: int, data: bytes | memoryview) -> None:
    while (written := os.write(fd, data)) < len(data):
        data = data[written:]


def _is_plain(entry: tar.Entry, owner: tuple[int, int]) -> bool:
    """Whether the file will be on every disk as the entry says, and has nothing besides."""
    return not (entry.xattrs or entry.mode & 0o7000 or _NO_OWNER in owner) and 0 <= entry.mtime_ns < _ANY_DISK


def _write_sparse(fd: int, entry: tar.Entry, reader: Source) -> None:
    os.ftruncate(fd, entry.size)
    segments = iter(entry.sparse or ())
    room = 0
    for data in reader.content():
        while data:
            while not room:
                offset, room = next(segments)
                os.lseek(fd, offset, os.SEEK_SET)
            part = data[:room]
            _write(fd, part)
            room -= len(part)
            data = data[len(part) :]


def _set_xattrs(fd: int, entry: tar.Entry) -> None:
    for key, value in entry.xattrs.items():
        name = os.fsdecode(key)
        if not overlayform.is_portable(name):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            _log.warning("%s: this file system keeps no attribute %s", tar.shown(entry.name), name)


def _times(entry: tar.Entry) -> tuple[int, int]:
    """(atime, mtime); a time that the kernel could not keep becomes the epoch, as in Docker."""
    mtime = entry.mtime_ns
    return (mtime, mtime) if 0 <= mtime < 1 << 63 else (0, 0)


def _umask(root: int) -> int:
    """The bits that new files may be without: this process's umask, or any where `root` has a default ACL.

    It is read without being set, for other threads are creating files.
    """
    try:
        # By its path in /proc, for it may be open as a path only.
        os.getxattr(f"/proc/self/fd/{root}", "system.posix_acl_default")
        return 0o777
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    raise SystemFailure("the kernel does not tell the umask")


def _explained(path: bytes, error: OSError) -> InvalidParameter | SystemFailure:
    sentence = f"cannot unpack {tar.shown(path)}: {error.strerror}"
    return SystemFailure(sentence) if error.errno in _DISK_ERRORS else InvalidParameter(sentence)
