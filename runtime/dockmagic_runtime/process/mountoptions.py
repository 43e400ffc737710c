"""The `options` of one mount: which are attributes, propagation or the file system's own.

Section "Mounts" of the OCI runtime specification; mount(8) for what the words mean.
"""

import os
from collections.abc import Mapping
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import mounts
from dockmagic_runtime.kernel.mounts import (
    MOUNT_ATTR_ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs

MountEntry = Mapping[str, Any]

# option -> (attributes to set, attributes to clear); with a leading "r" it goes for all submounts too.
_ATTRIBUTES = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    "atime": (0, MOUNT_ATTR_ATIME),
    "relatime": (0, MOUNT_ATTR_ATIME),
    "norelatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "nostrictatime": (0, MOUNT_ATTR_ATIME),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
}
PROPAGATION = {"private": MS_PRIVATE, "shared": MS_SHARED, "slave": MS_SLAVE, "unbindable": MS_UNBINDABLE}
# Flags of the superblock, which the file system itself gets to see.
_SUPERBLOCK = frozenset(
    ("sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime", "silent", "loud")
)
_REFUSED = {
    "idmap": "id-mapped mounts need a user namespace, which is not supported",
    "ridmap": "id-mapped mounts need a user namespace, which is not supported",
    "remount": "the mount option remount makes no sense in a new mount",
}
_DEFAULTS = frozenset(("defaults", "bind", "rbind", "copy", "nocopy", "user", "nouser", "z", "Z"))


class Options:
    """The `options` of one mount, sorted by what they are for."""

    def __init__(self, entry: MountEntry):
        names: list[str] = entry.get("options") or []
        self.bind = entry.get("type") in ("bind", "rbind") or "bind" in names or "rbind" in names
        self.recursive = "rbind" in names or entry.get("type") == "rbind"
        self.set, self.clear = 0, 0
        self.all_set, self.all_clear = 0, 0
        self.propagation, self.all_propagation = 0, 0
        self.data: list[tuple[str, str | None]] = []
        self.copy_up = False
        self.subpath: str | None = None
        for name in names:
            self._add(name)

    def _add(self, name: str) -> None:
        if name in _ATTRIBUTES:
            set_, clear = _ATTRIBUTES[name]
            self.set, self.clear = self.set & ~clear | set_, self.clear & ~set_ | clear
        elif name in PROPAGATION:
            self.propagation = PROPAGATION[name]
        elif name[:1] == "r" and name[1:] in _ATTRIBUTES:
            set_, clear = _ATTRIBUTES[name[1:]]
            self.all_set, self.all_clear = self.all_set & ~clear | set_, self.all_clear & ~set_ | clear
        elif name[:1] == "r" and name[1:] in PROPAGATION:
            self.all_propagation = PROPAGATION[name[1:]]
        elif name in _REFUSED:
            raise InvalidParameter(_REFUSED[name])
        elif name == "tmpcopyup":
            self.copy_up = True
        elif name.startswith("x-subpath="):
            self.subpath = name.partition("=")[2]
        elif name in _SUPERBLOCK:
            self.data.append((name, None))
        elif name not in _DEFAULTS:
            key, equals, value = name.partition("=")
            self.data.append((key, value if equals else None))

    def mount(self, kind: str, source: str) -> int:
        """A detached mount of a new file system with these options."""
        if kind == "overlay" and any(key == "lowerdir+" for key, _ in self.data):
            return self._overlay()
        return mounts.new(kind, self.data, self.set | self.all_set, source)

    def _overlay(self) -> int:
        """Layers one by one, as `storage.overlay` does it on every kernel."""
        lower = tuple(value for key, value in self.data if key == "lowerdir+" and value)
        given = {key: value for key, value in self.data if key != "lowerdir+"}
        mount = mount_rootfs(Rootfs(lower, given.pop("upperdir", None), given.pop("workdir", None)))
        if given:
            os.close(mount)
            raise InvalidParameter(f"an overlay of lowerdir+ has no option {', '.join(given)}")
        mounts.set_attributes(mount, self.set | self.all_set)
        return mount

    def adjust(self, mount: int) -> None:
        """Give the detached `mount` its attributes, before anybody can see it."""
        if self.all_set or self.all_clear or self.all_propagation:
            mounts.set_attributes(mount, self.all_set, self.all_clear, self.all_propagation, recursive=True)
        if self.set or self.clear or self.propagation:
            mounts.set_attributes(mount, self.set, self.clear, self.propagation)
