"""COPY and ADD: sources into the merged tree of a stage.

Where they go is looked up in the merged tree; they are written below it, into the snapshot's upper directory,
which is all that will be left of the mount. There a file of the context needs no copy but a link: the context
is the build's own, nobody writes to it, and it goes when the build ends. The last who reads it need not even
link: whole directories that the target has not are moved.

Docker's rules: several sources or a directory need a directory as target; of a directory its contents are
copied; missing directories are made 0755; everything belongs to root unless `--chown` says otherwise.
"""

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import BinaryIO

from dockmagic_runtime.build.context import Source
from dockmagic_runtime.build.entries import PLAIN, FileContent, Reading, entries
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import paths
from dockmagic_runtime.storage import tar
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.unpack import Unpacker
from dockmagic_runtime.storage.written import Written

_MOST_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def copy(
    sources: Sequence[Source],
    root: int,
    target: str,
    *,
    owner: tuple[int, int] | None = (0, 0),
    reading: Reading = PLAIN,
    unpack: bool = False,
    upper: int | None = None,
    linking: bool = False,
    taking: bool = False,
    written: Written | None = None,
    limit: int | None = None,
    blaming: Callable[[Source], AbstractContextManager[None]] = lambda source: nullcontext(),
) -> None:
    """Copy into the tree `root` (a descriptor) at the absolute path `target`. Raises InvalidParameter.

    `owner` None: as the files have it. `upper`: where what is written to `root` goes, if that is an overlay.
    `linking`: the sources are on the same file system and the build's own. `taking`: and nobody reads them
    after us. `written` is told of the files that are made. `limit`: bytes of an archive.
    What fails while `blaming` a source is its fault, all else the target's.
    """
    linking = linking and owner == (0, 0) and reading.as_they_are
    # Of several sources one may lie in another.
    taking = taking and linking and reading.exclude is None and len(sources) == 1
    if len(sources) > 1 and any(source.below for source in sources):
        written = None  # the path of one may be made inside of what is known of another
    is_directory = target.endswith("/") or target.rpartition("/")[2] == "." or len(sources) > 1
    for source in sources:
        if unpack and not source.is_directory and _is_archive(source):
            if written:
                written.forget()  # more is put into directories that may be known
            _extract(source, root, target, owner, limit, blaming(source))
        elif source.below or source.is_directory or is_directory or _is_directory(root, target):
            place = f"{target}/{source.below}" if source.below else target
            _Directory(root, place, owner, upper, written, linking, taking).fill(source, reading)
        else:
            above, _, name = _followed(root, target).rstrip("/").rpartition("/")
            _Directory(root, above, owner, upper, written, linking).fill(
                source, reading, as_name=os.fsencode(name)
            )


def make_directory(root: int, path: str, owner: tuple[int, int] = (0, 0)) -> int:
    """A descriptor of the directory at `path`, made with those above it where missing, by `owner`."""
    try:
        return paths.open_in_root(root, path or "/", _DIRECTORY)
    except FileNotFoundError:
        above = path.rstrip("/").rpartition("/")[0]
        os.close(make_directory(root, above, owner))
        made = paths.make_in_root(root, path, directory=True)
        try:
            fd = os.open(".", _DIRECTORY, dir_fd=made)
        finally:
            os.close(made)
        os.fchmod(fd, 0o755)
        os.fchown(fd, *owner)
        return fd
    except NotADirectoryError:
        raise InvalidParameter(f"cannot copy to non-directory: {path}") from None


class _Directory:
    """A target directory, filled from sources."""

    def __init__(
        self,
        root: int,
        path: str,
        owner: tuple[int, int] | None,
        upper: int | None,
        written: Written | None,
        linking: bool,
        taking: bool = False,
    ) -> None:
        self._root, self._path, self._owner = root, path, owner
        self._upper, self._written = upper, written
        self._linking, self._taking = linking, taking

    def fill(self, source: Source, reading: Reading, as_name: bytes | None = None) -> None:
        with ExitStack() as stack:
            fd = merged = make_directory(self._root, self._path, self._owner or (0, 0))
            stack.callback(os.close, merged)
            if self._upper is not None:
                fd = _in_upper(merged, self._root, self._upper)
                stack.callback(os.close, fd)
            if self._taking and source.is_directory:
                _take(source, merged, fd)
            with Unpacker(fd, owner=self._owner, written=self._written) as unpacker:
                for entry, file in entries(source, reading):
                    if as_name is not None:
                        entry.name = as_name
                    linkable = self._linking and entry.kind == tar.REGULAR
                    if not (linkable and unpacker.link(entry, file.directory, file.name, file.known)):
                        unpacker.add(entry, file)
                unpacker.finish()


def _in_upper(directory: int, root: int, upper: int) -> int:
    """The same directory in the upper one instead of the merged."""
    status = os.fstat(directory)
    # A change, though of nothing, has overlayfs copy it up with all above it.
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))
    top = os.readlink(f"/proc/self/fd/{root}")  # noqa: PTH115
    path = os.path.relpath(os.readlink(f"/proc/self/fd/{directory}"), top)  # noqa: PTH115
    return paths.openat2(upper, path, _DIRECTORY, paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS)


def _take(source: Source, merged: int, target: int) -> None:
    """Move the directories of `source` to `target` that are new to it and to the tree that is seen there."""
    with os.scandir(source.directory) as found:
        names = [os.fsencode(entry.name) for entry in found if entry.is_dir(follow_symlinks=False)]
    for name in names:
        if not (paths.exists_at(merged, name) or paths.exists_at(target, name)):
            os.rename(name, name, src_dir_fd=source.directory, dst_dir_fd=target)
            source.written.gone(source.directory, name)


def _followed(root: int, path: str) -> str:
    """Where a file goes that is copied to `path`: through a link that is there, though it dangle."""
    for _ in range(_MOST_LINKS):
        try:
            fd = paths.open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return path
        try:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                return path
            to = os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
        path = to if to.startswith("/") else f"{path.rpartition('/')[0]}/{to}"
    raise InvalidParameter(f"too many links: {path}")


def _is_directory(root: int, path: str) -> bool:
    try:
        fd = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _is_archive(source: Source) -> bool:
    """Whether the file is a tar, compressed or not: its content decides, as in Docker."""
    try:
        with _opened(source) as stream:
            return next(iter(tar.TarReader(tar.chunks_of(stream.read, 1 << 16))), None) is not None
    except (InvalidParameter, OSError, EOFError, ValueError):
        # Not a tar, or one so broken that Docker too would copy it as it is.
        return False


def _extract(
    source: Source,
    root: int,
    target: str,
    owner: tuple[int, int] | None,
    limit: int | None,
    blamed: AbstractContextManager[None],
) -> None:
    fd = make_directory(root, target, owner or (0, 0))
    try:
        with blamed, _opened(source) as stream, Unpacker(fd) as unpacker:
            unpacker.unpack(tar.TarReader(tar.chunks_of(stream.read, limit=limit)))
    finally:
        os.close(fd)


def _opened(source: Source) -> BinaryIO:
    content = FileContent(source.directory, source.name)
    fd = os.open(content.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=content.directory)
    return decompress(os.fdopen(fd, "rb"))
