"""What a client asks for in POST /containers/create, checked and completed.

The body has three parts: `Config` (what the program is; starts from the image's own), `HostConfig` (what
it gets of this machine) and `NetworkingConfig`. Each field is listed here once, with the JSON type it
must have and the value it takes when absent; the names and defaults are those of the Docker Engine API.
"""

import copy
import re
import signal
from typing import Any

from dockmagic_runtime.containers import healthcheck
from dockmagic_runtime.errors import InvalidParameter

Json = dict[str, Any]

# Field: (JSON types it may have, value when absent). None is allowed everywhere: it means absent.
CONFIG_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "Hostname": ((str,), ""),
    "Domainname": ((str,), ""),
    "User": ((str,), ""),
    "AttachStdin": ((bool,), False),
    "AttachStdout": ((bool,), False),
    "AttachStderr": ((bool,), False),
    "ExposedPorts": ((dict,), None),
    "Tty": ((bool,), False),
    "OpenStdin": ((bool,), False),
    "StdinOnce": ((bool,), False),
    "Env": ((list,), None),
    "Cmd": ((list, str), None),
    "Healthcheck": ((dict,), None),
    "Image": ((str,), ""),
    "Volumes": ((dict,), None),
    "WorkingDir": ((str,), ""),
    "Entrypoint": ((list, str), None),
    "OnBuild": ((list,), None),
    "Labels": ((dict,), None),
    "StopSignal": ((str,), None),
    "StopTimeout": ((int,), None),
    "NetworkDisabled": ((bool,), None),
    "MacAddress": ((str,), None),
    "Shell": ((list,), None),
}

MASKED_PATHS = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

HOST_CONFIG_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "Binds": ((list,), None),
    "ContainerIDFile": ((str,), ""),
    "LogConfig": ((dict,), {"Type": "json-file", "Config": {}}),
    "NetworkMode": ((str,), "bridge"),
    "PortBindings": ((dict,), {}),
    "RestartPolicy": ((dict,), {"Name": "no", "MaximumRetryCount": 0}),
    "AutoRemove": ((bool,), False),
    "VolumeDriver": ((str,), ""),
    "VolumesFrom": ((list,), None),
    "ConsoleSize": ((list,), [0, 0]),
    "CapAdd": ((list,), None),
    "CapDrop": ((list,), None),
    "CgroupnsMode": ((str,), "private"),
    "Dns": ((list,), []),
    "DnsOptions": ((list,), []),
    "DnsSearch": ((list,), []),
    "ExtraHosts": ((list,), None),
    "GroupAdd": ((list,), None),
    "IpcMode": ((str,), "private"),
    "Cgroup": ((str,), ""),
    "Links": ((list,), None),
    "Mounts": ((list,), None),
    "OomScoreAdj": ((int,), 0),
    "PidMode": ((str,), ""),
    "Privileged": ((bool,), False),
    "PublishAllPorts": ((bool,), False),
    "ReadonlyRootfs": ((bool,), False),
    "SecurityOpt": ((list,), None),
    "StorageOpt": ((dict,), None),
    "Sysctls": ((dict,), None),
    "Tmpfs": ((dict,), None),
    "UTSMode": ((str,), ""),
    "UsernsMode": ((str,), ""),
    "ShmSize": ((int,), 67108864),
    "Runtime": ((str,), "runc"),
    "Isolation": ((str,), ""),
    "CpuShares": ((int,), 0),
    "Memory": ((int,), 0),
    "NanoCpus": ((int,), 0),
    "CgroupParent": ((str,), ""),
    "BlkioWeight": ((int,), 0),
    "BlkioWeightDevice": ((list,), []),
    "BlkioDeviceReadBps": ((list,), []),
    "BlkioDeviceWriteBps": ((list,), []),
    "BlkioDeviceReadIOps": ((list,), []),
    "BlkioDeviceWriteIOps": ((list,), []),
    "CpuPeriod": ((int,), 0),
    "CpuQuota": ((int,), 0),
    "CpuRealtimePeriod": ((int,), 0),
    "CpuRealtimeRuntime": ((int,), 0),
    "CpusetCpus": ((str,), ""),
    "CpusetMems": ((str,), ""),
    "Devices": ((list,), []),
    "DeviceCgroupRules": ((list,), None),
    "DeviceRequests": ((list,), None),
    "MemoryReservation": ((int,), 0),
    "MemorySwap": ((int,), 0),
    "MemorySwappiness": ((int,), None),
    "OomKillDisable": ((bool,), None),
    "Init": ((bool,), None),
    "PidsLimit": ((int,), None),
    "Ulimits": ((list,), None),
    "CpuCount": ((int,), 0),
    "CpuPercent": ((int,), 0),
    "IOMaximumIOps": ((int,), 0),
    "IOMaximumBandwidth": ((int,), 0),
    "MaskedPaths": ((list,), MASKED_PATHS),
    "ReadonlyPaths": ((list,), READONLY_PATHS),
    "Annotations": ((dict,), None),
}

