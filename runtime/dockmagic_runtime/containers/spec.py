"""From a container's record to an OCI runtime configuration: where Docker's settings become the kernel's.

The result is the inner contract (opencontainers/runtime-spec): `process/` executes it and knows nothing of
Docker. The defaults (mounts, devices, capabilities, masked paths) are Docker's, from moby's
`oci/defaults.go`.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockmagic_runtime.containers import propagation
from dockmagic_runtime.containers.accounts import Account
from dockmagic_runtime.containers.mountpoints import oci_mounts
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.containers.security import SecurityOptions, capability_sets, granted_capabilities
from dockmagic_runtime.errors import InvalidParameter, SystemFailure

Json = dict[str, Any]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Surroundings:
    """What the engine prepared for one start: paths of namespaces to join, and the mounts over /etc."""

    account: Account
    cgroup_path: str
    namespaces: dict[
        str, str | None
    ]  # kind -> path to join, None for a new one; a missing kind is the host's
    etc_mounts: list[Json]
    shared_memory: Json | None  # the mount at /dev/shm, without its place
    link_environment: Sequence[str] = ()


def build(container: Container, around: Surroundings) -> Json:
    """The whole OCI configuration of `container`'s next start."""
    host = container.host_config
    for request in host["DeviceRequests"] or []:
        raise SystemFailure(_no_driver(request))
    security = SecurityOptions.parse(host["SecurityOpt"] or [])
    granted = granted_capabilities(host)
    return {
        "ociVersion": "1.2.0",
        "process": process(container, around, granted, security),
        "root": {"path": "rootfs", "readonly": host["ReadonlyRootfs"]},
        **(_own_names(container) if "uts" in around.namespaces else {}),
        "mounts": _mounts(container, around),
        "linux": _linux(container, around, granted, security),
        **({"annotations": host["Annotations"]} if host["Annotations"] else {}),
    }


def _no_driver(request: Json) -> str:
    """Docker's sentence where no driver for `--gpus` is installed: there is none for this engine."""
    wanted = " ".join(f"[{' '.join(words)}]" for words in request.get("Capabilities") or [])
    return f'could not select device driver "{request.get("Driver") or ""}" with capabilities: [{wanted}]'


def hostname(container: Container) -> str:
    return container.config["Hostname"] or container.short_id


def _own_names(container: Container) -> Json:
    domain = container.config.get("Domainname")
    return {"hostname": hostname(container), **({"domainname": domain} if domain else {})}


def host_names(container: Container) -> list[str]:
    """What the container is called in its own /etc/hosts: its full name and its short one."""
    full, domain = hostname(container), container.config.get("Domainname")
    full = f"{full}.{domain}" if domain else full
    return [full, full.partition(".")[0]] if "." in full else [full]


def environment(
    container: Container, account: Account, tty: bool, extra: Sequence[str] = (), links: Sequence[str] = ()
) -> list[str]:
    """PATH, HOSTNAME, TERM, what links say, and HOME, where nobody set them; in Docker's order."""
    given = {entry.partition("=")[0]: entry for entry in (*container.config["Env"], *extra)}
    defaults = [PATH, f"HOSTNAME={hostname(container)}", *(["TERM=xterm"] if tty else []), *links]
    # What replaces a default takes its place.
    replaced = [given.pop(entry.partition("=")[0], entry) for entry in defaults]
    home = [] if "HOME" in given else [f"HOME={account.home}"]
    return [*replaced, *given.values(), *home]


def process(
    container: Container, around: Surroundings, granted: list[str], security: SecurityOptions
) -> Json:
    """The container's own program as an OCI process."""
    host, config = container.host_config, container.config
    tty = config["Tty"]
    size = host["ConsoleSize"] or [0, 0]
    return {
        "terminal": tty,
        **({"consoleSize": {"height": size[0], "width": size[1]}} if tty and any(size) else {}),
        "user": user(around.account),
        "args": container.argv,
        "env": environment(container, around.account, tty, links=around.link_environment),
        "cwd": config["WorkingDir"] or "/",
        "capabilities": capability_sets(granted),
        "rlimits": [_rlimit(limit) for limit in host["Ulimits"] or []],
        "noNewPrivileges": security.no_new_privileges,
        **({"oomScoreAdj": host["OomScoreAdj"]} if host["OomScoreAdj"] else {}),
    }


