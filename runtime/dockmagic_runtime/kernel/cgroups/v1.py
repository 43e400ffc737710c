"""Controllers on cgroup v1 mounts (the kernel's admin-guide/cgroup-v1), whose values are those of OCI.

Two costs are the kernel's own: the first attach to a v1 group after a pause waits for an RCU grace period (5
to 10 ms; the next ones, shortly after, do not), and it can be overlapped with the child's other work.
"""

# pathlib would cost more per file than the kernel does.
# ruff: noqa: PTH110

import errno
import os
import select
import time
from typing import Any

from dockmagic_runtime.kernel import devices
from dockmagic_runtime.kernel.cgroups.directories import Directories
from dockmagic_runtime.kernel.cgroups.files import SETTLE_SECONDS, read, read_flat, read_limit, write
from dockmagic_runtime.kernel.cgroups.resources import CgroupStats, Resources

HUGETLB_LIMIT = "limit_in_bytes"

_MEMORY = {
    "reservation": "memory.soft_limit_in_bytes",
    "kernel": "memory.kmem.limit_in_bytes",
    "kernelTCP": "memory.kmem.tcp.limit_in_bytes",
    "swappiness": "memory.swappiness",
    "disableOOMKiller": "memory.oom_control",
    "useHierarchy": "memory.use_hierarchy",
}

_MEMORY_ZERO_MEANS_ZERO = ("swappiness", "disableOOMKiller")

_CPU = {
    "shares": "cpu.shares",
    "burst": "cpu.cfs_burst_us",
    "realtimePeriod": "cpu.rt_period_us",
    "realtimeRuntime": "cpu.rt_runtime_us",
    "idle": "cpu.idle",
}

_CPU_ZERO_MEANS_ZERO = ("idle", "burst")

_THROTTLES = {
    "throttleReadBpsDevice": "read_bps_device",
    "throttleWriteBpsDevice": "write_bps_device",
    "throttleReadIOPSDevice": "read_iops_device",
    "throttleWriteIOPSDevice": "write_iops_device",
}


def inherit_cpuset(mount: str, path: str) -> None:
    """v1 takes no process into a cpuset without CPUs and memory nodes: hand the parent's down."""
    directory = mount + path
    for name in ("cpuset.cpus", "cpuset.mems"):
        if read(f"{directory}/{name}").strip():
            continue
        parent = path.rpartition("/")[0]
        if parent:
            inherit_cpuset(mount, parent)
        write(f"{directory}/{name}", read(f"{mount}{parent}/{name}").strip())


# --- freezing, and the want of memory ---------------------------------------------------------------------


def frozen(group: Directories) -> bool:
    return read(f"{group.directory('freezer')}/freezer.state").strip() != "THAWED"


def set_frozen(group: Directories, wanted: bool) -> None:
    freezer = group.directory("freezer")
    state = "FROZEN" if wanted else "THAWED"
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        write(f"{freezer}/freezer.state", state)
        if read(f"{freezer}/freezer.state").strip() == state:
            return
        if time.monotonic() > deadline:
            write(f"{freezer}/freezer.state", "THAWED")
            raise TimeoutError(errno.ETIMEDOUT, "some process can't be frozen", freezer)
        # The v1 freezer tells nobody when it is done, and needs to be told again when a process forked.
        time.sleep(0.001)


def oom_kills(group: Directories) -> int:
    return read_flat(f"{group.directory('memory')}/memory.oom_control").get("oom_kill", 0)


def oom_watch(group: Directories) -> tuple[int, int]:
    """An eventfd and POLLIN; read it to reset."""
    memory = group.directory("memory")
    watched = os.open(f"{memory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            write(f"{memory}/cgroup.event_control", f"{event} {watched}")
        except OSError:
            os.close(event)
            raise
    finally:
        os.close(watched)
    return event, select.POLLIN


# --- limits -----------------------------------------------------------------------------------------------


def set_devices(group: Directories, rules: list[dict[str, Any]]) -> None:
    directory = group.directory("devices")
    for name, line in devices.v1_lines(rules):
        write(f"{directory}/{name}", line)


def set_memory(group: Directories, memory: Resources) -> None:
    limit, swap = memory.get("limit"), memory.get("swap")
    if (
        limit == -1
        and swap is None
        and os.path.exists(f"{group.directory('memory')}/memory.memsw.limit_in_bytes")
    ):
        swap = -1  # no limit on memory makes a limit on memory plus swap impossible
    writes = [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap)]
    writes = [(name, value) for name, value in writes if value]
    try:
        for name, value in writes:
            group.set("memory", name, value)
    except OSError as error:
        # memsw may never be below limit: when both grow, it has to go first.
        if len(writes) < 2 or error.errno not in (errno.EINVAL, errno.EBUSY):
            raise
        for name, value in reversed(writes):
            group.set("memory", name, value)
    for key, name in _MEMORY.items():
        if memory.get(key) or (key in _MEMORY_ZERO_MEANS_ZERO and memory.get(key) is not None):
            group.set("memory", name, int(memory[key]))


