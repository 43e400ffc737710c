"""An OCI runtime configuration: its default, and whether this machine can honour one (runtime-spec 1.2).

A config is a plain JSON dict (types in `spec.py`). The rule of `validate`: what can't be honoured here is an
error that names the field, never a thing silently left out. Two exceptions are the specification's own: an
unknown field is ignored, and a capability unknown to the kernel is a warning, by who starts the process.
"""

import os
import re
import resource
from collections.abc import Mapping
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import devices, seccomp
from dockmagic_runtime.kernel.namespaces import KINDS, PROC_NAMES
from dockmagic_runtime.oci.shape import check
from dockmagic_runtime.oci.spec import (
    VERSION,
    Hook,
    Hooks,
    IDMapping,
    Linux,
    LinuxCapabilities,
    LinuxDevice,
    LinuxDeviceCgroup,
    LinuxNamespace,
    LinuxResources,
    LinuxSeccomp,
    LinuxSyscall,
    Mount,
    POSIXRlimit,
    Process,
    Root,
    Spec,
    State,
    User,
)

__all__ = [
    "MASKED_PATHS",
    "READONLY_PATHS",
    "RLIMITS",
    "VERSION",
    "Hook",
    "Hooks",
    "IDMapping",
    "Linux",
    "LinuxCapabilities",
    "LinuxDevice",
    "LinuxDeviceCgroup",
    "LinuxNamespace",
    "LinuxResources",
    "LinuxSeccomp",
    "LinuxSyscall",
    "Mount",
    "POSIXRlimit",
    "Process",
    "Root",
    "Spec",
    "State",
    "User",
    "default_mounts",
    "default_spec",
    "validate",
    "validate_process",
]

RLIMITS = tuple(
    sorted(name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE")
)

MASKED_PATHS = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_IPC_SYSCTLS = {
    *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"),
    *("kernel.shmmni", "kernel.shm_rmid_forced"),
}


def default_spec() -> Spec:
    """What `dockmagic-runtime spec` writes: a shell in `rootfs`, as confined as a usual container."""
    kept = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": kept, "effective": kept, "permitted": kept},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "dockmagic",
        "mounts": default_mounts(),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"},
                {"type": "network"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "cgroup"},
            ],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }


def default_mounts() -> list[Mount]:
    """The file systems that every container expects, in the order in which they can be mounted."""
    plain = ["nosuid", "noexec", "nodev"]
    shm = [*plain, "mode=1777", "size=65536k"]
    return [
        _mount("/proc", "proc", "proc", []),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/dev/shm", "tmpfs", "shm", shm),
        _mount("/dev/mqueue", "mqueue", "mqueue", plain),
        _mount("/sys", "sysfs", "sysfs", [*plain, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*plain, "relatime", "ro"]),
    ]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> Mount:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def validate(config: Mapping[str, Any], *, root_required: bool = True) -> None:
    """Raise InvalidParameter, one line that begins with the field, for what is wrong or can't be honoured.

    `root_required` is False where the root file system is given beside the config.
    """
    check(config, Spec)
    _validate_version(config["ociVersion"])
    for platform in ("solaris", "windows", "vm", "zos"):
        if config.get(platform) is not None:
            raise InvalidParameter(f"{platform}: not supported, this runtime is for Linux containers")
    if root_required and not (config.get("root") or {}).get("path"):
        raise InvalidParameter("root.path: required, and missing")
    linux = config.get("linux") or {}
    kinds = _validate_namespaces(linux)
    if not config.get("process"):
        raise InvalidParameter("process: required, and missing")
    validate_process(config["process"])
    for name in ("hostname", "domainname"):
        if config.get(name) and "uts" not in kinds:
            raise InvalidParameter(f"{name}: needs a uts namespace")
        if len(config.get(name) or "") > 64:
            raise InvalidParameter(f"{name}: longer than 64 characters")
    for index, mount in enumerate(config.get("mounts") or ()):
        _validate_mount(mount, f"mounts[{index}]", kinds)
    for name, hooks in (config.get("hooks") or {}).items():
        for index, hook in enumerate(hooks or ()):
            _absolute(hook["path"], f"hooks.{name}[{index}].path")
    if "" in (config.get("annotations") or {}):
        raise InvalidParameter("annotations: a key is empty")
    _validate_linux(linux, kinds)


