"""Paths inside a root that is not ours: openat2(2) with RESOLVE_IN_ROOT.

A container or an image decides what its symbolic links say. Every function takes the root as a descriptor
and resolves as if chrooted there, so that no link, `..` or magic link of /proc leads out. Magic links are
never followed: a descriptor in /proc/self/fd could be the host's.
"""

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN, ENOENT, ENOTDIR

from dockmagic_runtime.kernel.libc import NR, syscall

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_PROC_SUPER_MAGIC = 0x9FA0
_DEVPTS_SUPER_MAGIC = 0x1CD1

_LINKS = 40  # as many as the kernel follows in one path


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


@contextmanager
def opened(path: str | os.PathLike[str], flags: int = os.O_PATH | os.O_DIRECTORY) -> Iterator[int]:
    """A descriptor while the block lasts; by default that of a directory to resolve in, or to mount on."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below the descriptor `directory`; always close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        try:
            return syscall(
                NR["openat2"], directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), path=path
            )
        except OSError as error:
            # EAGAIN: something was renamed while `..` was resolved; the kernel asks to try again.
            if error.errno != EAGAIN:
                raise


def open_in_root(root: int, path: str, flags: int = os.O_PATH, *, symlinks: bool = True) -> int:
    """Open what a process in that root would get for `path`. `symlinks=False` refuses any link (ELOOP)."""
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if symlinks else RESOLVE_NO_SYMLINKS)
    return openat2(root, path, flags, resolve)


def make_in_root(root: int, path: str, *, directory: bool, symlinks: bool = True) -> int:
    """Open `path` in the root (O_PATH), making it and the directories above it where they are missing.

    Links, dangling ones too, are followed inside the root only. Raises `OSError`: NotADirectoryError if a
    file is in the way, ELOOP for a link that may not be followed.
    """
    try:
        return open_in_root(root, path, symlinks=symlinks)
    except FileNotFoundError:
        return _make(root, path, directory, symlinks)


def _make(root: int, path: str, directory: bool, symlinks: bool) -> int:
    """Walk one component at a time, each opened without following, with the way back kept as descriptors."""
    way = [os.dup(root)]
    parts = [p for p in path.split("/") if p and p != "."][::-1]
    links = 0
    try:
        while parts:
            name = parts.pop()
            if name == "..":
                if len(way) > 1:
                    os.close(way.pop())
                continue
            here = way[-1]
            try:
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            except FileNotFoundError:
                if parts or directory:
                    os.mkdir(name, 0o755, dir_fd=here)
                else:
                    os.close(
                        os.open(
                            name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=here
                        )
                    )
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            kind = os.fstat(fd).st_mode
            if stat.S_ISLNK(kind):
                links += 1
                if not symlinks or links > _LINKS:
                    os.close(fd)
                    raise OSError(40, "Too many levels of symbolic links", path)
                text = os.readlink("", dir_fd=fd)
                os.close(fd)
                if text.startswith("/"):
                    while len(way) > 1:
                        os.close(way.pop())
                parts += [p for p in text.split("/") if p and p != "."][::-1]
            elif parts and not stat.S_ISDIR(kind):
                os.close(fd)
                raise OSError(ENOTDIR, os.strerror(ENOTDIR), path)
            else:
                way.append(fd)
        return way.pop() if len(way) > 1 else os.dup(root)
    finally:
        for fd in way:
            os.close(fd)


def exists_at(directory: int, name: str | bytes) -> bool:
    """Whether an open directory has that name, be it a link that leads nowhere."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def exists_in_root(root: int, path: str) -> bool:
    try:
        os.close(open_in_root(root, path))
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return False
        raise
    return True


class _Statfs(ctypes.Structure):
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_long * 31)]


_fstatfs = ctypes.CDLL(None, use_errno=True).fstatfs
_fstatfs.argtypes = [ctypes.c_int, ctypes.POINTER(_Statfs)]


def is_procfs(fd: int) -> bool:
    """Whether `fd` (O_PATH will do) lies on a real procfs, and not on something that looks like one."""
    return _magic(fd) == _PROC_SUPER_MAGIC


def is_devpts(fd: int) -> bool:
    return _magic(fd) == _DEVPTS_SUPER_MAGIC


def _magic(fd: int) -> int:
    """The kernel's number for the kind of file system."""
    result = _Statfs()
    if _fstatfs(fd, ctypes.byref(result)) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result.f_type)
