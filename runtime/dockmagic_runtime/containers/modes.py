"""Which wishes exclude each other: HostConfig's modes, checked in themselves and against the Config.

The rules and sentences are Docker's (moby's `runconfig` and `verifyPlatformContainerSettings`). Whether a
network or container that a mode names exists is looked up when it is needed.
"""

import json
from typing import Any

from dockmagic_runtime.containers import restarts
from dockmagic_runtime.errors import InvalidParameter

Json = dict[str, Any]

_NETWORK_CLASHES = (
    ("Links", "container type network can't be used with links. This would result in undefined behavior"),
    ("Dns", "dns and the network mode"),
    ("ExtraHosts", "custom host-to-IP mapping and the network mode"),
    ("PortBindings", "port publishing and the container type network mode"),
    ("PublishAllPorts", "port publishing and the container type network mode"),
)


def check(config: Json, host: Json) -> list[str]:
    """Warnings for the client; raises InvalidParameter.

    `config` is as the client gave it: what the image exposes does not clash with anything.
    """
    _check_network(config, host)
    _check_system(host)
    if host["NetworkMode"] == "host" and host["PortBindings"]:
        return ["Published ports are discarded when using host network mode"]
    return []


def _check_network(config: Json, host: Json) -> None:
    mode, hostname = host["NetworkMode"], config.get("Hostname")
    if mode.partition(":")[0] == "container":
        if not mode.partition(":")[2]:
            raise InvalidParameter("Invalid network mode: invalid container format container:<name|id>")
        if hostname:
            raise _conflict("hostname and the network mode")
        for field, clash in _NETWORK_CLASHES:
            if host[field]:
                raise _conflict(clash)
        if config.get("ExposedPorts"):
            raise _conflict("port exposing and the container type network mode")
    if mode.partition(":")[0] in ("container", "host") and config.get("MacAddress"):
        raise _conflict("mac-address and the network mode")
    if host["UTSMode"] == "host" and hostname:
        raise _conflict("hostname and the UTS mode")
    if mode == "host" and host["Links"]:
        raise _conflict(
            "host type networking can't be used with links. This would result in undefined behavior"
        )


def _conflict(clash: str) -> InvalidParameter:
    return InvalidParameter(f"conflicting options: {clash}")


def _check_system(host: Json) -> None:
    if not -1000 <= host["OomScoreAdj"] <= 1000:
        raise InvalidParameter(
            f"Invalid value {host['OomScoreAdj']}, range for oom score adj is [-1000, 1000]"
        )
    if host["ShmSize"] < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    restarts.check(host["RestartPolicy"], auto_remove=host["AutoRemove"])
    if host["UsernsMode"] not in ("", "host"):
        raise InvalidParameter(f"invalid userns mode: {host['UsernsMode']}")
    if host["Runtime"] not in ("runc", "io.containerd.runc.v2", "dockmagic"):
        raise InvalidParameter(f"unknown or invalid runtime name: {host['Runtime']}")
    if host["Isolation"] not in ("", "default"):
        raise InvalidParameter(
            f"Invalid isolation: {json.dumps(host['Isolation'])} - linux only supports 'default'"
        )
    if host["IOMaximumIOps"] or host["IOMaximumBandwidth"]:
        raise InvalidParameter(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps"
        )
    if host["CgroupnsMode"] not in ("private", "host"):
        raise InvalidParameter(f"invalid cgroup namespace mode: {host['CgroupnsMode']}")
    if host["UTSMode"] not in ("", "host"):
        raise InvalidParameter(f"invalid UTS mode: {host['UTSMode']}")
    if "" in (host["Annotations"] or {}):
        raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")
    if host["StorageOpt"]:
        raise InvalidParameter(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        )
