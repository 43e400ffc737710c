"""One line of `docker stats`, computed from the engine's counters as the docker command does."""

from typing import Any

FIELDS = {
    "CONTAINER ID": "ID",
    "NAME": "Name",
    "CPU %": "CPUPerc",
    "MEM USAGE / LIMIT": "MemUsage",
    "MEM %": "MemPerc",
    "NET I/O": "NetIO",
    "BLOCK I/O": "BlockIO",
    "PIDS": "PIDs",
}


def row(stats: dict[str, Any], name: str, *, no_trunc: bool) -> dict[str, str]:
    """The fields that `docker stats --format` knows, from one answer of `/containers/{id}/stats`."""
    from dockmagic.views.resources import cpu_percent, memory_used
    from dockmagic.views.units import memory, size

    usage = stats.get("memory_stats") or {}
    used, limit = memory_used(usage), usage.get("limit") or 0
    networks = (stats.get("networks") or {}).values()
    received = sum(network["rx_bytes"] for network in networks)
    sent = sum(network["tx_bytes"] for network in networks)
    blocks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read = sum(entry["value"] for entry in blocks if entry["op"].lower() == "read")
    written = sum(entry["value"] for entry in blocks if entry["op"].lower() == "write")
    percent = 0.0
    if stats.get("precpu_stats", {}).get("system_cpu_usage"):
        percent = cpu_percent(stats["cpu_stats"], stats["precpu_stats"])
    identity = stats.get("id", "")
    return {
        "ID": identity if no_trunc else identity[:12],
        "Container": name,  # as it was asked for
        "Name": stats.get("name", "").removeprefix("/"),
        "CPUPerc": f"{percent:.2f}%",
        "MemUsage": f"{memory(used)} / {memory(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{size(received)} / {size(sent)}",
        "BlockIO": f"{size(read)} / {size(written)}",
        "PIDs": str((stats.get("pids_stats") or {}).get("current") or 0),
    }
