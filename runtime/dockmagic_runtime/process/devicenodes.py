"""The devices of a container: those every one has, the links beside them, and those that its config adds.

Section "Default Devices" of the OCI runtime specification, and `linux.devices`.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Mapping
from typing import Any

from dockmagic_runtime.kernel import mounts
from dockmagic_runtime.process import targets

_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


def make_default(root: int, directory: str = "/dev", but: Collection[str] = ()) -> None:
    """In `directory` of the root; not the paths (`/dev/null`) that the config has devices of its own for."""
    os.close(targets.make(root, directory or "/", directory=True))
    for name, major, minor in _DEVICES:
        if f"/dev/{name}" not in but:
            make(root, {"path": f"{directory}/{name}", "type": "c", "major": major, "minor": minor})
    for name, text in _DEV_LINKS:
        _link(root, directory, name, text)
    if os.path.exists("/proc/kcore"):  # noqa: PTH110
        _link(root, directory, "core", "/proc/kcore")
    _link(root, directory, "ptmx", "pts/ptmx", replace=True)


def make(root: int, device: Mapping[str, Any]) -> None:
    """One of `linux.devices`, or the proof that what is there already is it."""
    path: str = device["path"]
    parent_path, _, name = path.rpartition("/")
    parent = targets.make(root, parent_path or "/", directory=True)
    try:
        kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[device["type"]]
        number = os.makedev(device.get("major", 0), device.get("minor", 0))
        mode = device.get("fileMode", 0o666)
        try:
            os.mknod(name, kind | stat.S_IMODE(mode), number, dir_fd=parent)
        except FileExistsError:
            pass
        except PermissionError:
            # In a user namespace, or where the device cgroup has no "m": the host's own node then.
            return _bind(root, path)
        _verify(parent, name, path, kind, number, mode, device)
    finally:
        os.close(parent)


def _verify(
    parent: int, name: str, path: str, kind: int, number: int, mode: int, device: Mapping[str, Any]
) -> None:
    """Set mode and owner through a descriptor that is proved to be the device, not what is called so."""
    node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        found = os.fstat(node)
        is_device = kind != stat.S_IFIFO
        if stat.S_IFMT(found.st_mode) != kind or (is_device and found.st_rdev != number):
            raise OSError(errno.EEXIST, f"{path} in the image is not the device it should be")
        uid, gid = device.get("uid", 0), device.get("gid", 0)
        if stat.S_IMODE(found.st_mode) != stat.S_IMODE(mode):
            os.chmod(f"/proc/self/fd/{node}", stat.S_IMODE(mode))  # noqa: PTH101
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.chown(f"/proc/self/fd/{node}", uid, gid)
    finally:
        os.close(node)


def _bind(root: int, path: str) -> None:
    target = targets.make(root, path, directory=False)
    mount = mounts.copy_path(path)
    mounts.attach(mount, target)
    os.close(mount)
    os.close(target)


def _link(root: int, directory: str, name: str, text: str, *, replace: bool = False) -> None:
    parent = targets.make(root, directory or "/", directory=True)
    try:
        if replace:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
        with contextlib.suppress(FileExistsError):
            os.symlink(text, name, dir_fd=parent)
    finally:
        os.close(parent)
