"""A container's file system, made from inside its mount namespace before the root is changed.

Everything here works on descriptors: `root` is the container's root, a path in it is resolved by the kernel
as if chrooted (`kernel.paths`), and a mount is made detached and then attached to an open target. An image
that has a symbolic link where the kernel's own file systems belong is refused.

Section "Mounts" and "Linux container configuration" of the OCI runtime specification.
"""

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import mounts, paths
from dockmagic_runtime.kernel.cgroups import Layout, layout
from dockmagic_runtime.kernel.mounts import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_SLAVE,
)
from dockmagic_runtime.process import devicenodes, targets
from dockmagic_runtime.process.copyup import copy_up
from dockmagic_runtime.process.mountoptions import MountEntry, Options

# What may be mounted below /proc: files that lxcfs and its like present, each a bind of a file.
_PROC_FILES = frozenset(
    [
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    ]
)

_DEV_DIRECTORIES = ("pts", "shm", "mqueue")


class Binds:
    """Bind mounts, copied from the host's tree while it is still shared where the host has it so."""

    def __init__(self, entries: Iterable[MountEntry], bundle: str, copied: list[int] | None = None):
        """`copied` are the mounts, in order, if another process has copied them."""
        self._mounts: dict[int, int] = {}
        ready = None if copied is None else iter(copied)
        for number, entry in enumerate(entries):
            options = Options(entry)
            if options.bind:
                self._mounts[number] = next(ready) if ready else self._copy(entry, options, bundle)

    def all(self) -> list[int]:
        return list(self._mounts.values())

    def take(self, number: int) -> int:
        return self._mounts.pop(number)

    @staticmethod
    def _copy(entry: MountEntry, options: Options, bundle: str) -> int:
        source = os.path.join(bundle, entry.get("source") or "")  # noqa: PTH118
        mount = mounts.copy_path(source, recursive=options.recursive)
        if not options.propagation and not options.all_propagation:
            # As runc: what the host mounts there later is seen, what the container mounts is not.
            mounts.set_attributes(mount, propagation=MS_SLAVE, recursive=True)
        options.adjust(mount)
        return mount


class Premade:
    """Mounts of the kernel's file systems, made detached for a container that isn't known yet.

    Each is taken by the config entry that asks for exactly it; /dev has its nodes already. To be made in the
    namespaces, and in the group, that the container will have.
    """

    def __init__(self, entries: Iterable[MountEntry], *, own_network: bool):
        self._mounts: dict[str, int] = {}
        self.groups: tuple[int, dict[str, int]] | None = None
        self.has_devices = False
        for entry in entries:
            options, kind = Options(entry), entry["type"]
            if kind == "cgroup":
                self.groups = _mount_groups(options, layout())
            elif kind == "tmpfs" and (options.copy_up or not any(key == "mode" for key, _ in options.data)):
                continue  # depends on what the image has there
            elif kind == "overlay":
                continue  # of directories that the next container won't have
            elif kind != "cgroup2" and (kind != "sysfs" or own_network):
                self._mounts[str(entry)] = options.mount(kind, entry.get("source") or kind)
                if entry["destination"] == "/dev":
                    dev = self._mounts[str(entry)]
                    devicenodes.make_default(dev, "")
                    for name in _DEV_DIRECTORIES:
                        os.mkdir(name, 0o755, dir_fd=dev)

    def take(self, entry: MountEntry) -> int | None:
        mount = self._mounts.pop(str(entry), None)
        if mount is not None and entry["destination"] == "/dev":
            self.has_devices = True
        return mount


