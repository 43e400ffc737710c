"""The files of one container, in and out as tar streams: `docker cp`.

A running container is seen through its own root, /proc/<pid>/root, with all that is mounted in it. For a
stopped one the layers, volumes and binds are mounted in a mount namespace of the calling thread, so the
thread must be one that ends afterwards: with it and the descriptors everything is unmounted, also after a
kill. Every path is resolved by the kernel inside that root (openat2(2), RESOLVE_IN_ROOT), whatever the
container does to its directories meanwhile; nothing of the container's is executed or loaded.
"""

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dockmagic_runtime import timestamps
from dockmagic_runtime.containers import etcfiles, mountpoints
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.errors import Forbidden, InvalidParameter, NotFound
from dockmagic_runtime.kernel import mounts, namespaces
from dockmagic_runtime.kernel.paths import RESOLVE_NO_SYMLINKS, exists_at, open_in_root, openat2, opened
from dockmagic_runtime.process.rootfs import Binds, Tree
from dockmagic_runtime.storage import tar
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs
from dockmagic_runtime.storage.pack import Packer
from dockmagic_runtime.storage.unpack import Unpacker

Json = dict[str, Any]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY

# Go's os.FileMode: the permission bits are the file's own, the rest has places of its own.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


@dataclass(frozen=True)
class ContainerFiles:
    """A container's files; `bundle` is its directory, `rootfs` its layers, `named` how the client named it.

    All calls block, and each wants a thread that ends after it. A stopped container must stay so meanwhile.
    """

    container: Container
    rootfs: Rootfs
    bundle: Path
    named: str

    def status(self, path: str) -> Json:
        """What is at `path`, in the form of the header X-Docker-Container-Path-Stat; of a link, the link.

        Raises NotFound in Docker's words.
        """
        with self._root() as root, self._located(root, path) as (directory, name):
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            is_link = stat.S_ISLNK(found.st_mode)
            link = os.fsdecode(os.readlink(name, dir_fd=directory)) if is_link else ""
        if link:
            link = posixpath.normpath(posixpath.join(posixpath.dirname(_clean(path)), link))
        return {
            "name": _base(path),
            "size": found.st_size,
            "mode": _go_mode(found.st_mode),
            "mtime": timestamps.render(found.st_mtime_ns),
            "linkTarget": link,
        }

    def read(self, path: str, out: BinaryIO) -> None:
        """Write what is at `path`, with all below it, as a tar; names begin with the path's last part."""
        with self._root() as root, self._located(root, path) as (directory, name):
            packer = Packer(out.write)
            base = os.fsencode(_base(path))
            if base == b"/":
                fd = os.open(".", _DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
                try:
                    packer.tree(fd, b"/")
                finally:
                    os.close(fd)
            else:
                packer.member(directory, name, base)
            packer.finish()

    def write(self, path: str, source: BinaryIO, *, keep_kinds: bool = False) -> None:
        """Unpack a tar, compressed or not, into the directory at `path`.

        With `keep_kinds` a directory does not take the place of a file, nor the other way round. Raises
        NotFound, InvalidParameter, Forbidden (read-only).
        """
        with self._root() as root:
            try:
                directory = open_in_root(root, _clean(path), _DIRECTORY)
            except FileNotFoundError:
                raise self._missing(path) from None
            except NotADirectoryError:
                raise InvalidParameter("extraction point is not a directory") from None
            try:
                self._refuse_readonly(root, directory)
                with decompress(source) as plain, Unpacker(directory) as unpacker:
                    reader = tar.TarReader(tar.chunks_of(plain.read))
                    for entry in reader:
                        if keep_kinds:
                            _refuse_other_kind(directory, entry)
                        unpacker.add(entry, reader)
                    unpacker.finish()
                    reader.drain()
            finally:
                os.close(directory)

    @contextmanager
    def _root(self) -> Iterator[int]:
        root = self._of_running() if self.container.state.pid else self._of_stopped()
        try:
            yield root
        finally:
            os.close(root)

    def _of_running(self) -> int:
        path = f"/proc/{self.container.state.pid}/root"
        try:
            return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"container {self.container.id} has just ended: try again") from None

    def _of_stopped(self) -> int:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.set_propagation("/", mounts.MS_REC | mounts.MS_PRIVATE)
        points = mountpoints.oci_mounts(self.container.mounts) + etcfiles.mounts(self.bundle)
        entries = [each for each in points if each["type"] == "bind"]
        binds = Binds(entries, str(self.bundle))  # copied before the root covers the bundle
        root = mount_rootfs(self.rootfs)
        try:
            with opened(self.bundle) as here:
                mounts.attach(root, here)
            tree = Tree(root)
            for number, entry in enumerate(entries):
                tree.mount_bind(entry, binds.take(number))
        except BaseException:
            os.close(root)
            raise
        return root

    @contextmanager
    def _located(self, root: int, path: str) -> Iterator[tuple[int, bytes]]:
        """A directory's descriptor and a name in it. `dir/` and `dir/.` mean what a link there points to."""
        clean = _clean(path)
        whole = clean == "/" or path.endswith(("/", "/."))
        try:
            directory = open_in_root(root, clean if whole else posixpath.dirname(clean), _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(path) from None
        try:
            name = b"." if whole else os.fsencode(posixpath.basename(clean))
            if not exists_at(directory, name):
                raise self._missing(path)
            yield directory, name
        finally:
            os.close(directory)

    def _missing(self, path: str) -> NotFound:
        return NotFound(f"Could not find the file {path} in container {self.named}")

    def _refuse_readonly(self, root: int, directory: int) -> None:
        in_layers = os.fstat(root).st_dev == os.fstat(directory).st_dev
        if in_layers and self.container.host_config["ReadonlyRootfs"]:
            raise Forbidden("container rootfs is marked read-only")
        if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
            raise Forbidden("mounted volume is marked read-only")


def _refuse_other_kind(directory: int, entry: tar.Entry) -> None:
    path = os.fsdecode(entry.name).strip("/") or "."
    try:
        fd = openat2(directory, path, os.O_PATH | os.O_NOFOLLOW, RESOLVE_NO_SYMLINKS)
    except OSError:
        return  # nothing is there, or the unpacker will say what is wrong with it
    is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    os.close(fd)
    if is_directory and entry.kind != tar.DIRECTORY:
        raise InvalidParameter(f'cannot overwrite directory "{path}" with non-directory')
    if not is_directory and entry.kind == tar.DIRECTORY:
        raise InvalidParameter(f'cannot overwrite non-directory "{path}" with directory')


def _clean(path: str) -> str:
    return posixpath.normpath(f"/{path}").replace("//", "/")


def _base(path: str) -> str:
    """Go's filepath.Base: the last part as it was given, so `dir/.` is `.`."""
    if path.endswith("/."):
        return "."
    return posixpath.basename(_clean(path)) or "/"


def _go_mode(mode: int) -> int:
    bits = sum(place for bit, place in _GO_BITS.items() if mode & bit)
    return stat.S_IMODE(mode) & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0) | bits
