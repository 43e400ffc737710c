"""Which namespaces a container shares: with the host (`--pid host`) or with another (`--pid container:X`).

The IPC namespace brings /dev/shm with it. A container whose IPC others may join (`--ipc shareable`) has its
/dev/shm as a mount of the host's, made before its start and removed after its end: a mount that exists only
inside of a container can't be bound into another.

Rules and sentences are Docker's (moby's `adaptSharedNamespaceContainer` and `setupIPCDirs`).
"""

import os
from pathlib import Path
from typing import Any

from dockmagic_runtime.containers.places import Places
from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound
from dockmagic_runtime.kernel import mounts, paths

Json = dict[str, Any]

_MODES = ("", "private", "shareable", "none")


def settle(host: Json, records: Records) -> None:
    """`container:NAME` becomes `container:ID`. Raises InvalidParameter for a PID or IPC of nobody.

    Another container's network is looked for only when it is needed.
    """
    for field in ("NetworkMode", "PidMode", "IpcMode"):
        kind, colon, name = host[field].partition(":")
        if kind == "container" and colon:
            try:
                host[field] = f"container:{records.get(name).id}"
            except NotFound as error:
                if field != "NetworkMode":
                    raise InvalidParameter(str(error)) from None


def namespaces(container: Container, records: Records) -> dict[str, str | None]:
    """All but the network: kind -> path to join, None for a new one; a missing kind is the host's."""
    host = container.host_config
    found: dict[str, str | None] = {"mount": None}
    if host["PidMode"] != "host":
        other = _running(host["PidMode"], records)
        found["pid"] = f"/proc/{other.state.pid}/ns/pid" if other else None
    if host["IpcMode"] != "host":
        other = _ipc_owner(container, records)
        found["ipc"] = f"/proc/{other.state.pid}/ns/ipc" if other else None
    if host["CgroupnsMode"] == "private" and not host["Privileged"]:
        found["cgroup"] = None
    if host["UTSMode"] != "host":
        found["uts"] = None
    return found


def network_owner(container: Container, records: Records) -> Container | None:
    """Whose network it joins, if any; raises Conflict if that one does not run."""
    kind, _, identity = container.network_mode.partition(":")
    if kind != "container":
        return None
    other = records.get(identity)
    if not other.state.running:
        raise Conflict(f"cannot join network of a non running container: {other.id}")
    return other


def _running(mode: str, records: Records) -> Container | None:
    """The container that a mode names; raises Conflict if it does not run."""
    kind, _, identity = mode.partition(":")
    if kind != "container":
        return None
    other = records.get(identity)
    if other.state.status == "restarting":
        raise Conflict(f"Container {other.id} is restarting, wait until the container is running")
    if not other.state.running:
        raise Conflict(f"container {other.id} is not running")
    return other


def _ipc_owner(container: Container, records: Records) -> Container | None:
    mode = container.host_config["IpcMode"]
    kind, _, identity = mode.partition(":")
    if kind != "container":
        if mode not in _MODES:
            raise InvalidParameter(f"invalid IPC mode: {mode}")
        return None
    try:
        other = _running(mode, records)
    except Conflict as error:
        raise Conflict(f"can't join IPC of container {identity}: {error}") from None
    if other and other.host_config["IpcMode"] in _MODES and other.host_config["IpcMode"] != "shareable":
        raise InvalidParameter(
            f"can't join IPC of container {other.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    return other


def shared_memory(container: Container, records: Records, places: Places) -> Json | None:
    """What is mounted at /dev/shm, without its place; None: nothing at all."""
    mode = container.host_config["IpcMode"]
    if mode == "none":
        return None
    if mode == "host":
        return _bound("/dev/shm")
    if mode == "shareable":
        path = places.shared_memory(container)
        _mount(path, container.host_config["ShmSize"])
        return _bound(str(path))
    if other := _ipc_owner(container, records):
        # Its own may be another's, and so on; at the end there is one that is shareable, or the host's.
        return shared_memory(other, records, places) if _borrows(other) else _lent(other, places)
    return own_shared_memory(container)


def own_shared_memory(container: Container) -> Json:
    options = ["nosuid", "noexec", "nodev", "mode=1777", f"size={container.host_config['ShmSize']}"]
    return {"type": "tmpfs", "source": "shm", "options": options}


def _borrows(container: Container) -> bool:
    return container.host_config["IpcMode"].partition(":")[0] in ("container", "host")


def _lent(owner: Container, places: Places) -> Json:
    return _bound(str(places.shared_memory(owner)))


def _bound(path: str) -> Json:
    return {"type": "bind", "source": path, "options": ["rbind", "rprivate"]}


def _mount(path: Path, size: int) -> None:
    _unmount(path)  # what an engine that was killed has left
    path.mkdir(exist_ok=True)
    flags = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC
    mount = mounts.new("tmpfs", [("mode", "1777"), ("size", str(size))], flags, "shm")
    try:
        with paths.opened(path) as target:
            mounts.attach(mount, target)
    finally:
        os.close(mount)


def take_away(container: Container, places: Places) -> None:
    """After its end."""
    if container.host_config["IpcMode"] == "shareable":
        _unmount(places.shared_memory(container))


def _unmount(path: Path) -> None:
    while path.is_mount():
        mounts.umount(str(path), mounts.MNT_DETACH)
