"""Controllers on the cgroup v2 mount (the kernel's admin-guide/cgroup-v2).

Limits come in v1's units, which are those of the OCI runtime specification, and are converted. What v2 has no
word for is an InvalidParameter.
"""

# pathlib would cost more per file than the kernel does.
# ruff: noqa: PTH110

import contextlib
import math
import os
import select
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import devices
from dockmagic_runtime.kernel.cgroups.directories import Directories
from dockmagic_runtime.kernel.cgroups.files import await_flat, read, read_flat, read_limit, write
from dockmagic_runtime.kernel.cgroups.resources import CgroupStats, Resources

HUGETLB_LIMIT = "max"

_THROTTLES = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


# --- freezing, and the want of memory ---------------------------------------------------------------------


def frozen(group: Directories) -> bool:
    return read_flat(f"{group.directory('freezer')}/cgroup.events").get("frozen") == 1


def set_frozen(group: Directories, wanted: bool) -> None:
    freezer = group.directory("freezer")
    write(f"{freezer}/cgroup.freeze", "1" if wanted else "0")
    await_flat(f"{freezer}/cgroup.events", "frozen", int(wanted))


def oom_kills(group: Directories) -> int:
    return read_flat(f"{group.directory('memory')}/memory.events").get("oom_kill", 0)


def oom_watch(group: Directories) -> tuple[int, int]:
    """`memory.events` and POLLPRI; read it from 0 to reset."""
    return os.open(f"{group.directory('memory')}/memory.events", os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI


# --- limits -----------------------------------------------------------------------------------------------


def set_devices(group: Directories, rules: list[dict[str, Any]]) -> None:
    if not rules:
        return
    descriptor = os.open(group.directory("devices"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        devices.attach(descriptor, devices.program(rules))
    finally:
        os.close(descriptor)


def set_memory(group: Directories, memory: Resources) -> None:
    limit, swap = memory.get("limit"), memory.get("swap")
    for key in ("kernel", "kernelTCP", "swappiness", "disableOOMKiller"):
        if memory.get(key):
            raise InvalidParameter(f"linux.resources.memory.{key} can't be kept by cgroup v2")
    if swap:
        group.set("memory", "memory.swap.max", swap_alone(limit, swap))
    if limit:
        group.set("memory", "memory.max", _or_max(limit))
    if memory.get("reservation"):
        group.set("memory", "memory.low", _or_max(memory["reservation"]))


def set_cpu(group: Directories, cpu: Resources) -> None:
    for key in ("realtimeRuntime", "realtimePeriod"):
        if cpu.get(key):
            raise InvalidParameter(f"linux.resources.cpu.{key} can't be kept by cgroup v2")
    if cpu.get("idle") is not None:
        group.set("cpu", "cpu.idle", cpu["idle"])
    if cpu.get("shares"):
        group.set("cpu", "cpu.weight", weight_of_shares(cpu["shares"]))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota") or read(f"{group.directory('cpu')}/cpu.max").split()[0]
        quota = "max" if isinstance(quota, int) and quota < 0 else quota
        group.set("cpu", "cpu.max", f"{quota} {cpu['period']}" if cpu.get("period") else quota)
    if cpu.get("burst") is not None:
        group.set("cpu", "cpu.max.burst", cpu["burst"])


def set_blkio(group: Directories, blkio: Resources) -> None:
    weights = blkio.get("weightDevice") or ()
    if blkio.get("leafWeight") or any(device.get("leafWeight") for device in weights):
        raise InvalidParameter("linux.resources.blockIO.leafWeight can't be kept by cgroup v2")
    bfq = os.path.exists(f"{group.directory('io')}/io.bfq.weight")
    name, convert = ("io.bfq.weight", int) if bfq else ("io.weight", io_weight_of_blkio)
    if blkio.get("weight"):
        group.set("io", name, convert(blkio["weight"]))
    for device in weights:
        if device.get("weight"):
            group.set("io", name, f"{device['major']}:{device['minor']} {convert(device['weight'])}")
    for key, word in _THROTTLES.items():
        for device in blkio.get(key) or ():
            rate = device["rate"] or "max"
            group.set("io", "io.max", f"{device['major']}:{device['minor']} {word}={rate}")


# --- statistics -------------------------------------------------------------------------------------------


def memory_usage(group: Directories) -> int:
    return int(read(f"{group.directory('memory')}/memory.current"))


def _count_cpu(group: Directories, found: CgroupStats) -> None:
    numbers = read_flat(f"{group.directory('cpu')}/cpu.stat")
    found.cpu_periods = numbers.get("nr_periods", 0)
    found.cpu_throttled_periods = numbers.get("nr_throttled", 0)
    found.cpu_usage_ns = numbers["usage_usec"] * 1000
    found.cpu_user_ns = numbers["user_usec"] * 1000
    found.cpu_system_ns = numbers["system_usec"] * 1000
    found.cpu_throttled_ns = numbers.get("throttled_usec", 0) * 1000


def _count_memory(group: Directories, found: CgroupStats) -> None:
    directory = group.directory("memory")
    found.memory_stat = read_flat(f"{directory}/memory.stat")
    found.memory_usage = memory_usage(group)
    found.memory_limit = read_limit(f"{directory}/memory.max")
    found.memory_failures = read_flat(f"{directory}/memory.events").get("max", 0)
    with contextlib.suppress(FileNotFoundError):  # Linux 5.19
        found.memory_max = int(read(f"{directory}/memory.peak"))


def _count_io(group: Directories, found: CgroupStats) -> None:
    for line in read(f"{group.directory('io')}/io.stat").splitlines():
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


COUNTERS = {"cpu": _count_cpu, "memory": _count_memory, "io": _count_io}


# --- conversions from v1's units --------------------------------------------------------------------------


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


def swap_alone(limit: int | None, swap: int) -> int | str:
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