def validate_process(process: Mapping[str, Any]) -> None:
    """The part of `validate` that is about a process, which `exec` starts by itself."""
    check(process, Process, "process")
    if not process.get("args"):
        raise InvalidParameter("process.args: required, and missing")
    if process.get("commandLine"):
        raise InvalidParameter("process.commandLine: is for Windows only")
    _absolute(process["cwd"], "process.cwd")
    for name in ("args", "env"):
        if any("\0" in text for text in process.get(name) or ()):
            raise InvalidParameter(f"process.{name}: a NUL character can't be passed to a program")
    if (process.get("user") or {}).get("username"):
        raise InvalidParameter("process.user.username: is for Windows only")
    if process.get("apparmorProfile") not in (None, "", "unconfined"):
        _needs_module("process.apparmorProfile", "AppArmor", "/sys/module/apparmor/parameters/enabled")
    if process.get("selinuxLabel"):
        _needs_module("process.selinuxLabel", "SELinux", "/sys/fs/selinux/enforce")
    _validate_rlimits(process.get("rlimits") or ())
    scheduler = process.get("scheduler") or {}
    if scheduler.get("priority") and scheduler["policy"] not in ("SCHED_FIFO", "SCHED_RR"):
        raise InvalidParameter("process.scheduler.priority: is for SCHED_FIFO and SCHED_RR only")
    if (
        any(scheduler.get(k) for k in ("runtime", "deadline", "period"))
        and scheduler["policy"] != "SCHED_DEADLINE"
    ):
        raise InvalidParameter("process.scheduler: runtime, deadline and period are for SCHED_DEADLINE only")


def _validate_version(version: str) -> None:
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", version):
        raise InvalidParameter(f"ociVersion: {version!r} is not a semantic version")
    if not version.startswith("1."):
        raise InvalidParameter(f"ociVersion: {version} is not supported, 1.0.0 to {VERSION} are")


def _validate_namespaces(linux: Mapping[str, Any]) -> dict[str, str]:
    """Kind -> path ("" for a new one)."""
    kinds: dict[str, str] = {}
    for index, namespace in enumerate(linux.get("namespaces") or ()):
        kind, path, where = namespace["type"], namespace.get("path") or "", f"linux.namespaces[{index}]"
        if kind in kinds:
            raise InvalidParameter(f"{where}.type: a second {kind} namespace")
        if kind not in KINDS or not os.path.exists(f"/proc/self/ns/{PROC_NAMES[kind]}"):  # noqa: PTH110
            raise InvalidParameter(f"{where}.type: this kernel has no {kind} namespaces")
        if path:
            _absolute(path, f"{where}.path")
        kinds[kind] = path
    if "mount" not in kinds:
        raise InvalidParameter("linux.namespaces: a mount namespace is needed")
    new_user = kinds.get("user") == ""
    for name in ("uidMappings", "gidMappings"):
        if linux.get(name) and not new_user:
            raise InvalidParameter(f"linux.{name}: needs a new user namespace")
        if new_user and not linux.get(name):
            raise InvalidParameter(f"linux.{name}: required for a new user namespace, and missing")
    if linux.get("timeOffsets") and kinds.get("time") != "":
        raise InvalidParameter("linux.timeOffsets: needs a new time namespace")
    return kinds


def _validate_mount(mount: Mapping[str, Any], where: str, kinds: Mapping[str, str]) -> None:
    if not mount["destination"] or "\0" in mount["destination"]:
        raise InvalidParameter(f"{where}.destination: {mount['destination']!r} is no path")
    bind = mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options") or ())
    if bind and not mount.get("source"):
        raise InvalidParameter(f"{where}.source: required for a bind mount, and missing")
    if not bind and not mount.get("type") and "remount" not in (mount.get("options") or ()):
        raise InvalidParameter(f"{where}.type: required, and missing")
    if mount.get("uidMappings") or mount.get("gidMappings"):
        raise InvalidParameter(f"{where}: id-mapped mounts are not supported")
    if mount.get("type") == "mqueue" and "ipc" not in kinds:
        raise InvalidParameter(f"{where}: mqueue needs an ipc namespace")


