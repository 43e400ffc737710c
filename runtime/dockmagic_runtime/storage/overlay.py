"""A container's root: layers and a writable directory, merged by overlayfs.

Stands on the kernel's filesystems/overlayfs and on fsopen(2): the result is a detached mount, so that no
mount of a container is ever seen on the host and none can be left over.
"""

import os
from dataclasses import dataclass
from errno import EINVAL
from typing import Any

from dockmagic_runtime.kernel import mounts


@dataclass(frozen=True)
class Rootfs:
    """What is merged: `lower` directories (topmost first), the writable `upper` with its `work` directory.

    Without `upper` the view is read-only. `host` puts the machine's own root below everything.
    """

    lower: tuple[str, ...] = ()
    upper: str | None = None
    work: str | None = None
    host: bool = False

    def as_json(self) -> dict[str, Any]:
        return {"lower": list(self.lower), "upper": self.upper, "work": self.work, "host": self.host}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Rootfs":
        return cls(tuple(data["lower"]), data["upper"], data["work"], data["host"])


def mount_rootfs(rootfs: Rootfs, *, volatile: bool = False) -> int:
    """A detached mount of the merged view; closing the descriptor unmounts it.

    `volatile`: its end does not write the disk out, which the caller will do. Such an upper can be mounted
    once only. Raises `OSError` with the kernel's own words.
    """
    if rootfs.host:
        return _mount_over_host(rootfs, volatile)
    if not rootfs.upper and len(rootfs.lower) == 1:
        # Overlayfs wants two layers or a writable one; a single directory needs no merging.
        mount = mounts.copy_path(rootfs.lower[0])
        mounts.set_attributes(mount, mounts.MOUNT_ATTR_RDONLY)
        return mount
    return _merge(rootfs.lower, rootfs.upper, rootfs.work, volatile)


def _merge(lower: tuple[str, ...], upper: str | None, work: str | None, volatile: bool = False) -> int:
    context = mounts.fsopen("overlay")
    try:
        mounts.fsconfig_set(context, "source", "overlay")
        _set_lower(context, lower)
        if upper:
            mounts.fsconfig_set(context, "upperdir", upper)
            mounts.fsconfig_set(context, "workdir", work)
        if volatile:
            _set_volatile(context)
        mounts.fsconfig_create(context)
        return mounts.fsmount(context)
    finally:
        os.close(context)


def _set_volatile(context: int) -> None:
    """Linux before 5.10 has no such option: there the disk is written out once more."""
    try:
        mounts.fsconfig_set(context, "volatile")
    except OSError as error:
        if error.errno != EINVAL:
            raise


def _set_lower(context: int, lower: tuple[str, ...]) -> None:
    """One layer per call; before Linux 6.7 all in one string, which a call limits to 256 bytes."""
    try:
        for path in lower:
            mounts.fsconfig_set(context, "lowerdir+", path)
        return
    except OSError:
        if len(lower) > 1 and sum(map(len, lower)) + len(lower) > 255:
            raise
    mounts.fsconfig_set(context, "lowerdir", ":".join(_escape(path) for path in lower))


def _escape(path: str) -> str:
    """`:` separates layers and `\\` escapes, in the one-string form only."""
    return path.replace("\\", "\\\\").replace(":", "\\:")


def _mount_over_host(rootfs: Rootfs, volatile: bool) -> int:
    """The machine's root as the lowest layer.

    The kernel refuses (ELOOP) an upper that lies below its own lower. So `/` is first merged, read-only, with
    an empty directory; that overlay is a file system of its own, and the lower of the second one.
    """
    empty = mounts.new("tmpfs", [("mode", "755")])
    try:
        below = _merge(("/", f"/proc/self/fd/{empty}"), None, None)
    finally:
        os.close(empty)
    try:
        return _merge((*rootfs.lower, f"/proc/self/fd/{below}"), rootfs.upper, rootfs.work, volatile)
    finally:
        os.close(below)
