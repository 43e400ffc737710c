"""What a container uses: one sample of its cgroup, in the JSON of GET /containers/{id}/stats."""

import os
from pathlib import Path
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.kernel.cgroups import Cgroup, CgroupStats

Json = dict[str, Any]

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def sample(container: Container, cgroup: Cgroup) -> Json:
    """One sample without its predecessor; a container that does not run has used nothing."""
    if not container.state.running or not cgroup.exists():
        return {"read": timestamps.NEVER, **_empty(container)}
    used = cgroup.stats()
    return {
        **_empty(container),
        "read": timestamps.now(),
        "pids_stats": {"current": used.pids_current, "limit": used.pids_limit or (1 << 64) - 1},
        "blkio_stats": _block_io(used),
        "cpu_stats": _cpu(used),
        "memory_stats": _memory(used),
        "networks": _networks(container.state.pid),
    }


def _empty(container: Container) -> Json:
    return {
        "name": f"/{container.name}",
        "id": container.id,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLOCK_FIELDS),
        "cpu_stats": _NO_CPU,
        "precpu_stats": _NO_CPU,
        "preread": timestamps.NEVER,
        "memory_stats": {},
    }


_NO_CPU: Json = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_BLOCK_FIELDS = (
    *(
        "io_service_bytes_recursive",
        "io_serviced_recursive",
        "io_queue_recursive",
        "io_service_time_recursive",
    ),
    *("io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive"),
)


def _cpu(used: CgroupStats) -> Json:
    return {
        "cpu_usage": {
            "total_usage": used.cpu_usage_ns,
            "usage_in_kernelmode": used.cpu_system_ns,
            "usage_in_usermode": used.cpu_user_ns,
            **({"percpu_usage": used.per_cpu_ns} if used.per_cpu_ns else {}),
        },
        "system_cpu_usage": _system_cpu(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": used.cpu_periods,
            "throttled_periods": used.cpu_throttled_periods,
            "throttled_time": used.cpu_throttled_ns,
        },
    }


def _system_cpu() -> int:
    """Nanoseconds that all processors together have spent, from the first line of /proc/stat."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:8]
    return sum(map(int, fields)) * _TICK


def _memory(used: CgroupStats) -> Json:
    limit = used.memory_limit
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "usage": used.memory_usage,
        **({"max_usage": used.memory_max} if used.memory_max is not None else {}),
        "stats": used.memory_stat,
        "failcnt": used.memory_failures,
        "limit": min(limit, machine) if limit else machine,
    }


def _block_io(used: CgroupStats) -> Json:
    def entries(counted: list[tuple[int, int, str, int]]) -> list[Json]:
        return [
            {"major": major, "minor": minor, "op": operation, "value": value}
            for major, minor, operation, value in counted
        ]

    return dict.fromkeys(_BLOCK_FIELDS) | {
        "io_service_bytes_recursive": entries(used.blkio_bytes),
        "io_serviced_recursive": entries(used.blkio_operations),
    }


def _networks(pid: int) -> Json:
    """Bytes and packets of each interface but `lo`, from the container's own /proc/net/dev."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except (FileNotFoundError, ProcessLookupError, OSError):
        return {}
    found = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            continue
        fields = list(map(int, numbers.split()))
        found[name.strip()] = {
            **dict(zip(("rx_bytes", "rx_packets", "rx_errors", "rx_dropped"), fields[0:4], strict=True)),
            **dict(zip(("tx_bytes", "tx_packets", "tx_errors", "tx_dropped"), fields[8:12], strict=True)),
        }
    return found