def set_cpu(group: Directories, cpu: Resources) -> None:
    period, quota = cpu.get("period"), cpu.get("quota")
    if period:
        try:
            group.set("cpu", "cpu.cfs_period_us", period)
            period = None
        except OSError as error:
            # A shorter period can exceed the parent's share until the new quota is in place.
            if error.errno != errno.EINVAL or not quota:
                raise
    if quota:
        group.set("cpu", "cpu.cfs_quota_us", quota)
    if period:
        group.set("cpu", "cpu.cfs_period_us", period)
    for key, name in _CPU.items():
        if cpu.get(key) or (key in _CPU_ZERO_MEANS_ZERO and cpu.get(key) is not None):
            group.set("cpu", name, cpu[key])


def set_blkio(group: Directories, blkio: Resources) -> None:
    bfq = os.path.exists(f"{group.directory('blkio')}/blkio.bfq.weight")
    weight_file = "blkio.bfq.weight" if bfq else "blkio.weight"
    if blkio.get("weight"):
        group.set("blkio", weight_file, int(blkio["weight"]))
    if blkio.get("leafWeight"):
        group.set("blkio", "blkio.leaf_weight", blkio["leafWeight"])
    for device in blkio.get("weightDevice") or ():
        number = f"{device['major']}:{device['minor']}"
        if device.get("weight"):
            name = weight_file if bfq else "blkio.weight_device"
            group.set("blkio", name, f"{number} {int(device['weight'])}")
        if device.get("leafWeight"):
            group.set("blkio", "blkio.leaf_weight_device", f"{number} {device['leafWeight']}")
    for key, name in _THROTTLES.items():
        for device in blkio.get(key) or ():
            line = f"{device['major']}:{device['minor']} {device['rate']}"
            group.set("blkio", f"blkio.throttle.{name}", line)


# --- statistics -------------------------------------------------------------------------------------------


def memory_usage(group: Directories) -> int:
    return int(read(f"{group.directory('memory')}/memory.usage_in_bytes"))


def _count_cpu(group: Directories, found: CgroupStats) -> None:
    numbers = read_flat(f"{group.directory('cpu')}/cpu.stat")
    found.cpu_periods = numbers.get("nr_periods", 0)
    found.cpu_throttled_periods = numbers.get("nr_throttled", 0)
    found.cpu_throttled_ns = numbers.get("throttled_time", 0)


def _count_cpuacct(group: Directories, found: CgroupStats) -> None:
    directory = group.directory("cpuacct")
    found.cpu_usage_ns = int(read(f"{directory}/cpuacct.usage"))
    found.per_cpu_ns = [int(n) for n in read(f"{directory}/cpuacct.usage_percpu").split()]
    found.cpu_user_ns = int(read(f"{directory}/cpuacct.usage_user"))
    found.cpu_system_ns = int(read(f"{directory}/cpuacct.usage_sys"))


def _count_memory(group: Directories, found: CgroupStats) -> None:
    directory = group.directory("memory")
    found.memory_stat = read_flat(f"{directory}/memory.stat")
    found.memory_usage = memory_usage(group)
    found.memory_limit = read_limit(f"{directory}/memory.limit_in_bytes")
    found.memory_max = int(read(f"{directory}/memory.max_usage_in_bytes"))
    found.memory_failures = int(read(f"{directory}/memory.failcnt"))


def _count_blkio(group: Directories, found: CgroupStats) -> None:
    directory = group.directory("blkio")
    for name, entries in (
        ("io_service_bytes", found.blkio_bytes),
        ("io_serviced", found.blkio_operations),
    ):
        for line in read(f"{directory}/blkio.throttle.{name}_recursive").splitlines():
            number, *rest = line.split()
            if len(rest) == 2:
                major, minor = number.split(":")
                entries.append((int(major), int(minor), rest[0].lower(), int(rest[1])))


COUNTERS = {"cpu": _count_cpu, "cpuacct": _count_cpuacct, "memory": _count_memory, "blkio": _count_blkio}
