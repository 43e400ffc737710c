"""One container's control group: the same path in every hierarchy, whatever the kernel's layout.

Stands on cgroups(7), the kernel's admin-guide/cgroup-v1 and admin-guide/cgroup-v2, and section
"Control groups" of the OCI runtime specification, whose values are cgroup v1's: where only v2 has a
controller they are converted (shares to weight, memory plus swap to swap alone, …).

Three layouts: *legacy* (every controller on v1 mounts), *unified* (one v2 mount) and *hybrid* (controllers
on v1, and a v2 mount that has the rest). In the hybrid layout a group gets a v2 directory only when a limit
asks for a controller that lives there: an attach costs more than a directory.

The start of a container passes through here, so: nothing is written that was not asked for, parents are
looked at only when making the directory fails, and files are opened once per value. Two costs are the
kernel's own: the first attach to a v1 group after a pause waits for an RCU grace period (5 to 10 ms;
the next ones, shortly after, do not), and it can be overlapped with the child's other work.
"""

# pathlib would cost more per file than the kernel does.
# ruff: noqa: PTH102, PTH104, PTH106, PTH110, PTH112, PTH120, PTH123

import contextlib
import errno
import math
import os
import select
import signal as signals
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import devices

Resources = Mapping[str, Any]
"""`linux.resources` of an OCI config."""

_V1_UNLIMITED = 1 << 62
"""v1 spells "no limit" as the largest page-aligned number; anything this large means it."""

_SETTLE_SECONDS = 2.0
"""How long we wait for the kernel to finish what it does asynchronously (freezing, the last exit)."""


@dataclass(frozen=True)
class Layout:
    """Where the hierarchies are mounted: `v1` by controller (or `name=…`), `v2` if there is one."""

    v1: dict[str, str]
    v2: str | None

    @property
    def unified(self) -> bool:
        """True where cgroup v2 alone is in use."""
        return self.v2 is not None and not any("=" not in name for name in self.v1)

    @cached_property
    def v1_mounts(self) -> tuple[str, ...]:
        """Each v1 mount once, though co-mounted controllers (`cpu,cpuacct`) share one."""
        return tuple(dict.fromkeys(self.v1.values()))

    @cached_property
    def v2_controllers(self) -> frozenset[str]:
        return frozenset(_read(f"{self.v2}/cgroup.controllers").split()) if self.v2 else frozenset()

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(name for name in self.v1 if "=" not in name) | self.v2_controllers

    def cpuset(self, kind: str) -> str:
        """The `cpus` or `mems` that there are to give, as a list of ranges; empty where no group says."""
        mount = self.v1.get("cpuset")
        names = [f"{mount}/cpuset.{kind}"] if mount else [f"{self.v2}/cpuset.{kind}.effective"]
        names.append(
            {"cpus": "/sys/devices/system/cpu/online", "mems": "/sys/devices/system/node/online"}[kind]
        )
        for name in names:
            with contextlib.suppress(OSError):
                return _read(name).strip()
        return ""

    @property
    def weighs_block_io(self) -> bool:
        """A share of all disks, by cfq's successor bfq or the kernel's own accounting."""
        mount = self.v1.get("blkio")
        files = (f"{mount}/blkio.weight", f"{mount}/blkio.bfq.weight")
        return any(map(os.path.exists, files)) if mount else "io" in self.v2_controllers

    @property
    def weighs_block_devices(self) -> bool:
        mount = self.v1.get("blkio")
        return os.path.exists(f"{mount}/blkio.weight_device") if mount else "io" in self.v2_controllers


@cache
def layout() -> Layout:
    """The layout of this machine, read from /proc/self/mountinfo once per process."""
    v1: dict[str, str] = {}
    v2: str | None = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            kind, _, super_options = after.split(" ", 2)
            if kind == "cgroup2":
                v2 = v2 or before.split(" ", 5)[4]
            elif kind == "cgroup":
                mount = before.split(" ", 5)[4]
                for option in super_options.strip().split(","):
                    if option.startswith("name=") or option in _V1_CONTROLLERS:
                        v1.setdefault(option, mount)
    return Layout(v1, v2)


_V1_CONTROLLERS = {
    *("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb"),
    *("memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma"),
}


