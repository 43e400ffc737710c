"""`docker update`: which settings of a container may change while it exists, and which exclude each other.

Docker's rules and sentences (moby's `Container.UpdateContainer`). A field that is absent or 0 stays as it is.
"""

from typing import Any

from dockmagic_runtime.containers import limits, restarts, settings, spec
from dockmagic_runtime.errors import Conflict, InvalidParameter
from dockmagic_runtime.kernel.cgroups import Resources

Json = dict[str, Any]

_CHANGEABLE = (
    *("BlkioWeight", "CpuShares", "NanoCpus", "CpuPeriod", "CpuQuota", "CpusetCpus", "CpusetMems"),
    *("Memory", "MemorySwap", "MemoryReservation", "CpuRealtimePeriod", "CpuRealtimeRuntime"),
)


def changed(host: Json, body: Json) -> tuple[Json, list[str]]:
    """The new HostConfig, and warnings for the client; raises InvalidParameter or Conflict."""
    asked = settings.complete(body, settings.HOST_CONFIG_FIELDS, "HostConfig")
    warnings = limits.check(asked, update=True)
    policy = asked["RestartPolicy"] if body.get("RestartPolicy") else {}
    restarts.check(policy, auto_remove=False)
    _check_clashes(host, asked)
    new = host | {name: asked[name] for name in _CHANGEABLE if asked[name]}
    try:
        limits.check_memory(new)
    except InvalidParameter as error:  # what is to be set and what was set before contradict each other
        raise Conflict(str(error)) from None
    if asked["PidsLimit"] is not None:
        # 0 and -1 both mean: no limit from now on.
        new["PidsLimit"] = max(asked["PidsLimit"], 0)
    if policy.get("Name"):
        if host["AutoRemove"] and policy["Name"] != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        new["RestartPolicy"] = policy
    return new, warnings


def _check_clashes(host: Json, asked: Json) -> None:
    for name, words in (("CpuPeriod", "CPU Period"), ("CpuQuota", "CPU Quota")):
        if asked["NanoCpus"] and host[name]:
            raise Conflict(
                f"Conflicting options: Nano CPUs cannot be updated as {words} has already been set"
            )
        if asked[name] and host["NanoCpus"]:
            raise Conflict(f"Conflicting options: {words} cannot be updated as NanoCPUs has already been set")
    if asked["Memory"] > host["MemorySwap"] and not asked["MemorySwap"] and host["MemorySwap"] != -1:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )


def resources(host: Json) -> Resources:
    """What is to be written for a container that runs; its devices stay."""
    found = spec.resources(host)
    found.pop("devices")
    if host["PidsLimit"] == 0:
        found["pids"] = {"limit": -1}
    return found
