"""What this runtime can do on this machine: the "features" document of the OCI runtime specification."""

from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import EngineError
from dockmagic_runtime.kernel import capabilities, cgroups, seccomp
from dockmagic_runtime.kernel.namespaces import KINDS, PROC_NAMES
from dockmagic_runtime.oci.spec import VERSION
from dockmagic_runtime.process.mountoptions import Options

_MOUNT_OPTIONS = (
    *("async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "lazytime", "loud", "mand"),
    *("noatime", "nodev", "nodiratime", "noexec", "nolazytime", "nomand", "norelatime", "nostrictatime"),
    *("nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime", "remount"),
    *("rexec", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime", "rnostrictatime", "rnosuid"),
    *("rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave", "rstrictatime"),
    *("rsuid", "rsymfollow", "runbindable", "rw", "shared", "silent", "slave", "strictatime", "suid"),
    *("symfollow", "sync", "tmpcopyup", "unbindable", "idmap", "ridmap"),
)
"""Every option that the specification gives a meaning; those that we understand are in the document."""

_KERNEL_OPTIONS = {"async", "dirsync", "lazytime", "mand", "nolazytime", "nomand", "sync"}
"""Handed through to fsconfig(2), which knows these for every file system."""


def document() -> dict[str, Any]:
    layout = cgroups.layout()
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": sorted(option for option in _MOUNT_OPTIONS if _understands(option)),
        "linux": {
            "namespaces": sorted(
                kind for kind in KINDS if Path(f"/proc/self/ns/{PROC_NAMES[kind]}").exists()
            ),
            "capabilities": capabilities.names(capabilities.every()),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": False,
                "systemdUser": False,
                "rdma": "rdma" in layout.controllers,
            },
            "seccomp": _seccomp(),
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
            "netDevices": {"enabled": False},
        },
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _understands(option: str) -> bool:
    """True if the option means something to the runtime itself and isn't handed to the file system."""
    try:
        parsed = Options({"destination": "/x", "type": "tmpfs", "options": [option]})
    except EngineError:
        return False
    return option in _KERNEL_OPTIONS or not parsed.data


def _seccomp() -> dict[str, Any]:
    try:
        seccomp.library()
    except EngineError:
        return {"enabled": False}
    return {
        "enabled": True,
        "actions": sorted(seccomp.ACTIONS),
        "operators": sorted(seccomp.OPERATORS),
        "archs": sorted(seccomp.ARCHITECTURES),
        "knownFlags": sorted(seccomp.FLAGS),
        "supportedFlags": sorted(seccomp.FLAGS),
    }
