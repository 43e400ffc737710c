"""Mounts by descriptor: fsopen(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).

A mount made by `new` or `copy` is *detached*: it is nowhere in the tree until `attach`, and closing its
descriptor unmounts it. So nothing here ever mounts onto a path that could change under our feet.
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from dockmagic_runtime.errors import SystemFailure
from dockmagic_runtime.kernel.libc import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, NR, syscall

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70  # the field's mask; 0 is relatime
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def fsopen(kind: str) -> int:
    """A context in which a file system of this kind is described."""
    return syscall(NR["fsopen"], kind.encode(), _FSOPEN_CLOEXEC, path=kind)


def fsconfig_set(context: int, key: str, value: str | None = None) -> None:
    """One mount option; without a value a flag."""
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    text = None if value is None else os.fsencode(value)
    try:
        syscall(NR["fsconfig"], context, command, key.encode(), text, 0, path=f"{key}={value}")
    except OSError as error:
        raise OSError(error.errno, _complaint(context) or error.strerror, error.filename) from None


def fsconfig_create(context: int) -> None:
    """Make (or find) the superblock that the options describe."""
    try:
        syscall(NR["fsconfig"], context, _FSCONFIG_CMD_CREATE, None, None, 0)
    except OSError as error:
        raise OSError(error.errno, _complaint(context) or error.strerror) from None


def fsmount(context: int, attributes: int = 0) -> int:
    """The detached mount of what `context` describes."""
    return syscall(NR["fsmount"], context, _FSMOUNT_CLOEXEC, attributes)


def new(
    kind: str,
    options: Iterable[tuple[str, str | None]] = (),
    attributes: int = 0,
    source: str | None = None,
) -> int:
    """A detached mount of a file system: `(key, value)` options, `MOUNT_ATTR_*` attributes."""
    context = fsopen(kind)
    try:
        if source is not None:
            fsconfig_set(context, "source", source)
        for key, value in options:
            fsconfig_set(context, key, value)
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def copy(directory: int, path: str = "", *, recursive: bool = False) -> int:
    """A detached bind mount of `path` (empty: of the descriptor `directory` itself)."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= AT_EMPTY_PATH
    return syscall(NR["open_tree"], directory, os.fsencode(path), flags, path=path or None)


def copy_path(path: str, *, recursive: bool = False) -> int:
    """As `copy`, of a host path."""
    return copy(AT_FDCWD, path, recursive=recursive)


def attach(mount: int, target: int) -> None:
    """Put the detached `mount` on top of the open file or directory `target`."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall(NR["move_mount"], mount, b"", target, b"", flags)


def set_attributes(
    mount: int,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    *,
    recursive: bool = False,
) -> None:
    """Change what a mount allows (`MOUNT_ATTR_*`) and how it propagates (`MS_*`), with `mount_setattr(2)`."""
    attr = _MountAttr(set_, clear, propagation)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(NR["mount_setattr"], mount, b"", flags, ctypes.byref(attr), ctypes.sizeof(attr))


def set_propagation(path: str, propagation: int) -> None:
    """`MS_PRIVATE`, `MS_SLAVE`, …, with `MS_REC` for the whole tree, by path."""
    syscall(NR["mount"], None, os.fsencode(path), None, propagation, None, path=path)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Plain mount(2) by path, for what is not inside a container."""
    encoded = None if data is None else os.fsencode(data)
    syscall(
        NR["mount"],
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        flags,
        encoded,
        path=target,
    )


def umount(path: str, flags: int = 0) -> None:
    syscall(NR["umount2"], os.fsencode(path), flags, path=path)


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted on `path` itself, which must exist; a bind of the same disk counts too."""
    return _mount_id(path) != _mount_id(path.parent)


def _mount_id(path: Path) -> int:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return mount_id(fd)
    finally:
        os.close(fd)


def mount_id(fd: int) -> int:
    """The mount that an open file was reached through, proc(5)."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    raise SystemFailure("the kernel does not tell mount IDs")


def pivot_root(new_root: str, put_old: str) -> None:
    syscall(NR["pivot_root"], os.fsencode(new_root), os.fsencode(put_old), path=new_root)


def _complaint(context: int) -> str:
    """What the kernel wrote into the context about its refusal; empty if nothing."""
    try:
        return os.read(context, 4096).decode(errors="replace").strip().removeprefix("e ")
    except OSError:
        # ENODATA: this file system gives an errno only.
        return ""
