"""The mount option `tmpcopyup`: a fresh tmpfs begins with what the image has at that place.

Works on descriptors, follows no link, and takes owner, mode, times and devices along.
"""

import os
import stat

_CHUNK = 1 << 20


def copy_up(source: int, target: int) -> None:
    """Copy the contents, and the directory's own owner and mode, of directory `source` to `target`."""
    # An O_PATH descriptor can't be listed; "." below it can.
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    try:
        for name in os.listdir(readable):  # noqa: PTH208 - of a descriptor
            _copy(name, readable, target)
        status = os.fstat(readable)
    finally:
        os.close(readable)
    copy = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
    try:
        _take_over(status, copy)
    finally:
        os.close(copy)


def _copy(name: str, source: int, target: int) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=target)
        directories = [
            os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            for parent in (source, target)
        ]
        try:
            copy_up(*directories)
        finally:
            for descriptor in directories:
                os.close(descriptor)
    elif kind == stat.S_IFREG:
        _copy_file(name, source, target, status)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    elif kind != stat.S_IFSOCK:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_file(name: str, source: int, target: int, status: os.stat_result) -> None:
    old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            while os.sendfile(new, old, None, _CHUNK):
                pass
            _take_over(status, new)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _take_over(status: os.stat_result, descriptor: int) -> None:
    os.fchown(descriptor, status.st_uid, status.st_gid)  # before the mode: it clears set-user-ID
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
