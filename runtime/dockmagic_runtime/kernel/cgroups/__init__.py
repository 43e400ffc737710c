"""One container's control group: the same path in every hierarchy, whatever the kernel's layout.

Stands on cgroups(7), the kernel's admin-guide/cgroup-v1 and admin-guide/cgroup-v2, and section
"Control groups" of the OCI runtime specification, whose values are cgroup v1's: where only v2 has a
controller they are converted (shares to weight, memory plus swap to swap alone, …).

    files           read and write what is in a group's directory
    hierarchies     which of them this machine has, and where
    directories     those of one group, made when they are needed
    v1, v2          a controller's files in each version; `versions` says which one it is here
    limits          the resources of an OCI config, set
    statistics      what was used, read

The start of a container passes through here, so: nothing is written that was not asked for, parents are
looked at only when making the directory fails, and files are opened once per value.
"""

# pathlib would cost more per file than the kernel does.
# ruff: noqa: PTH104, PTH112, PTH120

import contextlib
import os
import signal as signals
import time

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel.cgroups import limits, statistics, v1
from dockmagic_runtime.kernel.cgroups.directories import Directories, clean
from dockmagic_runtime.kernel.cgroups.files import SETTLE_SECONDS, make, remove_tree, write
from dockmagic_runtime.kernel.cgroups.hierarchies import Layout, layout
from dockmagic_runtime.kernel.cgroups.resources import CgroupStats, Resources
from dockmagic_runtime.kernel.cgroups.versions import version

__all__ = ["Cgroup", "CgroupStats", "Layout", "Resources", "layout"]


class Cgroup(Directories):
    """One group, by its path from the root of each hierarchy: `/dockmagic/<id>`."""

    def __init__(self, path: str, where: Layout | None = None):
        super().__init__(path, where or layout())

    @classmethod
    def create(cls, path: str) -> "Cgroup":
        """Make the directories (and missing parents); a group that exists already is taken as it is."""
        group = cls(path)
        for mount in group.layout.v1_mounts:
            make(mount + group.path)
        if "cpuset" in group.layout.v1:
            v1.inherit_cpuset(group.layout.v1["cpuset"], group.path)
        if group.layout.unified:
            group.make_v2()
        return group

    @classmethod
    def open(cls, path: str) -> "Cgroup":
        """A group made before, here or by another process; nothing is read yet."""
        return cls(path)

    def exists(self) -> bool:
        return any(os.path.isdir(directory) for directory in self.directories)

    def add(self, pid: int) -> None:
        """Move a process with all its threads into the group (`cgroup.procs`)."""
        for directory in self.directories:
            try:
                write(f"{directory}/cgroup.procs", str(pid))
            except FileNotFoundError:
                if directory != self.optional:
                    raise

    def apply(self, resources: Resources) -> None:
        """Set the limits that `resources` names and leave the others as they are.

        Raises InvalidParameter for a limit that this kernel's controllers can't keep, OSError (with the
        file as its name) for a value the kernel refuses.
        """
        if resources:
            limits.apply(self, resources)

    def freeze(self) -> None:
        """Stop every process of the group; returns when they have stopped."""
        version(self, "freezer").set_frozen(self, True)

    def thaw(self) -> None:
        version(self, "freezer").set_frozen(self, False)

    def frozen(self) -> bool:
        return version(self, "freezer").frozen(self)

    def kill(self, signal: int = signals.SIGKILL) -> None:
        """Signal every process of the group, also those it forks meanwhile.

        SIGKILL on v2 is one write (`cgroup.kill`); otherwise the group is frozen while it is signalled.
        """
        if signal == signals.SIGKILL and self.layout.unified:
            with contextlib.suppress(FileNotFoundError):  # before Linux 5.14
                return write(f"{self.principal}/cgroup.kill", "1")
        was_frozen = self.frozen()
        if not was_frozen:
            self.freeze()
        try:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal)
        finally:
            if not was_frozen or signal == signals.SIGKILL:
                self.thaw()

    def oom_kills(self) -> int:
        """How many processes of the group the kernel has killed for want of memory."""
        try:
            return version(self, "memory").oom_kills(self)
        except (FileNotFoundError, InvalidParameter):
            return 0

    def oom_watch(self) -> tuple[int, int] | None:
        """A descriptor to poll, and the poll event that says "compare `oom_kills()` with before".

        v1: an eventfd, POLLIN (read it to reset). v2: `memory.events`, POLLPRI (read it from 0 to reset).
        The event also comes when the group is removed. None where there's no memory controller.
        """
        if "memory" not in self.layout.controllers:
            return None
        return version(self, "memory").oom_watch(self)

    def directory_fd(self) -> int | None:
        """The v2 directory for clone3's CLONE_INTO_CGROUP; None where v1 controllers are in use."""
        if not self.layout.unified:
            return None
        return os.open(self.principal, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def rename(self, path: str) -> None:
        """Give the group another name below the same parent, with its processes and limits in it.

        rename(2) on v1, which keeps everything; v2 can't, so there a new group takes the processes over.
        """
        new = clean(path)
        if os.path.dirname(new) != os.path.dirname(self.path):
            raise InvalidParameter(f"cgroup {self.path} can't be renamed to {path}: other parent")
        if self.layout.unified:
            pids, old = self.pids(), Cgroup(self.path, self.layout)
            self.path = new
            self.make_v2()
            for pid in pids:
                self.add(pid)
            old.remove()
            return
        for mount in self.layout.v1_mounts:
            os.rename(mount + self.path, mount + new)
        self.path = new

    def remove(self, kill: bool = False) -> None:
        """Remove the group and those below it, from every hierarchy; absent ones are no error.

        With `kill`, leftover processes are killed first. Waits for the kernel to let go of the last
        process for up to two seconds, then raises OSError EBUSY.
        """
        if kill and self.exists() and self.pids():
            self.kill()
        deadline = time.monotonic() + SETTLE_SECONDS
        for root in self.directories:
            remove_tree(root, deadline)

    def stats(self) -> CgroupStats:
        """What the group and those below it have used until now."""
        return statistics.count(self)
