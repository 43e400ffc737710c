"""Which hierarchies of control groups this machine has, and where they are mounted (cgroups(7)).

Three layouts: *legacy* (every controller on v1 mounts), *unified* (one v2 mount) and *hybrid* (controllers
on v1, and a v2 mount that has the rest).
"""

# pathlib would cost more per file than the kernel does.
# ruff: noqa: PTH110, PTH123

import contextlib
import os
from dataclasses import dataclass
from functools import cache, cached_property

from dockmagic_runtime.kernel.cgroups.files import read

_V1_CONTROLLERS = {
    *("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb"),
    *("memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma"),
}


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
        return frozenset(read(f"{self.v2}/cgroup.controllers").split()) if self.v2 else frozenset()

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
                return read(name).strip()
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