@dataclass
class CgroupStats:
    """What a group has used, in nanoseconds and bytes; a value its kernel doesn't count is None or empty.

    `blkio_bytes` and `blkio_operations` hold (major, minor, "read" | "write" | …, amount).
    """

    cpu_usage_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    per_cpu_ns: list[int] = field(default_factory=list)
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_ns: int = 0
    memory_usage: int = 0
    memory_limit: int | None = None
    memory_max: int | None = None
    memory_failures: int = 0
    memory_stat: dict[str, int] = field(default_factory=dict)
    pids_current: int = 0
    pids_limit: int | None = None
    blkio_bytes: list[tuple[int, int, str, int]] = field(default_factory=list)
    blkio_operations: list[tuple[int, int, str, int]] = field(default_factory=list)


class Cgroup:
    """One group, by its path from the root of each hierarchy: `/dockmagic/<id>`."""

    def __init__(self, path: str, where: Layout | None = None):
        self.path = _clean(path)
        self.layout = where or layout()

    @classmethod
    def create(cls, path: str) -> "Cgroup":
        """Make the directories (and missing parents); a group that exists already is taken as it is."""
        group = cls(path)
        for mount in group.layout.v1_mounts:
            _mkdir(mount + group.path)
        if "cpuset" in group.layout.v1:
            _inherit_cpuset(group.layout.v1["cpuset"], group.path)
        if group.layout.unified:
            group._make_unified()
        return group

    @classmethod
    def open(cls, path: str) -> "Cgroup":
        """A group made before, here or by another process; nothing is read yet."""
        return cls(path)

    def exists(self) -> bool:
        return any(os.path.isdir(directory) for directory in self._directories())

    def add(self, pid: int) -> None:
        """Move a process with all its threads into the group (`cgroup.procs`)."""
        for directory in self._directories():
            try:
                _write(f"{directory}/cgroup.procs", str(pid))
            except FileNotFoundError:
                if directory != self._hybrid_directory():
                    raise

    def apply(self, resources: Resources) -> None:
        """Set the limits that `resources` names and leave the others as they are.

        Raises InvalidParameter for a limit that this kernel's controllers can't keep, OSError (with the
        file as its name) for a value the kernel refuses.
        """
        if not resources:
            return
        if resources.get("devices") is not None:
            self._apply_devices(resources["devices"])
        for name, setter in _SETTERS.items():
            if resources.get(name):
                setter(self, resources[name])

    def pids(self, recursive: bool = True) -> list[int]:
        """The processes of the group, and of groups made below it (by a nested engine, by systemd)."""
        root = self._principal()
        found: list[int] = []
        for directory in _tree(root) if recursive else [root]:
            with contextlib.suppress(FileNotFoundError):
                found += map(int, _read(f"{directory}/cgroup.procs").split())
        return found

    def freeze(self) -> None:
        """Stop every process of the group; returns when they have stopped."""
        self._set_frozen(True)

    def thaw(self) -> None:
        self._set_frozen(False)

    def frozen(self) -> bool:
        freezer = self._directory("freezer")
        if self._on_v2("freezer"):
            return _flat(f"{freezer}/cgroup.events").get("frozen") == 1
        return _read(f"{freezer}/freezer.state").strip() != "THAWED"

    def kill(self, signal: int = signals.SIGKILL) -> None:
        """Signal every process of the group, also those it forks meanwhile.

        SIGKILL on v2 is one write (`cgroup.kill`); otherwise the group is frozen while it is signalled.
        """
        if signal == signals.SIGKILL and self.layout.unified:
            with contextlib.suppress(FileNotFoundError):  # before Linux 5.14
                return _write(f"{self._principal()}/cgroup.kill", "1")
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
        name = "memory.events" if self._on_v2("memory") else "memory.oom_control"
        try:
            return _flat(f"{self._directory('memory')}/{name}").get("oom_kill", 0)
        except (FileNotFoundError, InvalidParameter):
            return 0

    def oom_watch(self) -> tuple[int, int] | None:
        """A descriptor to poll, and the poll event that says "compare `oom_kills()` with before".

        v1: an eventfd, POLLIN (read it to reset). v2: `memory.events`, POLLPRI (read it from 0 to reset).
        The event also comes when the group is removed. None where there's no memory controller.
        """
        if "memory" not in self.layout.controllers:
            return None
        memory = self._directory("memory")
        if self._on_v2("memory"):
            return os.open(f"{memory}/memory.events", os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI
        watched = os.open(f"{memory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                _write(f"{memory}/cgroup.event_control", f"{event} {watched}")
            except OSError:
                os.close(event)
                raise
        finally:
            os.close(watched)
        return event, select.POLLIN

    def directory_fd(self) -> int | None:
        """The v2 directory for clone3's CLONE_INTO_CGROUP; None where v1 controllers are in use."""
        if not self.layout.unified:
            return None
        return os.open(self._principal(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def rename(self, path: str) -> None:
        """Give the group another name below the same parent, with its processes and limits in it.

        rename(2) on v1, which keeps everything; v2 can't, so there a new group takes the processes over.
        """
        new = _clean(path)
        if os.path.dirname(new) != os.path.dirname(self.path):
            raise InvalidParameter(f"cgroup {self.path} can't be renamed to {path}: other parent")
        if self.layout.unified:
            pids, old = self.pids(), Cgroup(self.path, self.layout)
            self.path = new
            self._make_unified()
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
        deadline = time.monotonic() + _SETTLE_SECONDS
        for root in self._directories():
            try:
                os.rmdir(root)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                for directory in reversed(list(_tree(root))):
                    _rmdir_when_empty(directory, deadline)

    def stats(self) -> CgroupStats:
        """What the group and those below it have used until now."""
        found = CgroupStats()
        for name, reader in _READERS.items():
            if name in self.layout.controllers:
                with contextlib.suppress(FileNotFoundError):
                    reader(self, found)
        return found

    # --- directories -------------------------------------------------------------------------------

    def _directories(self) -> list[str]:
        found = [mount + self.path for mount in self.layout.v1_mounts]
        if self.layout.v2:
            found.append(self.layout.v2 + self.path)
        return found

    def _hybrid_directory(self) -> str | None:
        """The v2 directory that may or may not have been made."""
        return None if self.layout.unified or not self.layout.v2 else self.layout.v2 + self.path

    def _principal(self) -> str:
        """The directory that is asked who belongs to the group."""
        if self.layout.unified:
            return f"{self.layout.v2}{self.path}"
        return (
            next((self.layout.v1[n] for n in ("freezer", "pids", "memory") if n in self.layout.v1), "")
            + self.path
        )

    def _on_v2(self, controller: str) -> bool:
        return controller not in self.layout.v1

    def _directory(self, controller: str) -> str:
        """This group's directory in a controller's hierarchy; made now if that is v2's of a hybrid layout."""
        if mount := self.layout.v1.get(controller):
            return mount + self.path
        if not self.layout.v2 or controller not in self.layout.v2_controllers | {"freezer", "devices"}:
            raise InvalidParameter(f"the kernel has no {controller} cgroup controller here")
        directory = self.layout.v2 + self.path
        if not self.layout.unified and not os.path.isdir(directory):
            self._make_unified()
            for pid in self.pids():
                _write(f"{directory}/cgroup.procs", str(pid))
        return directory

    def _make_unified(self) -> None:
        """The v2 directory, with every controller that its parents can hand down."""
        assert self.layout.v2
        directory = self.layout.v2 + self.path
        _mkdir(directory)
        if self.layout.v2_controllers <= set(_read(f"{directory}/cgroup.controllers").split()):
            return
        parent = self.layout.v2
        for part in self.path.split("/")[1:]:
            has = set(_read(f"{parent}/cgroup.controllers").split())
            missing = has - set(_read(f"{parent}/cgroup.subtree_control").split())
            for name in sorted(missing):
                # One at a time: a controller that may not be delegated must not take the others with it.
                with contextlib.suppress(OSError):
                    _write(f"{parent}/cgroup.subtree_control", f"+{name}")
            parent += f"/{part}"

    def _set(self, controller: str, name: str, value: object) -> None:
        path = f"{self._directory(controller)}/{name}"
        try:
            _write(path, str(value))
        except FileNotFoundError:
            raise InvalidParameter(f"this kernel's {controller} cgroup controller has no {name}") from None

    # --- freezer -----------------------------------------------------------------------------------

    def _set_frozen(self, frozen: bool) -> None:
        freezer = self._directory("freezer")
        if self._on_v2("freezer"):
            _write(f"{freezer}/cgroup.freeze", "1" if frozen else "0")
            _await_flat(f"{freezer}/cgroup.events", "frozen", int(frozen))
            return
        state = "FROZEN" if frozen else "THAWED"
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            _write(f"{freezer}/freezer.state", state)
            if _read(f"{freezer}/freezer.state").strip() == state:
                return
            if time.monotonic() > deadline:
                _write(f"{freezer}/freezer.state", "THAWED")
                raise TimeoutError(errno.ETIMEDOUT, "some process can't be frozen", freezer)
            # The v1 freezer tells nobody when it is done, and needs to be told again when a process forked.
            time.sleep(0.001)

    # --- limits ------------------------------------------------------------------------------------

    def _apply_devices(self, rules: list[dict[str, Any]]) -> None:
        if not self._on_v2("devices"):
            directory = self._directory("devices")
            for name, line in devices.v1_lines(rules):
                _write(f"{directory}/{name}", line)
        elif rules:
            descriptor = os.open(self._directory("devices"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                devices.attach(descriptor, devices.program(rules))
            finally:
                os.close(descriptor)

    def _apply_memory(self, memory: Resources) -> None:
        limit, swap = memory.get("limit"), memory.get("swap")
        if memory.get("checkBeforeUpdate") and limit and limit > 0:
            name = "memory.current" if self._on_v2("memory") else "memory.usage_in_bytes"
            if (usage := int(_read(f"{self._directory('memory')}/{name}"))) > limit:
                raise InvalidParameter(f"memory limit {limit} is below the present usage, {usage}")
        if self._on_v2("memory"):
            self._apply_memory_v2(memory, limit, swap)
        else:
            self._apply_memory_v1(memory, limit, swap)

    def _apply_memory_v1(self, memory: Resources, limit: int | None, swap: int | None) -> None:
        if (
            limit == -1
            and swap is None
            and os.path.exists(f"{self._directory('memory')}/memory.memsw.limit_in_bytes")
        ):
            swap = -1  # no limit on memory makes a limit on memory plus swap impossible
        writes = [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap)]
        writes = [(name, value) for name, value in writes if value]
        try:
            for name, value in writes:
                self._set("memory", name, value)
        except OSError as error:
            # memsw may never be below limit: when both grow, it has to go first.
            if len(writes) < 2 or error.errno not in (errno.EINVAL, errno.EBUSY):
                raise
            for name, value in reversed(writes):
                self._set("memory", name, value)
        for key, name in _MEMORY_V1.items():
            if memory.get(key) or (key in _MEMORY_ZERO_MEANS_ZERO and memory.get(key) is not None):
                self._set("memory", name, int(memory[key]))

    def _apply_memory_v2(self, memory: Resources, limit: int | None, swap: int | None) -> None:
        for key in ("kernel", "kernelTCP", "swappiness", "disableOOMKiller"):
            if memory.get(key):
                raise InvalidParameter(f"linux.resources.memory.{key} can't be kept by cgroup v2")
        if swap:
            self._set("memory", "memory.swap.max", swap_v2(limit, swap))
        if limit:
            self._set("memory", "memory.max", _or_max(limit))
        if memory.get("reservation"):
            self._set("memory", "memory.low", _or_max(memory["reservation"]))

    def _apply_cpu(self, cpu: Resources) -> None:
        for key in ("cpus", "mems"):
            if cpu.get(key):
                self._set("cpuset", f"cpuset.{key}", cpu[key])
        if self._on_v2("cpu"):
            return self._apply_cpu_v2(cpu)
        period, quota = cpu.get("period"), cpu.get("quota")
        if period:
            try:
                self._set("cpu", "cpu.cfs_period_us", period)
                period = None
            except OSError as error:
                # A shorter period can exceed the parent's share until the new quota is in place.
                if error.errno != errno.EINVAL or not quota:
                    raise
        if quota:
            self._set("cpu", "cpu.cfs_quota_us", quota)
        if period:
            self._set("cpu", "cpu.cfs_period_us", period)
        for key, name in _CPU_V1.items():
            if cpu.get(key) is not None and (cpu[key] or key in ("idle", "burst")):
                self._set("cpu", name, cpu[key])

    def _apply_cpu_v2(self, cpu: Resources) -> None:
        for key in ("realtimeRuntime", "realtimePeriod"):
            if cpu.get(key):
                raise InvalidParameter(f"linux.resources.cpu.{key} can't be kept by cgroup v2")
        if cpu.get("idle") is not None:
            self._set("cpu", "cpu.idle", cpu["idle"])
        if cpu.get("shares"):
            self._set("cpu", "cpu.weight", weight_of_shares(cpu["shares"]))
        if cpu.get("quota") or cpu.get("period"):
            quota = cpu.get("quota") or _read(f"{self._directory('cpu')}/cpu.max").split()[0]
            quota = "max" if isinstance(quota, int) and quota < 0 else quota
            self._set("cpu", "cpu.max", f"{quota} {cpu['period']}" if cpu.get("period") else quota)
        if cpu.get("burst") is not None:
            self._set("cpu", "cpu.max.burst", cpu["burst"])

    def _apply_pids(self, pids: Resources) -> None:
        if pids.get("limit") is not None:
            self._set("pids", "pids.max", pids["limit"] if pids["limit"] > 0 else "max")

    def _apply_blkio(self, blkio: Resources) -> None:
        v2 = self._on_v2("blkio")
        directory = self._directory("io" if v2 else "blkio")
        bfq = os.path.exists(f"{directory}/{'io.bfq.weight' if v2 else 'blkio.bfq.weight'}")
        controller = "io" if v2 else "blkio"
        weight_file = f"{controller}.bfq.weight" if bfq else f"{controller}.weight"
        convert = io_weight_of_blkio if v2 and not bfq else int
        if blkio.get("weight"):
            self._set(controller, weight_file, convert(blkio["weight"]))
        if v2 and (
            blkio.get("leafWeight") or any(d.get("leafWeight") for d in blkio.get("weightDevice") or ())
        ):
            raise InvalidParameter("linux.resources.blockIO.leafWeight can't be kept by cgroup v2")
        if blkio.get("leafWeight"):
            self._set(controller, "blkio.leaf_weight", blkio["leafWeight"])
        for device in blkio.get("weightDevice") or ():
            number = f"{device['major']}:{device['minor']}"
            if device.get("weight"):
                name = weight_file if v2 or bfq else "blkio.weight_device"
                self._set(controller, name, f"{number} {convert(device['weight'])}")
            if device.get("leafWeight"):
                self._set(controller, "blkio.leaf_weight_device", f"{number} {device['leafWeight']}")
        for key, (v1_name, v2_name) in _THROTTLES.items():
            for device in blkio.get(key) or ():
                number = f"{device['major']}:{device['minor']}"
                if v2:
                    self._set("io", "io.max", f"{number} {v2_name}={device['rate'] or 'max'}")
                else:
                    self._set("blkio", f"blkio.throttle.{v1_name}", f"{number} {device['rate']}")

    def _apply_hugepages(self, limits: list[dict[str, Any]]) -> None:
        name = "max" if self._on_v2("hugetlb") else "limit_in_bytes"
        for entry in limits:
            self._set("hugetlb", f"hugetlb.{entry['pageSize']}.{name}", entry["limit"])

    def _apply_rdma(self, limits: Mapping[str, Resources]) -> None:
        for device, entry in limits.items():
            pairs = (("hca_handle", entry.get("hcaHandles")), ("hca_object", entry.get("hcaObjects")))
            values = " ".join(f"{key}={value}" for key, value in pairs if value is not None)
            self._set("rdma", "rdma.max", f"{device} {values}")

    def _apply_network(self, network: Resources) -> None:
        if network.get("classID") is not None:
            self._set("net_cls", "net_cls.classid", network["classID"])
        for entry in network.get("priorities") or ():
            self._set("net_prio", "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}")

    def _apply_unified(self, values: Mapping[str, str]) -> None:
        if not self.layout.unified:
            raise InvalidParameter("linux.resources.unified needs cgroup v2, this machine uses v1")
        for name, value in values.items():
            if "/" in name or name.startswith("cgroup."):
                raise InvalidParameter(f"linux.resources.unified: {name} is not a controller's file")
            for line in value.splitlines():
                self._set(name.partition(".")[0], name, line)

    # --- statistics --------------------------------------------------------------------------------

    def _read_cpu(self, found: CgroupStats) -> None:
        directory = self._directory("cpu")
        numbers = _flat(f"{directory}/cpu.stat")
        found.cpu_periods = numbers.get("nr_periods", 0)
        found.cpu_throttled_periods = numbers.get("nr_throttled", 0)
        if self._on_v2("cpu"):
            found.cpu_usage_ns = numbers["usage_usec"] * 1000
            found.cpu_user_ns = numbers["user_usec"] * 1000
            found.cpu_system_ns = numbers["system_usec"] * 1000
            found.cpu_throttled_ns = numbers.get("throttled_usec", 0) * 1000
        else:
            found.cpu_throttled_ns = numbers.get("throttled_time", 0)

    def _read_cpuacct(self, found: CgroupStats) -> None:
        directory = self._directory("cpuacct")
        found.cpu_usage_ns = int(_read(f"{directory}/cpuacct.usage"))
        found.per_cpu_ns = [int(n) for n in _read(f"{directory}/cpuacct.usage_percpu").split()]
        found.cpu_user_ns = int(_read(f"{directory}/cpuacct.usage_user"))
        found.cpu_system_ns = int(_read(f"{directory}/cpuacct.usage_sys"))

    def _read_memory(self, found: CgroupStats) -> None:
        directory = self._directory("memory")
        found.memory_stat = _flat(f"{directory}/memory.stat")
        if self._on_v2("memory"):
            found.memory_usage = int(_read(f"{directory}/memory.current"))
            found.memory_limit = _limit(_read(f"{directory}/memory.max"))
            found.memory_failures = _flat(f"{directory}/memory.events").get("max", 0)
            with contextlib.suppress(FileNotFoundError):  # Linux 5.19
                found.memory_max = int(_read(f"{directory}/memory.peak"))
        else:
            found.memory_usage = int(_read(f"{directory}/memory.usage_in_bytes"))
            found.memory_limit = _limit(_read(f"{directory}/memory.limit_in_bytes"))
            found.memory_max = int(_read(f"{directory}/memory.max_usage_in_bytes"))
            found.memory_failures = int(_read(f"{directory}/memory.failcnt"))

    def _read_pids(self, found: CgroupStats) -> None:
        directory = self._directory("pids")
        found.pids_current = int(_read(f"{directory}/pids.current"))
        found.pids_limit = _limit(_read(f"{directory}/pids.max"))

    def _read_blkio(self, found: CgroupStats) -> None:
        directory = self._directory("blkio")
        for name, entries in (
            ("io_service_bytes", found.blkio_bytes),
            ("io_serviced", found.blkio_operations),
        ):
            for line in _read(f"{directory}/blkio.throttle.{name}_recursive").splitlines():
                number, *rest = line.split()
                if len(rest) == 2:
                    major, minor = number.split(":")
                    entries.append((int(major), int(minor), rest[0].lower(), int(rest[1])))

    def _read_io(self, found: CgroupStats) -> None:
        for line in _read(f"{self._directory('io')}/io.stat").splitlines():
            number, *pairs = line.split()
            major, minor = map(int, number.split(":"))
            values = dict(pair.split("=") for pair in pairs if "=" in pair)
            for key, entries, operation in (
                ("rbytes", found.blkio_bytes, "read"),
                ("wbytes", found.blkio_bytes, "write"),
                ("rios", found.blkio_operations, "read"),
                ("wios", found.blkio_operations, "write"),
            ):
                if key in values:
                    entries.append((major, minor, operation, int(values[key])))


_SETTERS: dict[str, Callable[[Cgroup, Any], None]] = {
    "memory": Cgroup._apply_memory,
    "cpu": Cgroup._apply_cpu,
    "pids": Cgroup._apply_pids,
    "blockIO": Cgroup._apply_blkio,
    "hugepageLimits": Cgroup._apply_hugepages,
    "rdma": Cgroup._apply_rdma,
    "network": Cgroup._apply_network,
    "unified": Cgroup._apply_unified,
}

_READERS: dict[str, Callable[[Cgroup, CgroupStats], None]] = {
    "cpu": Cgroup._read_cpu,
    "cpuacct": Cgroup._read_cpuacct,
    "memory": Cgroup._read_memory,
    "pids": Cgroup._read_pids,
    "blkio": Cgroup._read_blkio,
    "io": Cgroup._read_io,
}

_MEMORY_V1 = {
    "reservation": "memory.soft_limit_in_bytes",
    "kernel": "memory.kmem.limit_in_bytes",
    "kernelTCP": "memory.kmem.tcp.limit_in_bytes",
    "swappiness": "memory.swappiness",
    "disableOOMKiller": "memory.oom_control",
    "useHierarchy": "memory.use_hierarchy",
}

_MEMORY_ZERO_MEANS_ZERO = ("swappiness", "disableOOMKiller")

_CPU_V1 = {
    "shares": "cpu.shares",
    "burst": "cpu.cfs_burst_us",
    "realtimePeriod": "cpu.rt_period_us",
    "realtimeRuntime": "cpu.rt_runtime_us",
    "idle": "cpu.idle",
}

_THROTTLES = {
    "throttleReadBpsDevice": ("read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("write_iops_device", "wiops"),
}


# --- conversions from v1's units to v2's ----------------------------------------------------------------


def weight_of_shares(shares: int) -> int:
    """`cpu.shares` (2…262144, usually 1024) as `cpu.weight` (1…10000, usually 100).

    The quadratic in log2(shares) that maps the least, the usual and the greatest value onto each other,
    as runc 1.4 and crun 1.24 do; the older linear one made a usual container weigh 39.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    exponent = math.log2(shares)
    return math.ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))


def io_weight_of_blkio(weight: int) -> int:
    """`blkio.weight` (10…1000) as `io.weight` (1…10000)."""
    return 1 + (weight - 10) * 9999 // 990


def swap_v2(limit: int | None, swap: int) -> int | str:
    """`memory.swap.max`: OCI's `swap` is memory plus swap, v2's is swap alone."""
    if swap < 0:
        return "max"
    if not limit or limit < 0:
        raise InvalidParameter("linux.resources.memory.swap needs a memory limit")
    if swap < limit:
        raise InvalidParameter("linux.resources.memory.swap (memory plus swap) is below the memory limit")
    return swap - limit


def _or_max(value: int) -> int | str:
    return "max" if value < 0 else value


def _limit(text: str) -> int | None:
    """A limit file's number, None if it says that there is none."""
    if text.startswith("max"):
        return None
    value = int(text)
    return None if value >= _V1_UNLIMITED else value


# --- files ------------------------------------------------------------------------------------------------


def _clean(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    if not parts or any(part in (".", "..") for part in parts):
        raise InvalidParameter(f"invalid cgroup path: {path!r}")
    return "/" + "/".join(parts)


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
        return b"".join(chunks).decode()
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def _flat(path: str) -> dict[str, int]:
    """A "flat keyed" file: one `key number` per line."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _await_flat(path: str, key: str, wanted: int) -> None:
    """Wait until a v2 events file says so; the kernel signals each change as POLLPRI."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLPRI)
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            lines = os.pread(descriptor, 4096, 0).decode().splitlines()
            if f"{key} {wanted}" in lines:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, f"{key} did not become {wanted}", path)
            poll.poll(left * 1000)
    finally:
        os.close(descriptor)


def _mkdir(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _mkdir(os.path.dirname(path))
        _mkdir(path)


def _inherit_cpuset(mount: str, path: str) -> None:
    """v1 takes no process into a cpuset without CPUs and memory nodes: hand the parent's down."""
    directory = mount + path
    for name in ("cpuset.cpus", "cpuset.mems"):
        if _read(f"{directory}/{name}").strip():
            continue
        parent = path.rpartition("/")[0]
        if parent:
            _inherit_cpuset(mount, parent)
        _write(f"{directory}/{name}", _read(f"{mount}{parent}/{name}").strip())


def _tree(root: str) -> Iterator[str]:
    """A group's directory and those below it, parents first."""
    yield root
    with contextlib.suppress(FileNotFoundError):
        with os.scandir(root) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for directory in below:
            yield from _tree(directory)


def _rmdir_when_empty(directory: str, deadline: float) -> None:
    while True:
        try:
            return os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            # v1 has no event for "the last process is gone" that survives without a release agent.
            time.sleep(0.001)
