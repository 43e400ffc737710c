"""What a container may use of this machine: HostConfig's resources, checked against what the machine has.

The rules and sentences are Docker's (moby's `verifyPlatformContainerResources`). What this kernel cannot
limit is left out with a warning to the client, as there; what it can and the request gets wrong is refused.
"""

import os
from collections.abc import Iterable
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import cgroups

Json = dict[str, Any]

_MEMORY_FLOOR = 6 * 1024 * 1024


def check(host: Json, *, update: bool = False) -> list[str]:
    """Warnings for the client; raises InvalidParameter. What is discarded is taken out of `host`.

    An update holds only what is to change: a limit may refer to one that is set already.
    """
    check_memory(host, update=update)
    _check_processors(host)
    _check_cpuset(host)
    if host["PidsLimit"] is not None and host["PidsLimit"] < 0 and not update:
        host["PidsLimit"] = None
    return _out_of_memory_killer(host) + _block_io(host)


def check_memory(host: Json, *, update: bool = False) -> None:
    """Raises InvalidParameter for limits of memory that contradict each other."""
    memory, swap, reservation = host["Memory"], host["MemorySwap"], host["MemoryReservation"]
    if memory < 0 or 0 < memory < _MEMORY_FLOOR:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if memory and 0 < swap < memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if swap > 0 and not memory and not update:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    swappiness = host["MemorySwappiness"]
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidParameter(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if reservation < 0 or 0 < reservation < _MEMORY_FLOOR:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if memory and reservation > memory:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )


def _check_processors(host: Json) -> None:
    if host["NanoCpus"] and host["CpuPeriod"]:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host["NanoCpus"] and host["CpuQuota"]:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if host["NanoCpus"]:
        count = len(os.sched_getaffinity(0))
        if not 0 < host["NanoCpus"] <= count * 1_000_000_000:
            raise InvalidParameter(
                f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
            )
    if host["CpuPeriod"] and not 1000 <= host["CpuPeriod"] <= 1_000_000:
        raise InvalidParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host["CpuQuota"] < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host["CpuShares"] < 0:
        raise InvalidParameter(f"invalid CPU shares ({host['CpuShares']}): value must be a positive integer")
    period, runtime = host["CpuRealtimePeriod"], host["CpuRealtimeRuntime"]
    if period and runtime > period:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")


def _check_cpuset(host: Json) -> None:
    for field, kind, what in (("CpusetCpus", "cpus", "CPUs"), ("CpusetMems", "mems", "memory nodes")):
        asked = host[field]
        if not asked:
            continue
        try:
            wanted = set(numbers(asked))
        except ValueError:
            raise InvalidParameter(
                f"Invalid value {asked} for cpuset {kind}: invalid format: {asked}"
            ) from None
        available = cgroups.layout().cpuset(kind)
        if available and not wanted <= set(numbers(available)):
            raise InvalidParameter(
                f"Requested {what} are not available - requested {asked}, available: {available}"
            )


def numbers(text: str) -> Iterable[int]:
    """`0-2,5` as numbers; raises ValueError."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if not 0 <= low <= high < 1 << 16:
            raise ValueError(text)
        yield from range(low, high + 1)


def _out_of_memory_killer(host: Json) -> list[str]:
    if not host["OomKillDisable"]:
        return []
    if cgroups.layout().unified:
        host["OomKillDisable"] = None
        return ["Your kernel does not support OomKillDisable. OomKillDisable discarded."]
    if host["Memory"]:
        return []
    return [
        "OOM killer is disabled for the container, but no memory limit is set, "
        "this can result in the system running out of resources."
    ]


def _block_io(host: Json) -> list[str]:
    weight, by_device = host["BlkioWeight"], host["BlkioWeightDevice"]
    if not weight and not by_device:
        return []
    warnings = []
    if weight and not cgroups.layout().weighs_block_io:
        host["BlkioWeight"] = 0
        warnings.append(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        )
    elif weight and not 10 <= weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    if by_device and not cgroups.layout().weighs_block_devices:
        host["BlkioWeightDevice"] = []
        warnings.append(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
            "Weight-device discarded."
        )
    return warnings