def _validate_linux(linux: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    for name in ("intelRdt", "netDevices", "memoryPolicy"):
        if linux.get(name):
            raise InvalidParameter(f"linux.{name}: not supported")
    if linux.get("mountLabel"):
        _needs_module("linux.mountLabel", "SELinux", "/sys/fs/selinux/enforce")
    for name in ("maskedPaths", "readonlyPaths"):
        for index, path in enumerate(linux.get(name) or ()):
            _absolute(path, f"linux.{name}[{index}]")
    if ".." in (linux.get("cgroupsPath") or "").split("/"):
        raise InvalidParameter(f"linux.cgroupsPath: {linux['cgroupsPath']!r} goes upwards")
    if (linux.get("personality") or {}).get("flags"):
        raise InvalidParameter("linux.personality.flags: none are supported")
    for index, device in enumerate(linux.get("devices") or ()):
        _absolute(device["path"], f"linux.devices[{index}].path")
        if device["type"] != "p" and (device.get("major") is None or device.get("minor") is None):
            raise InvalidParameter(f"linux.devices[{index}]: major and minor are required")
    for name in linux.get("sysctl") or ():
        _validate_sysctl(name, kinds)
    resources = linux.get("resources") or {}
    devices.v1_lines(resources.get("devices") or ())
    memory = resources.get("memory") or {}
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if 0 < swap < limit or (swap > 0 and limit < 0):
        raise InvalidParameter(f"linux.resources.memory.swap: {swap} is less than the memory limit, {limit}")
    if (pids := resources.get("pids")) is not None and pids.get("limit") is None:
        raise InvalidParameter("linux.resources.pids.limit: required, and missing")
    if linux.get("seccomp"):
        _validate_seccomp(linux["seccomp"])


def _validate_sysctl(name: str, kinds: Mapping[str, str]) -> None:
    key = name.replace("/", ".")
    if key in ("kernel.hostname", "kernel.domainname"):
        field = key.partition(".")[2]
        if field == "hostname" or "uts" not in kinds:
            raise InvalidParameter(f'linux.sysctl: "{name}" is what the field {field} is for')
        return
    if key.startswith("net."):
        needed = "network"
    elif key in _IPC_SYSCTLS or key.startswith("fs.mqueue."):
        needed = "ipc"
    else:
        raise InvalidParameter(f'linux.sysctl: "{name}" belongs to no namespace, it would change the host')
    if needed not in kinds:
        raise InvalidParameter(f'linux.sysctl: "{name}" needs a {needed} namespace')


def _validate_rlimits(rlimits: Any) -> None:
    seen = set()
    for index, limit in enumerate(rlimits):
        where = f"process.rlimits[{index}]"
        if limit["type"] not in RLIMITS:
            raise InvalidParameter(f"{where}.type: {limit['type']!r} is no resource limit")
        if limit["type"] in seen:
            raise InvalidParameter(f"{where}.type: {limit['type']} is there twice")
        if limit["soft"] > limit["hard"]:
            raise InvalidParameter(f"{where}.soft: {limit['soft']} is above the hard limit, {limit['hard']}")
        seen.add(limit["type"])


def _validate_seccomp(profile: Mapping[str, Any]) -> None:
    seccomp.flags(profile)
    for name in ("listenerPath", "listenerMetadata"):
        if profile.get(name):
            raise InvalidParameter(f"linux.seccomp.{name}: notify listeners are not supported")
    rules = [("defaultAction", profile["defaultAction"])]
    for index, rule in enumerate(profile.get("syscalls") or ()):
        rules.append((f"syscalls[{index}].action", rule["action"]))
        for argument in rule.get("args") or ():
            if argument["op"] not in seccomp.OPERATORS:
                raise InvalidParameter(
                    f"linux.seccomp.syscalls[{index}].args: {argument['op']!r} is no operator"
                )
    for where, action in rules:
        if action == "SCMP_ACT_NOTIFY":
            raise InvalidParameter(f"linux.seccomp.{where}: SCMP_ACT_NOTIFY is not supported")
        if action not in seccomp.ACTIONS:
            raise InvalidParameter(f"linux.seccomp.{where}: {action!r} is no action")
    for architecture in profile.get("architectures") or ():
        if architecture not in seccomp.ARCHITECTURES:
            raise InvalidParameter(f"linux.seccomp.architectures: {architecture!r} is no architecture")


def _needs_module(field: str, module: str, proof: str) -> None:
    """Security modules are not driven by this runtime; say which of the two reasons it is."""
    reason = "is not supported" if os.path.exists(proof) else "is not active in this kernel"  # noqa: PTH110
    raise InvalidParameter(f"{field}: {module} {reason}")


def _absolute(path: str, field: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise InvalidParameter(f"{field}: {path!r} is not an absolute path")