def user(account: Account) -> Json:
    return {"uid": account.uid, "gid": account.gid, "additionalGids": list(account.groups)}


def _rlimit(limit: Json) -> Json:
    soft, hard = limit.get("Soft", -1), limit.get("Hard", -1)
    if not isinstance(limit.get("Name"), str) or not isinstance(soft, int) or not isinstance(hard, int):
        raise InvalidParameter(f"invalid ulimit: {limit}")
    if hard != -1 and (soft > hard or soft == -1):
        raise InvalidParameter(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    infinity = (1 << 64) - 1
    return {
        "type": f"RLIMIT_{limit['Name'].upper()}",
        "soft": infinity if soft == -1 else soft,
        "hard": infinity if hard == -1 else hard,
    }


def _mounts(container: Container, around: Surroundings) -> list[Json]:
    host = container.host_config
    privileged = host["Privileged"]
    writable = "rw" if privileged else "ro"
    quiet = ["nosuid", "noexec", "nodev"]
    defaults: list[Json] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        {
            "destination": "/dev",
            "type": "tmpfs",
            # By its source it is another one than the one made beforehand, which has a place for shm.
            "source": "tmpfs" if around.shared_memory else "dev",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, writable]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": [*quiet, writable],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        *([{"destination": "/dev/shm", **around.shared_memory}] if around.shared_memory else []),
    ]
    propagation.check(container.mounts)
    own = oci_mounts(container.mounts)
    taken = {mount["destination"] for mount in own}
    return [mount for mount in defaults + around.etc_mounts if mount["destination"] not in taken] + own


def _linux(container: Container, around: Surroundings, granted: list[str], security: SecurityOptions) -> Json:
    host = container.host_config
    privileged = host["Privileged"]
    seccomp = security.filter(granted, privileged=privileged)
    return {
        "cgroupsPath": around.cgroup_path,
        "namespaces": [
            {"type": kind, **({"path": path} if path else {})} for kind, path in around.namespaces.items()
        ],
        "resources": resources(host),
        "devices": _devices(host),
        "maskedPaths": host["MaskedPaths"] or [],
        "readonlyPaths": host["ReadonlyPaths"] or [],
        "sysctl": _sysctls(host, around),
        **({"seccomp": seccomp} if seccomp else {}),
        # Recursively it would also cut off the binds that are to propagate.
        "rootfsPropagation": "private" if propagation.asked(container.mounts) else "rprivate",
    }


def _sysctls(host: Json, around: Surroundings) -> dict[str, str]:
    """Docker lets everybody in a network namespace of its own bind low ports and send pings."""
    own_network = {}
    if "network" in around.namespaces:
        own_network = {
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        }
    return own_network | (host["Sysctls"] or {})


def _device_rule(allow: bool, kind: str, major: int | None, minor: int | None, access: str) -> Json:
    rule: Json = {"allow": allow, "type": kind, "access": access}
    return rule | ({} if major is None else {"major": major}) | ({} if minor is None else {"minor": minor})