# Lists of these fields hold strings only.
_STRING_LISTS = frozenset(
    (
        *("Env", "Cmd", "Entrypoint", "OnBuild", "Shell", "Binds", "VolumesFrom", "CapAdd", "CapDrop"),
        *("Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd", "Links", "SecurityOpt"),
        *("DeviceCgroupRules", "MaskedPaths", "ReadonlyPaths"),
    )
)
_OBJECT_LISTS = frozenset(
    (
        *("Mounts", "Devices", "DeviceRequests", "Ulimits", "BlkioWeightDevice", "BlkioDeviceReadBps"),
        *("BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"),
    )
)
_STRING_MAPS = frozenset(("Labels", "Sysctls", "Tmpfs", "StorageOpt", "Annotations", "Config"))
_JSON_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number"}

_INT64 = 1 << 63


def complete(given: Json | None, fields: dict[str, tuple[tuple[type, ...], Any]], part: str) -> Json:
    """Every field of `fields`, as given or by default; raises InvalidParameter for a wrong JSON type.

    Unknown fields are passed over, as Docker does with those of newer clients.
    """
    if given is not None and not isinstance(given, dict):
        raise InvalidParameter(f"invalid JSON: {part} must be an object")
    completed = {}
    for name, (types, default) in fields.items():
        value = (given or {}).get(name)
        if value is None:
            completed[name] = copy.copy(default)
        else:
            completed[name] = _checked(value, types, f"{part}.{name}", name)
    return completed


def _checked(value: Any, types: tuple[type, ...], where: str, name: str) -> Any:
    # bool is a subclass of int: `"Memory": true` must not pass for 1.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        wanted = " or ".join(_JSON_NAMES[kind] for kind in types)
        given = _JSON_NAMES.get(type(value), "number")
        raise InvalidParameter(f"invalid JSON: cannot use a {given} as the {wanted} {where}")
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise InvalidParameter(f"invalid JSON: {where} is out of the range of a 64-bit number")
    if name in _STRING_LISTS and isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise InvalidParameter(f"invalid JSON: {where} must hold strings only")
        if any("\0" in item for item in value):
            raise InvalidParameter(f"invalid JSON: {where} holds a NUL character")
    if name in _OBJECT_LISTS and not all(isinstance(item, dict) for item in value):
        raise InvalidParameter(f"invalid JSON: {where} must hold objects")
    if name in _STRING_MAPS and not all(isinstance(item, str) for item in value.values()):
        raise InvalidParameter(f"invalid JSON: {where} must map strings to strings")
    return value


