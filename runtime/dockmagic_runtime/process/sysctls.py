"""Kernel parameters of a container's own namespaces: `linux.sysctl` of the OCI runtime specification."""

import os
from collections.abc import Mapping

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import mounts, paths
from dockmagic_runtime.kernel.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID


def write(sysctls: Mapping[str, str], own: frozenset[str]) -> None:
    """Set kernel parameters of the container's own namespaces, through a procfs of our own making.

    `own` are the kinds of namespace that are the container's; a parameter of any other is the host's and
    refused with InvalidParameter.
    """
    if not sysctls:
        return
    proc = mounts.new("proc", (), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, "proc")
    for key, value in sysctls.items():
        path = key if "/" in key.split(".", 1)[0] else key.replace(".", "/")
        if not (_namespaces(path) & own):
            raise InvalidParameter(f"sysctl {key} is not in a separate kernel namespace")
        fd = paths.openat2(
            proc, f"sys/{path}", os.O_WRONLY, paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS
        )
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, f"sysctl {key}={value}: {error.strerror}") from None
        finally:
            os.close(fd)
    os.close(proc)


def _namespaces(path: str) -> frozenset[str]:
    if path.startswith("net/"):
        return frozenset(("network",))
    if path.startswith(("kernel/msg", "kernel/shm", "fs/mqueue/")) or path == "kernel/sem":
        return frozenset(("ipc",))
    if path in ("kernel/hostname", "kernel/domainname"):
        return frozenset(("uts",))
    return frozenset()