_DEVICE_RULES = [
    {"allow": False, "access": "rwm"},
    _device_rule(True, "c", None, None, "m"),
    _device_rule(True, "b", None, None, "m"),
    *(_device_rule(True, "c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),
    *(_device_rule(True, "c", 5, minor, "rwm") for minor in (0, 1, 2)),
    _device_rule(True, "c", 136, None, "rwm"),
]


def resources(host: Json) -> Json:
    """HostConfig's limits as `linux.resources`; only what is set, so that a start writes no file in vain."""
    memory = {
        "limit": host["Memory"],
        "reservation": host["MemoryReservation"],
        "swap": host["MemorySwap"],
        "swappiness": None if host["MemorySwappiness"] in (None, -1) else host["MemorySwappiness"],
        "disableOOMKiller": host["OomKillDisable"],
    }
    memory = {name: value for name, value in memory.items() if value or (value == 0 and name == "swappiness")}
    cpu = {
        "shares": host["CpuShares"],
        "quota": host["NanoCpus"] // 10_000 or host["CpuQuota"],
        "period": 100_000 if host["NanoCpus"] else host["CpuPeriod"],
        "cpus": host["CpusetCpus"],
        "mems": host["CpusetMems"],
        "realtimePeriod": host["CpuRealtimePeriod"],
        "realtimeRuntime": host["CpuRealtimeRuntime"],
    }
    cpu = {name: value for name, value in cpu.items() if value}
    block = _block_io(host)
    found: Json = {"devices": _device_cgroup(host)}
    found |= {"memory": memory} if memory else {}
    found |= {"cpu": cpu} if cpu else {}
    found |= {"blockIO": block} if block else {}
    found |= {"pids": {"limit": host["PidsLimit"]}} if host["PidsLimit"] and host["PidsLimit"] > 0 else {}
    return found


def _block_io(host: Json) -> Json:
    names = {
        "BlkioWeightDevice": "weightDevice",
        "BlkioDeviceReadBps": "throttleReadBpsDevice",
        "BlkioDeviceWriteBps": "throttleWriteBpsDevice",
        "BlkioDeviceReadIOps": "throttleReadIOPSDevice",
        "BlkioDeviceWriteIOps": "throttleWriteIOPSDevice",
    }
    block: Json = {"weight": host["BlkioWeight"]} if host["BlkioWeight"] else {}
    for docker, oci in names.items():
        for entry in host[docker] or []:
            number = Path(entry["Path"]).stat().st_rdev
            amount = {"weight": entry["Weight"]} if "Weight" in entry else {"rate": entry["Rate"]}
            block.setdefault(oci, []).append({"major": os.major(number), "minor": os.minor(number), **amount})
    return block


def _device_cgroup(host: Json) -> list[Json]:
    if host["Privileged"]:
        return [{"allow": True, "access": "rwm"}]
    rules = list(_DEVICE_RULES)
    for device in host["Devices"] or []:
        for node in _nodes(device):
            access = device.get("CgroupPermissions") or "rwm"
            rules.append(_device_rule(True, node["type"], node["major"], node["minor"], access))
    return rules + [_parse_rule(rule) for rule in host["DeviceCgroupRules"] or []]


def _parse_rule(text: str) -> Json:
    """`c 42:* rwm`"""
    try:
        kind, numbers, access = text.split()
        major, minor = (None if number == "*" else int(number) for number in numbers.split(":"))
    except ValueError:
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'") from None
    if kind not in ("a", "b", "c") or not set(access) <= set("rwm"):
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
    return _device_rule(True, kind, major, minor, access)


def _devices(host: Json) -> list[Json]:
    """Nodes to make in /dev beyond the standard ones: those asked for, or all of the host's if privileged."""
    asked = [node for device in host["Devices"] or [] for node in _nodes(device)]
    if not host["Privileged"]:
        return asked
    taken = {node["path"] for node in asked}
    return asked + [node for node in _walk(Path("/dev"), "/dev") if node["path"] not in taken]


def _nodes(device: Json) -> list[Json]:
    source = Path(device.get("PathOnHost") or "")
    target = device.get("PathInContainer") or str(source)
    if not source.is_absolute() or not source.exists():
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{source}": '
            "no such file or directory"
        )
    source = source.resolve()
    if source.is_dir():
        return list(_walk(source, target))
    node = _node(source, target)
    if node is None:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{source}": not a device node'
        )
    return [node]


_STANDARD = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"}


def _walk(directory: Path, target: str) -> list[Json]:
    found: list[Json] = []
    for entry in sorted(directory.iterdir()):
        # These are made afresh in every container, or are other file systems.
        if str(entry) in ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"):
            continue
        if str(directory) == "/dev" and entry.name in _STANDARD:
            continue
        if entry.is_dir() and not entry.is_symlink():
            found += _walk(entry, f"{target}/{entry.name}")
        elif node := _node(entry, f"{target}/{entry.name}"):
            found.append(node)
    return found


def _node(source: Path, target: str) -> Json | None:
    status = source.lstat()
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else None
    if kind is None:
        return None
    return {
        "path": target,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