def merge_config(given: Json, image_config: Json) -> Json:
    """The container's Config: what the client gave, on top of what the image says (as `docker run`)."""
    config = complete(given, CONFIG_FIELDS, "Config")
    for name in ("Cmd", "Entrypoint"):
        if isinstance(config[name], str):
            config[name] = [config[name]]
    image = {name: image_config.get(name) for name in CONFIG_FIELDS}
    if config["Entrypoint"] is None:
        # An entrypoint of the user's own also sets the image's Cmd aside.
        config["Cmd"] = config["Cmd"] or image["Cmd"]
        config["Entrypoint"] = image["Entrypoint"]
    elif config["Entrypoint"] in ([], [""]):
        config["Entrypoint"] = None
    for name in ("User", "WorkingDir", "StopSignal", "Shell", "StopTimeout"):
        config[name] = config[name] or image[name] or config[name]
    for name in ("ExposedPorts", "Volumes", "Labels"):
        if image[name] or config[name]:
            config[name] = {**(image[name] or {}), **(config[name] or {})}
    config["Labels"] = config["Labels"] or {}
    healthcheck.check(config["Healthcheck"])
    config["Healthcheck"] = healthcheck.merge(config["Healthcheck"], image["Healthcheck"])
    config["Env"] = merge_environment(image["Env"] or [], config["Env"] or [])
    config["OnBuild"] = config["OnBuild"] or image["OnBuild"]
    _check_config(config)
    return {
        name: value
        for name, value in config.items()
        if value is not None
        or CONFIG_FIELDS[name][1] is not None
        or name in ("Env", "Cmd", "Volumes", "Entrypoint", "OnBuild")
    }


def merge_environment(base: list[str], given: list[str]) -> list[str]:
    """`given` on top of `base`; a name without `=` takes the variable out, as Docker does."""
    merged: dict[str, str | None] = {}
    for entry in [*base, *given]:
        name, separator, _ = entry.partition("=")
        if not name:
            raise InvalidParameter(f"invalid environment variable: {entry}")
        if separator:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return [entry for entry in merged.values() if entry is not None]


def _check_config(config: Json) -> None:
    if not config["Cmd"] and not config["Entrypoint"]:
        raise InvalidParameter("no command specified")
    workdir = config["WorkingDir"]
    if workdir and not workdir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{workdir}' is invalid, it needs to be an absolute path"
        )
    if config["StopSignal"]:
        parse_signal(config["StopSignal"])
    for name in ("Hostname", "Domainname"):
        # They become words of files in /etc; what else they may be is the kernel's affair (sethostname(2)).
        if len(config[name].encode()) > 64 or re.search(r"[\s\0]", config[name]):
            raise InvalidParameter(f"invalid {name.lower()} format: {config[name]}")


def complete_host_config(given: Json | None) -> Json:
    """The whole HostConfig, not yet checked against this machine (`limits`) or in itself (`modes`)."""
    host = complete(given, HOST_CONFIG_FIELDS, "HostConfig")
    if host["NetworkMode"] in ("", "default"):
        host["NetworkMode"] = "bridge"
    host["LogConfig"] = _log_config(host["LogConfig"])
    host["ShmSize"] = host["ShmSize"] or 67108864
    host["IpcMode"] = host["IpcMode"] or "private"
    host["CgroupnsMode"] = host["CgroupnsMode"] or "private"
    host["Runtime"] = host["Runtime"] or "runc"
    if host["PidsLimit"] is not None and host["PidsLimit"] <= 0:
        host["PidsLimit"] = None
    if host["Privileged"]:
        host["MaskedPaths"] = host["ReadonlyPaths"] = None
    if host["Memory"] > 0 and not host["MemorySwap"]:
        host["MemorySwap"] = 2 * host["Memory"]
    return host


def _log_config(given: Json) -> Json:
    driver, options = given.get("Type") or "json-file", given.get("Config") or {}
    _checked(driver, (str,), "HostConfig.LogConfig.Type", "Type")
    _checked(options, (dict,), "HostConfig.LogConfig.Config", "Config")
    return {"Type": driver, "Config": options}


def parse_signal(text: str) -> int:
    """`9`, `KILL` or `SIGKILL` as a number; raises InvalidParameter in Docker's words."""
    if text.isdigit() and 0 < int(text) <= 64:
        return int(text)
    name = text.upper().removeprefix("SIG")
    if name in _REALTIME:
        return _REALTIME[name]
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise InvalidParameter(f"Invalid signal: {text}") from None


_REALTIME = {f"RTMIN+{n}": signal.SIGRTMIN + n for n in range(1, 16)} | {
    f"RTMAX-{n}": signal.SIGRTMAX - n for n in range(1, 15)
}