class Tree:
    """The container's root while it is furnished."""

    def __init__(self, root: int, premade: Premade | None = None):
        self.root = root
        self.devpts: int | None = None
        self._premade = premade

    def mount_bind(self, entry: MountEntry, mount: int) -> None:
        destination = entry["destination"]
        if Options(entry).data:
            unknown = ", ".join(key for key, _ in Options(entry).data)
            raise InvalidParameter(f"mount {destination}: a bind mount has no option {unknown}")
        self._put(destination, mount)

    def _put(self, destination: str, mount: int) -> None:
        """Put a detached `mount` of a file or directory in its place; the descriptor is used up."""
        below_proc = targets.below(destination, "/proc")
        if below_proc is not None and not self._may_cover_proc(below_proc, mount):
            raise InvalidParameter(f"cannot be mounted: {destination} is inside /proc")
        directory = stat.S_ISDIR(os.fstat(mount).st_mode)
        target = targets.make(self.root, destination, directory=directory)
        try:
            mounts.attach(mount, target)
        finally:
            os.close(target)
            os.close(mount)

    def mount_new(self, entry: MountEntry) -> None:
        kind, destination = entry["type"], entry["destination"]
        if targets.below(destination, "/proc") is not None and not (
            kind == "proc" and targets.clean(destination) == "/proc"
        ):
            raise InvalidParameter(f"cannot be mounted: {destination} is inside /proc")
        options = Options(entry)
        source = entry.get("source")
        if options.subpath is not None:
            self._put(destination, self._part(options.mount(kind, source or kind), options.subpath))
            return
        moded = kind == "tmpfs" and not any(key == "mode" for key, _ in options.data)
        moded = moded and paths.exists_in_root(self.root, destination)
        if kind in ("proc", "sysfs"):
            # Where these are mounted we later write and mask: it must be the very directory.
            target = targets.make_ordinary(self.root, destination, kind)
        else:
            target = targets.make(self.root, destination, directory=True)
        if moded:
            # As the image has the directory; where it has none, tmpfs has its own default, 1777.
            options.data.append(("mode", f"{stat.S_IMODE(os.fstat(target).st_mode):o}"))
        premade = self._premade.take(entry) if self._premade else None
        try:
            mount = options.mount(kind, source or kind) if premade is None else premade
        except OSError as error:
            os.close(target)
            raise OSError(error.errno, f"mount {kind} on {destination}: {error.strerror}") from None
        if options.copy_up and kind == "tmpfs":
            copy_up(target, mount)
        if options.propagation or options.all_propagation:
            mounts.set_attributes(mount, propagation=options.propagation or options.all_propagation)
        mounts.attach(mount, target)
        os.close(target)
        if kind == "devpts":
            self.devpts = mount
        else:
            os.close(mount)

    def _part(self, whole: int, path: str) -> int:
        """What lies at `path` in the detached mount `whole`, as a mount of its own.

        A mount can be copied from only where it is attached (before Linux 6.15): so it is, for a moment, on
        top of our root, where nobody looks.
        """
        mounts.attach(whole, self.root)
        try:
            found = paths.open_in_root(whole, path)
            try:
                return mounts.copy(found)
            finally:
                os.close(found)
        finally:
            os.fchdir(whole)
            mounts.umount(".", mounts.MNT_DETACH)
            os.chdir("/")
            os.close(whole)

    def mount_cgroup(self, entry: MountEntry, where: Layout) -> None:
        """The container's own control groups: one cgroup2, or a directory with every v1 hierarchy.

        Called from inside the new cgroup namespace, whose root is the container's group.
        """
        if where.unified or entry["type"] == "cgroup2":
            return self.mount_new({**entry, "type": "cgroup2", "source": "cgroup"})
        made = self._premade.groups if self._premade else None
        shelf, groups = made or _mount_groups(Options(entry), where)
        target = targets.make(self.root, entry["destination"], directory=True)
        mounts.attach(shelf, target)
        os.close(target)
        for name, mount in groups.items():
            target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=shelf)
            mounts.attach(mount, target)
            os.close(target)
            os.close(mount)
        if Options(entry).set & MOUNT_ATTR_RDONLY:
            mounts.set_attributes(shelf, MOUNT_ATTR_RDONLY)
        os.close(shelf)

    def add_devices(self, devices: Iterable[Mapping[str, Any]]) -> None:
        """The nodes every container has, the links beside them, and those that the config adds."""
        if not (self._premade and self._premade.has_devices):
            devicenodes.make_default(self.root, but={device["path"] for device in devices})
        for device in devices:
            # The host's own would make terminals outside of the container: the default link is in its place.
            if device["path"] != "/dev/ptmx":
                devicenodes.make(self.root, device)

    def set_console(self, slave: int) -> None:
        """The container's terminal as its /dev/console."""
        target = targets.make(self.root, "/dev/console", directory=False)
        mount = mounts.copy(slave)
        mounts.attach(mount, target)
        os.close(mount)
        os.close(target)

    def mask(self, masked: Iterable[str]) -> None:
        """Cover files with the null device and directories with an empty read-only tmpfs."""
        null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
        if os.fstat(null).st_rdev != os.makedev(1, 3):
            raise OSError(errno.ENODEV, "/dev/null of this machine is not the null device")
        empty: int | None = None
        for path in masked:
            target = targets.existing(self.root, path)
            if target is None:
                continue
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                cover = mounts.copy(null)
                mounts.attach(cover, target)
                os.close(cover)
            elif empty is None:
                empty = mounts.new("tmpfs", [("size", "0"), ("nr_inodes", "2")], MOUNT_ATTR_RDONLY, "tmpfs")
                mounts.attach(empty, target)
            else:
                cover = mounts.copy(empty)
                mounts.attach(cover, target)
                os.close(cover)
            os.close(target)
        if empty is not None:
            os.close(empty)
        os.close(null)

    def make_readonly(self, readonly: Iterable[str]) -> None:
        """Bind each path onto itself, read-only with all that is mounted below."""
        for path in readonly:
            target = targets.existing(self.root, path)
            if target is None:
                continue
            cover = mounts.copy(target, recursive=True)
            mounts.set_attributes(cover, MOUNT_ATTR_RDONLY, recursive=True)
            mounts.attach(cover, target)
            os.close(cover)
            os.close(target)

    def _may_cover_proc(self, below: str, mount: int) -> bool:
        if below == "":
            return paths.is_procfs(mount)
        return below in _PROC_FILES or paths.is_procfs(mount)


def _mount_groups(options: Options, where: Layout) -> tuple[int, dict[str, int]]:
    """Every v1 hierarchy as the present cgroup namespace shows it, and a tmpfs with a directory for each.

    All detached: the tmpfs, and directory name -> mount.
    """
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    shelf = mounts.new("tmpfs", [("mode", "755")], attributes, "tmpfs")
    by_directory: dict[str, list[str]] = {}
    for controller, host_mount in where.v1.items():
        by_directory.setdefault(os.path.basename(host_mount), []).append(controller)  # noqa: PTH119
    made = {}
    for name, controllers in by_directory.items():
        data: list[tuple[str, str | None]] = []
        for controller in controllers:
            key, equals, value = controller.partition("=")
            data += [("none", None), (key, value)] if equals else [(key, None)]
        made[name] = mounts.new("cgroup", data, options.set | options.all_set, "cgroup")
        os.mkdir(name, 0o755, dir_fd=shelf)
        for controller in controllers if len(controllers) > 1 else ():
            os.symlink(name, controller, dir_fd=shelf)
    return shelf, made
