"""`linux.resources` of the OCI runtime configuration, put into force."""

from collections.abc import Callable, Mapping
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel.cgroups.directories import Directories
from dockmagic_runtime.kernel.cgroups.resources import Resources
from dockmagic_runtime.kernel.cgroups.versions import version


def apply(group: Directories, resources: Resources) -> None:
    """See `Cgroup.apply`."""
    if resources.get("devices") is not None:
        version(group, "devices").set_devices(group, resources["devices"])
    for name, setter in _SETTERS.items():
        if resources.get(name):
            setter(group, resources[name])


def _memory(group: Directories, memory: Resources) -> None:
    limit, here = memory.get("limit") or 0, version(group, "memory")
    if memory.get("checkBeforeUpdate") and 0 < limit < (usage := here.memory_usage(group)):
        raise InvalidParameter(f"memory limit {limit} is below the present usage, {usage}")
    here.set_memory(group, memory)


def _cpu(group: Directories, cpu: Resources) -> None:
    for key in ("cpus", "mems"):
        if cpu.get(key):
            group.set("cpuset", f"cpuset.{key}", cpu[key])
    version(group, "cpu").set_cpu(group, cpu)


def _pids(group: Directories, pids: Resources) -> None:
    if pids.get("limit") is not None:
        group.set("pids", "pids.max", pids["limit"] if pids["limit"] > 0 else "max")


def _blkio(group: Directories, blkio: Resources) -> None:
    version(group, "blkio").set_blkio(group, blkio)


def _hugepages(group: Directories, limits: list[dict[str, Any]]) -> None:
    name = version(group, "hugetlb").HUGETLB_LIMIT
    for entry in limits:
        group.set("hugetlb", f"hugetlb.{entry['pageSize']}.{name}", entry["limit"])


def _rdma(group: Directories, limits: Mapping[str, Resources]) -> None:
    for device, entry in limits.items():
        pairs = (("hca_handle", entry.get("hcaHandles")), ("hca_object", entry.get("hcaObjects")))
        values = " ".join(f"{key}={value}" for key, value in pairs if value is not None)
        group.set("rdma", "rdma.max", f"{device} {values}")


def _network(group: Directories, network: Resources) -> None:
    if network.get("classID") is not None:
        group.set("net_cls", "net_cls.classid", network["classID"])
    for entry in network.get("priorities") or ():
        group.set("net_prio", "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}")


def _unified(group: Directories, values: Mapping[str, str]) -> None:
    if not group.layout.unified:
        raise InvalidParameter("linux.resources.unified needs cgroup v2, this machine uses v1")
    for name, value in values.items():
        if "/" in name or name.startswith("cgroup."):
            raise InvalidParameter(f"linux.resources.unified: {name} is not a controller's file")
        for line in value.splitlines():
            group.set(name.partition(".")[0], name, line)


_SETTERS: dict[str, Callable[[Directories, Any], None]] = {
    "memory": _memory,
    "cpu": _cpu,
    "pids": _pids,
    "blockIO": _blkio,
    "hugepageLimits": _hugepages,
    "rdma": _rdma,
    "network": _network,
    "unified": _unified,
}
