"""Values with a syntax of their own: `--ulimit`, `--device`, `--add-host`, `--env`, `--gpus`…

Each reader takes the word and answers what the Engine API has in its place, or raises ValueError with
Docker's reason (kinds.py puts the sentence around it). References: docker/cli `opts/`, docs.docker.com
`container run`. `--mount` and `--network` are long enough for files of their own: mounts.py, endpoints.py.
"""

import csv
import ipaddress
import os
import re
from typing import Any

from dockmagic.grammar.kinds import Kind, integer, size, unsigned

ULIMITS = frozenset(
    (
        *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc"),
        *("rss", "rtprio", "rttime", "sigpending", "stack"),
    )
)
# Those that belong to an IPC namespace; of other names `net.` and `fs.mqueue.` are a container's own.
SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def fields(text: str) -> list[str]:
    """`a=1,b` taken apart as CSV, as Docker reads it: quotes may hold commas."""
    found = next(csv.reader([text]), [])
    if not found:
        raise ValueError("EOF")
    return found


def halves(text: str) -> tuple[str, str]:
    """`key=value`, the value empty where there is none."""
    key, _, value = text.partition("=")
    return key, value


def environment(text: str) -> str:
    if not text.partition("=")[0]:
        raise ValueError(f"invalid environment variable: {text}")
    return text


def label(text: str) -> str:
    key = text.partition("=")[0]
    if not key.strip():
        raise ValueError(f"invalid label '{text}': empty name")
    if len(key.split()) > 1:
        raise ValueError(f"label '{key}' contains whitespaces")
    return text


def sysctl(text: str) -> str:
    key, equals, _value = text.partition("=")
    if not equals or not (key in SYSCTLS or key.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


def stream(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def link(text: str) -> str:
    if not text or len(text.split(":")) > 2:
        raise ValueError(f"bad format for links: {text}" if text else "empty string specified for links")
    return text


def ulimit(text: str) -> dict[str, Any]:
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    soft, hard = integer(parts[0]), integer(parts[-1])
    if hard != -1 and (soft > hard or soft == -1):
        compared = f"soft: -1 (unlimited), hard: {hard}" if soft == -1 else f"{soft} > {hard}"
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {compared}")
    return {"Name": name, "Soft": soft, "Hard": hard}


def device(text: str) -> dict[str, Any]:
    """`/dev/host[:/dev/inside][:rwm]`"""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise ValueError(f"bad format for path: {text}")
    permissions = "rwm"
    if len(parts) > 1 and set(parts[-1]) <= set("rwm") and parts[-1]:
        permissions = parts.pop()
    elif len(parts) == 3:
        raise ValueError(f"bad mode specified: {parts[-1]}")
    for path in parts:
        if not path.startswith("/"):
            raise ValueError(f"{path} is not an absolute path")
    return {"PathOnHost": parts[0], "PathInContainer": parts[-1], "CgroupPermissions": permissions}


def device_rule(text: str) -> str:
    if not re.fullmatch(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}", text):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def _of_device(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def device_bytes(text: str) -> dict[str, Any]:
    path, rate = _of_device(text)
    try:
        return {"Path": path, "Rate": size(rate)}
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def device_operations(text: str) -> dict[str, Any]:
    path, rate = _of_device(text)
    try:
        return {"Path": path, "Rate": unsigned(rate)}
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        ) from None


def device_weight(text: str) -> dict[str, Any]:
    path, weight = _of_device(text)
    if not weight.isdigit() or not (weight == "0" or 10 <= int(weight) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(weight)}


def extra_host(text: str) -> str:
    """`host:address` or `host=address`; an address of version 6 may stand in brackets."""
    host, separator, where = text.partition("=")
    if not separator:
        host, separator, where = text.partition(":")
    if not separator or not host:
        raise ValueError(f'bad format for add-host: "{text}"')
    bare = where[1:-1] if where.startswith("[") and where.endswith("]") else where
    if bare != "host-gateway":
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            raise ValueError(f'invalid IP address in add-host: "{where}"') from None
    return f"{host}:{bare}"


def gpus(text: str) -> dict[str, Any]:
    """`all`, `2`, `"device=0,1"`, `driver=nvidia,capabilities=utility`: a DeviceRequest."""
    request: dict[str, Any] = {}
    seen: set[str] = set()
    for field in fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", key
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        match key:
            case "count":
                request["Count"] = -1 if value == "all" else _count(value)
            case "device":
                request["DeviceIDs"] = value.split(",")
            case "driver":
                request["Driver"] = value
            case "capabilities":
                request["Capabilities"] = [[*value.split(","), "gpu"]]
            case "options":
                request["Options"] = dict(map(halves, fields(value)))
            case _:
                raise ValueError(f"unexpected key '{key}' in '{field}'")
    if not {"count", "device"} & seen:
        request["Count"] = 1
    return {"Capabilities": [["gpu"]], **request}


def _count(text: str) -> int:
    try:
        return integer(text)
    except ValueError:
        raise ValueError(
            f'invalid count ({text}): value must be either "all" or an integer: invalid syntax'
        ) from None


def resolved(lines: list[str]) -> list[str]:
    """`KEY=value` lines; a bare KEY takes this kernel's value and is left out when it has none."""
    return [
        line if "=" in line else f"{line}={os.environ[line]}"
        for line in lines
        if "=" in line or line in os.environ
    ]


ADDRESS = Kind("ip", address)
ATTACH = Kind("stream", stream)
DEVICE = Kind("device", device)
DEVICE_BYTES = Kind("rate", device_bytes)
DEVICE_OPERATIONS = Kind("rate", device_operations)
DEVICE_RULE = Kind("rule", device_rule)
DEVICE_WEIGHT = Kind("weight", device_weight)
ENVIRONMENT = Kind("list", environment)
EXTRA_HOST = Kind("host:ip", extra_host)
GPUS = Kind("gpu-request", gpus)
LABEL = Kind("list", label)
LINK = Kind("list", link)
PAIR = Kind("key=value", halves)
SYSCTL = Kind("key=value", lambda text: halves(sysctl(text)))
ULIMIT = Kind("ulimit", ulimit)
