"""A container's file system, made from inside its mount namespace before the root is changed.

Everything here works on descriptors: `root` is the container's root, a path in it is resolved by the kernel
as if chrooted (`kernel.paths`), and a mount is made detached and then attached to an open target. An image
that has a symbolic link where the kernel's own file systems belong is refused.

Section "Mounts" and "Linux container configuration" of the OCI runtime specification.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import mounts, paths
from dockmagic_runtime.kernel.cgroups import Layout, layout
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
from dockmagic_runtime.process.copyup import copy_up
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

_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_DEV_DIRECTORIES = ("pts", "shm", "mqueue")
_DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


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
                    Tree(dev, dev="").add_devices(())
                    for name in _DEV_DIRECTORIES:
                        os.mkdir(name, 0o755, dir_fd=dev)

    def take(self, entry: MountEntry) -> int | None:
        mount = self._mounts.pop(str(entry), None)
        if mount is not None and entry["destination"] == "/dev":
            self.has_devices = True
        return mount


class Tree:
    """The container's root while it is furnished; `dev` is where its devices belong."""

    def __init__(self, root: int, premade: Premade | None = None, dev: str = "/dev"):
        self.root = root
        self.devpts: int | None = None
        self._premade, self._dev = premade, dev

    def mount_bind(self, entry: MountEntry, mount: int) -> None:
        destination = entry["destination"]
        if Options(entry).data:
            unknown = ", ".join(key for key, _ in Options(entry).data)
            raise InvalidParameter(f"mount {destination}: a bind mount has no option {unknown}")
        self._put(destination, mount)

    def _put(self, destination: str, mount: int) -> None:
        """Put a detached `mount` of a file or directory in its place; the descriptor is used up."""
        below_proc = _below(destination, "/proc")
        if below_proc is not None and not self._may_cover_proc(below_proc, mount):
            raise InvalidParameter(f"cannot be mounted: {destination} is inside /proc")
        directory = stat.S_ISDIR(os.fstat(mount).st_mode)
        target = self.make(destination, directory=directory)
        try:
            mounts.attach(mount, target)
        finally:
            os.close(target)
            os.close(mount)

    def mount_new(self, entry: MountEntry) -> None:
        kind, destination = entry["type"], entry["destination"]
        if _below(destination, "/proc") is not None and not (
            kind == "proc" and _clean(destination) == "/proc"
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
            target = self._ordinary_directory(kind, destination)
        else:
            target = self.make(destination, directory=True)
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
        target = self.make(entry["destination"], directory=True)
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

    def make(self, path: str, *, directory: bool) -> int:
        """Open `path`, made if missing. Below /dev and /sys no link is followed, nor is /dev itself one."""
        kernel_owned = any(_below(path, top) is not None for top in ("/dev", "/sys", "/proc"))
        try:
            return paths.make_in_root(self.root, path, directory=directory, symlinks=not kernel_owned)
        except OSError as error:
            if error.errno == errno.ELOOP and kernel_owned:
                raise OSError(error.errno, f"{path} must not be a symbolic link in the image") from None
            raise

    def add_devices(self, devices: Iterable[Mapping[str, Any]]) -> None:
        """The nodes every container has, the links beside them, and those that the config adds."""
        known = {d["path"] for d in devices}
        if not (self._premade and self._premade.has_devices):
            os.close(self.make(self._dev or "/", directory=True))
            for name, major, minor in _DEVICES:
                if f"/dev/{name}" not in known:
                    self.add_device(
                        {"path": f"{self._dev}/{name}", "type": "c", "major": major, "minor": minor}
                    )
            for name, text in _DEV_LINKS:
                self._link(self._dev, name, text)
            if os.path.exists("/proc/kcore"):  # noqa: PTH110
                self._link(self._dev, "core", "/proc/kcore")
            self._link(self._dev, "ptmx", "pts/ptmx", replace=True)
        for device in devices:
            # The host's own would make terminals outside of the container: the link above is in its place.
            if device["path"] != "/dev/ptmx":
                self.add_device(device)

    def add_device(self, device: Mapping[str, Any]) -> None:
        path: str = device["path"]
        parent_path, _, name = path.rpartition("/")
        parent = self.make(parent_path or "/", directory=True)
        try:
            kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[
                device["type"]
            ]
            number = os.makedev(device.get("major", 0), device.get("minor", 0))
            mode = device.get("fileMode", 0o666)
            try:
                os.mknod(name, kind | stat.S_IMODE(mode), number, dir_fd=parent)
            except FileExistsError:
                pass
            except PermissionError:
                # In a user namespace, or where the device cgroup has no "m": the host's own node then.
                return self._bind_device(path)
            self._verify_device(parent, name, path, kind, number, mode, device)
        finally:
            os.close(parent)

    def _verify_device(
        self, parent: int, name: str, path: str, kind: int, number: int, mode: int, device: Mapping[str, Any]
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

    def _bind_device(self, path: str) -> None:
        target = self.make(path, directory=False)
        mount = mounts.copy_path(path)
        mounts.attach(mount, target)
        os.close(mount)
        os.close(target)

    def set_console(self, slave: int) -> None:
        """The container's terminal as its /dev/console."""
        target = self.make("/dev/console", directory=False)
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
            target = self._existing(path)
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
            target = self._existing(path)
            if target is None:
                continue
            cover = mounts.copy(target, recursive=True)
            mounts.set_attributes(cover, MOUNT_ATTR_RDONLY, recursive=True)
            mounts.attach(cover, target)
            os.close(cover)
            os.close(target)

    def _existing(self, path: str) -> int | None:
        try:
            return paths.open_in_root(self.root, path, symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise

    def _ordinary_directory(self, kind: str, destination: str) -> int:
        try:
            return paths.make_in_root(self.root, destination, directory=True, symlinks=False)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise OSError(
                    error.errno, f'filesystem "{kind}" must be mounted on ordinary directory: {destination}'
                ) from None
            raise

    def _may_cover_proc(self, below: str, mount: int) -> bool:
        if below == "":
            return paths.is_procfs(mount)
        return below in _PROC_FILES or paths.is_procfs(mount)

    def _link(self, directory: str, name: str, text: str, *, replace: bool = False) -> None:
        parent = self.make(directory or "/", directory=True)
        try:
            if replace:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=parent)
            with contextlib.suppress(FileExistsError):
                os.symlink(text, name, dir_fd=parent)
        finally:
            os.close(parent)


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


def write_sysctls(sysctls: Mapping[str, str], own: frozenset[str]) -> None:
    """Set kernel parameters of the container's own namespaces, through a procfs of our own making.

    `own` are the kinds of namespace that are the container's; a parameter of any other is the host's and
    refused with InvalidParameter.
    """
    if not sysctls:
        return
    proc = mounts.new("proc", (), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, "proc")
    for key, value in sysctls.items():
        path = key if "/" in key.split(".", 1)[0] else key.replace(".", "/")
        if not (_sysctl_namespaces(path) & own):
            raise InvalidParameter(f"sysctl {key} is not in a separate kernel namespace")
        fd = paths.openat2(
            proc, f"sys/{path}", os.O_WRONLY, paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS
        )
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, f"sysctl {key}={value}: {error.strerror}") from None
        finally:
            os.close(fd)
    os.close(proc)


def _sysctl_namespaces(path: str) -> frozenset[str]:
    if path.startswith("net/"):
        return frozenset(("network",))
    if path.startswith(("kernel/msg", "kernel/shm", "fs/mqueue/")) or path == "kernel/sem":
        return frozenset(("ipc",))
    if path in ("kernel/hostname", "kernel/domainname"):
        return frozenset(("uts",))
    return frozenset()


def _clean(path: str) -> str:
    return os.path.normpath("/" + path.lstrip("/"))


def _below(path: str, top: str) -> str | None:
    """What follows `top` in `path` (empty for itself), None if it lies elsewhere."""
    clean = _clean(path)
    if clean == top:
        return ""
    return clean[len(top) + 1 :] if clean.startswith(top + "/") else None
