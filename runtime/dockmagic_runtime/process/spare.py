"""A container's first process, made before anybody asked for the container.

Most containers are like the one before: the same new namespaces, the same mounts of the kernel's file
systems, a group beside the last one's. All of that is half of what a start costs, and none of it needs the
request. So a spare is cloned into its namespaces, moved into a group, has those mounts made (detached, by
their config entries) and waits. When a request fits, the group is renamed, the spare gets config and
descriptors, and goes on in `init.py` exactly where any other first process is.

What depends on the host's files at the moment of the start (the overlay, bind mounts, namespaces by path)
is opened by the starter, which sees the host as it is now, and passed by descriptor: a spare's own view of
it may be old.

Only where cgroup v1 is in use: there a group can be renamed with the process in it. On v2 the start clones
directly into the container's group.
"""

import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from select import POLLIN, poll
from typing import Any, NoReturn

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import capabilities, libc, mounts, namespaces
from dockmagic_runtime.kernel.cgroups import Cgroup, layout
from dockmagic_runtime.process import create, init, interfaces
from dockmagic_runtime.process.create import Created
from dockmagic_runtime.process.init import Start
from dockmagic_runtime.process.messages import Message, StartFailed, receive_packet, send_packet
from dockmagic_runtime.process.mountoptions import Options
from dockmagic_runtime.process.rootfs import Binds, Premade
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs

_CLONED = ("mount", "pid", "ipc", "uts", "network")
_MOST_DESCRIPTORS = 48
_MOST_BYTES = 150_000  # in one message; more than any but an enormous environment needs


def shape(config: Mapping[str, Any]) -> Message | None:
    """What a spare for containers like this one has to know; None if they can't have one."""
    linux = config.get("linux") or {}
    kinds = {entry["type"]: bool(entry.get("path")) for entry in linux.get("namespaces") or ()}
    group = linux.get("cgroupsPath") or ""
    if config.get("hooks") or not group.startswith("/") or kinds.keys() & {"user", "time"}:
        return None
    if len(json.dumps(config)) > _MOST_BYTES:
        return None
    if any(kinds.get(kind, True) for kind in ("mount", "pid", "ipc", "uts", "cgroup")):
        return None
    try:
        own_mounts = [m for m in config.get("mounts") or () if not Options(m).bind]
    except InvalidParameter:
        return None  # the start itself says what is wrong
    return {
        "kinds": sorted(kind for kind, joined in kinds.items() if not joined),
        "group": group.rpartition("/")[0],
        "mounts": own_mounts,
    }


class Spare:
    """The starter's handle on the waiting process."""

    def __init__(self, like: Message, group: Cgroup):
        self._like, self._group = like, group
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        flags = namespaces.CLONE_PARENT
        for kind in like["kinds"]:
            if kind in _CLONED:
                flags |= namespaces.KINDS[kind]
        with theirs:
            self.pid, self._pidfd = namespaces.clone(flags)
            if self.pid == 0:
                self._channel.close()
                _wait(theirs, like, group)

    @classmethod
    def make(cls, like: Message, name: str) -> "Spare | None":
        """A spare for containers of this shape; None where there can be none."""
        if layout().unified:
            return None
        capabilities.last_cap()
        group = Cgroup.create(f"{like['group']}/{name}")
        try:
            return cls(like, group)
        except OSError:
            group.remove()
            raise

    def fits(self, request: Message) -> bool:
        """`request["shape"]` is the `shape` of its config."""
        wanted = request["shape"]
        return (
            wanted is not None
            and wanted["kinds"] == self._like["kinds"]
            and wanted["group"] == self._like["group"]
            and len(request["config"].get("mounts") or ()) < _MOST_DESCRIPTORS
            and self.alive()
        )

    def alive(self) -> bool:
        watch = poll()
        watch.register(self._pidfd, POLLIN)
        return not watch.poll(0)

    def start(
        self,
        request: Message,
        root: Rootfs,
        stdio: tuple[int, int, int] | None,
        program: bytes | None,
        meanwhile: Callable[[Created], None],
    ) -> Created:
        """Let it become the container that `request` describes; as `create.create`."""
        config = request["config"]
        created = Created(self.pid, self._pidfd, sibling=True)
        try:
            descriptors, joined = self._open(config, request["bundle"], root, stdio)
            created.root = descriptors[0]
            message = {
                "step": "start",
                "config": config,
                "bundle": request["bundle"],
                "reaper": request["init"],
                "seccomp": program,
                "stdio": stdio is not None,
                "joined": joined,
            }
            create.tell(self._channel, message, descriptors)
            for fd in descriptors:
                if fd != created.root and (stdio is None or fd not in stdio):
                    os.close(fd)
            self._await_prepared()
            group = self._group
            group.rename(config["linux"]["cgroupsPath"])
            create.limit(group, config)
            create.tell(self._channel, {"step": "grouped"})
            meanwhile(created)
            create.follow(created, self._channel, cgroup=group)
        except BaseException:
            create.abandon(created)
            self._group.remove(kill=True)
            raise
        finally:
            self._channel.close()
        return created

    def _await_prepared(self) -> None:
        """It must be in its group before that gets another name."""
        message, _ = receive_packet(self._channel)
        if message is None:
            raise StartFailed("the container's first process was killed before it could start the program")
        if message["step"] == "failed":
            raise StartFailed(message["message"], message["code"])

    def discard(self) -> None:
        """End it unused; the shim, whose child it is, reaps it."""
        create.abandon(Created(self.pid, self._pidfd, sibling=True))
        self._channel.close()
        self._group.remove(kill=True)

    @staticmethod
    def _open(
        config: Message, bundle: str, root: Rootfs, stdio: tuple[int, int, int] | None
    ) -> tuple[list[int], list[tuple[str, int]]]:
        """Root, binds, stdio and namespaces, in the order in which `_wait` takes them."""
        descriptors = [mount_rootfs(root)]
        descriptors += Binds(config.get("mounts") or (), bundle).all()
        descriptors += stdio or ()
        joined = []
        for entry in create.namespaces_by_path(config):
            path, fd, flag = entry
            descriptors.append(fd)
            joined.append((path, flag))
        return descriptors, joined


def _wait(channel: socket.socket, like: Message, group: Cgroup) -> NoReturn:
    """The spare itself: make what can be made, then wait to be told what to become."""
    try:
        libc.prctl(libc.PR_SET_DUMPABLE, 0)
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        # What the host unmounts must not be kept busy by us.
        mounts.set_propagation("/", mounts.MS_REC | mounts.MS_SLAVE)
        if "network" in like["kinds"]:
            interfaces.bring_up("lo")
        init.join_v1(group)
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)
        premade = Premade(like["mounts"], own_network="network" in like["kinds"])
        send_packet(channel, {"step": "prepared"})
        message, descriptors = receive_packet(channel, _MOST_BYTES * 2)
        if message is None:
            os._exit(0)
        take = iter(descriptors)
        root = next(take)
        binds = [next(take) for entry in message["config"].get("mounts") or () if Options(entry).bind]
        stdio = (next(take), next(take), next(take)) if message["stdio"] else None
        start = Start(
            config=message["config"],
            bundle=message["bundle"],
            new=0,
            join=[(path, next(take), flag) for path, flag in message["joined"]],
            rootfs=None,
            stdio=stdio,
            cgroup=group,
            seccomp=message["seccomp"],
            reaper=message["reaper"],
            die_with_parent=True,
            premade=premade,
            root_mount=root,
            bind_mounts=binds,
        )
        init.run(start, channel)
    finally:
        init.end_after_mistake(channel)
