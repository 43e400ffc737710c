"""From an OCI config to a process that stands before its `exec`: the parent's side of a container's start.

The child's side is `init.py`. The two talk over a socketpair; the child says, in this order:

    unmapped           it is in a new user namespace; waits for `mapped`
    console (fd)       the master of its new terminal; before, it waited for `grouped`: its group is there
    mounted            its namespaces and mounts are made, and hooks are to run; waits for `proceed`
    ready              all is done but the exec; with a gate it waits there for the gate's byte
    warning            at any time: something was left out that may be (an rlimit that can't be raised)
    failed             it could not; or the exec itself failed
    (end of file)      after `ready`: the program runs. Before: it was killed

Both the shim and the OCI runtime command start containers through `create`.
"""

import contextlib
import os
import re
import select
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime.kernel import capabilities, namespaces
from dockmagic_runtime.kernel import seccomp as seccomp_filters
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.kernel.pidfd import send_signal
from dockmagic_runtime.process import init
from dockmagic_runtime.process.init import Start
from dockmagic_runtime.process.messages import Message, StartFailed, receive_packet, send_packet
from dockmagic_runtime.process.rootfs import Binds
from dockmagic_runtime.storage.overlay import Rootfs

Config = Mapping[str, Any]

_HELD = re.compile(r"/proc/\d+/fd/")

__all__ = ["Created", "StartFailed", "create"]


@dataclass
class Created:
    """A container's first process, our child. The descriptors belong to the caller."""

    pid: int
    pidfd: int
    console: int | None = None
    sibling: bool = False  # it is our parent's child, which will reap it
    root: int | None = None  # the mount of its root, where we made it
    warnings: list[str] = field(default_factory=list)


def create(
    config: Config,
    bundle: Path,
    *,
    rootfs: Rootfs | None = None,
    stdio: tuple[int, int, int] | None = None,
    cgroup: Cgroup | None = None,
    seccomp: bytes | None = None,
    gate: Path | None = None,
    preserve_fds: int = 0,
    no_pivot: bool = False,
    reaper: bool = False,
    die_with_parent: bool = False,
    sibling: bool = False,
    meanwhile: Callable[["Created"], None] | None = None,
    state: Callable[[int], dict[str, Any]] | None = None,
    in_runtime_namespace: Callable[[int], None] | None = None,
) -> Created:
    """Make the container that `config` describes, up to the gate or, without one, until its program runs.

    The caller has one thread. `cgroup` is made here if it isn't there (so pass `Cgroup.open(path)`), and
    `linux.resources` applied to it; None leaves the container in the caller's. On any failure the child is
    dead and reaped; removing the cgroup is always the caller's.

    - `rootfs`: the overlay to mount as the root; None takes `root.path`, relative to `bundle`.
    - `stdio`: descriptors that become 0, 1 and 2; None inherits the caller's. With `process.terminal` it is
      not looked at: a terminal is made in the container and its master is `Created.console`.
    - `seccomp`: the compiled `linux.seccomp`; compiled here when None.
    - `gate`: a FIFO. `create` returns when all is ready; the program is executed when someone writes a byte
      into the FIFO. What fails then goes to the container's stderr, with exit code 126 or 127.
    - `preserve_fds`: descriptors 3 … 3+n-1 stay open in the container.
    - `no_pivot`: move the root onto `/` instead of pivot_root(2), for an initramfs.
    - `reaper`: process 1 is a small one of ours that executes the program as its child, passes signals on and
      collects orphans (`--init`).
    - `die_with_parent`: the container is killed when the process dies whose child it is.
    - `sibling`: the container becomes the child of our own parent (CLONE_PARENT).
    - `meanwhile`: called when the child needs nothing more from us and is still busy.
    - `state`: makes the OCI state document for the hooks that run inside, given the container's pid.
    - `in_runtime_namespace`: called with the pid once namespaces and mounts are there and before the root is
      changed: the place of the `prestart` and `createRuntime` hooks. What it raises aborts the start.

    Raises StartFailed (`exit_code` 127: no such program; 126: not executable; 125: the rest).
    """
    # Opened here: in a user namespace the child has no right to the host's files.
    gate_fd = os.open(gate, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) if gate else None
    start, new = _plan(
        config,
        bundle,
        rootfs=rootfs,
        stdio=stdio,
        cgroup=cgroup,
        seccomp=_filter(config) if seccomp is None else seccomp,
        gate=gate_fd,
        preserve_fds=preserve_fds,
        no_pivot=no_pivot,
        reaper=reaper,
        die_with_parent=die_with_parent,
        asks_before_pivot=in_runtime_namespace is not None or state is not None,
    )
    if config.get("hooks"):
        import dockmagic_runtime.process.hooks  # noqa: F401 - the child can import nothing later

    capabilities.last_cap()  # read where /proc is ours, and remembered
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            pid, pidfd = _clone(start, new | (namespaces.CLONE_PARENT if sibling else 0), ours, theirs)
        created = Created(pid, pidfd, sibling=sibling)
        try:
            if new & namespaces.CLONE_NEWUSER:
                _map_users(created, ours, config["linux"])
            if cgroup is not None:
                _group(cgroup, pid, config, bool(new & namespaces.CLONE_NEWUSER))
            tell(ours, {"step": "grouped"})
            if meanwhile:
                meanwhile(created)
            follow(created, ours, gate is not None, state, in_runtime_namespace, cgroup)
        except BaseException:
            abandon(created)
            raise
        finally:
            for fd in (*(fd for _, fd, _ in start.join), *(start.bind_mounts or ())):
                os.close(fd)
            if gate_fd is not None:
                os.close(gate_fd)
    return created


def _plan(config: Config, bundle: Path, **rest: Any) -> tuple[Start, int]:
    """Sort the namespaces: those that the clone makes, and those that exist and are joined, in order."""
    join = namespaces_by_path(config)
    new = 0
    for entry in (config.get("linux") or {}).get("namespaces") or ():
        if not entry.get("path"):
            new |= namespaces.KINDS[entry["type"]]
    binds = _held_binds(config, bundle)
    return Start(config=config, bundle=str(bundle), new=new, join=join, bind_mounts=binds, **rest), new


def _held_binds(config: Config, bundle: Path) -> list[int] | None:
    """All binds, copied already, if a source is what some process holds open: that lies in our own mount
    namespace, and from within another the kernel copies none of it."""
    entries = config.get("mounts") or ()
    if not any(_HELD.match(entry.get("source") or "") for entry in entries):
        return None
    try:
        return Binds(entries, str(bundle)).all()
    except OSError as error:
        raise StartFailed(f"{error.filename or 'mount'}: {error.strerror}") from None


def namespaces_by_path(config: Config) -> list[tuple[str, int, int]]:
    """The namespaces that are to be joined, opened, in the order that works: (path, descriptor, flag)."""
    entries = {
        entry["type"]: entry.get("path") for entry in (config.get("linux") or {}).get("namespaces") or ()
    }
    opened = []
    for kind, flag in namespaces.KINDS.items():
        path = entries.get(kind)
        if not path:
            continue
        if kind == "user":
            raise StartFailed("linux.namespaces: joining a user namespace by path is not supported")
        try:
            opened.append((path, os.open(path, os.O_RDONLY | os.O_CLOEXEC), flag))
        except OSError as error:
            raise StartFailed(f"namespace {kind}: open {path}: {os.strerror(error.errno or 0)}") from None
    return opened


def _filter(config: Config) -> bytes | None:
    profile = (config.get("linux") or {}).get("seccomp")
    return seccomp_filters.compile(profile) if profile else None


def _clone(start: Start, new: int, ours: socket.socket, theirs: socket.socket) -> tuple[int, int]:
    """Fork the child into its namespaces.

    pid and time namespaces count for children only, so to have the child in an existing one we go there
    ourselves, for as long as the clone takes. The cgroup namespace comes when the child is in its group.
    """
    group = None
    if start.cgroup is not None and start.cgroup.layout.unified:
        start.cgroup = Cgroup.create(start.cgroup.path)
        if not new & namespaces.CLONE_NEWUSER:
            group = start.cgroup.directory_fd()
    back: list[tuple[int, int]] = []
    for_children = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWTIME
    try:
        for path, fd, flag in [entry for entry in start.join if entry[2] & for_children]:
            back.append((os.open(f"/proc/self/ns/{_PROC_NAME[flag]}", os.O_RDONLY | os.O_CLOEXEC), flag))
            namespaces.setns(fd, flag, path)
        if new & namespaces.CLONE_NEWTIME:
            back.append((os.open("/proc/self/ns/time", os.O_RDONLY | os.O_CLOEXEC), namespaces.CLONE_NEWTIME))
            namespaces.unshare(namespaces.CLONE_NEWTIME)
            _set_clocks((start.config.get("linux") or {}).get("timeOffsets") or {})
        flags = new & ~(namespaces.CLONE_NEWTIME | namespaces.CLONE_NEWCGROUP)
        parent = os.getpid()
        pid, pidfd = namespaces.clone(flags, group)
        if pid == 0:
            ours.close()
            start.join = [entry for entry in start.join if not entry[2] & for_children]
            init.run(start, theirs)
        assert os.getpid() == parent
        return pid, pidfd
    finally:
        for fd, flag in reversed(back):
            namespaces.setns(fd, flag)
            os.close(fd)
        if group is not None:
            os.close(group)


_PROC_NAME = {namespaces.CLONE_NEWPID: "pid", namespaces.CLONE_NEWTIME: "time"}


def _set_clocks(offsets: Mapping[str, Mapping[str, int]]) -> None:
    for clock, offset in offsets.items():
        with open("/proc/self/timens_offsets", "w") as file:  # noqa: PTH123
            file.write(f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n")


def _map_users(created: Created, channel: socket.socket, linux: Mapping[str, Any]) -> None:
    message, _ = receive_packet(channel)
    if message is None or message["step"] != "unmapped":
        raise StartFailed(message["message"] if message else "the container's first process was killed")
    for name, key in (("uid_map", "uidMappings"), ("gid_map", "gidMappings")):
        lines = [f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in linux.get(key) or ()]
        with open(f"/proc/{created.pid}/{name}", "w") as file:  # noqa: PTH123
            file.write("".join(lines))
    tell(channel, {"step": "mapped"})


def _group(cgroup: Cgroup, pid: int, config: Config, in_user_namespace: bool) -> None:
    """Make the group and set its limits, while the child makes its mounts. It then moves itself in."""
    if not cgroup.layout.unified:
        Cgroup.create(cgroup.path)
    if in_user_namespace:
        cgroup.add(pid)  # it has no right to that itself
    limit(cgroup, config)


def limit(cgroup: Cgroup, config: Config) -> None:
    """Set the limits that `linux.resources` names."""
    resources = (config.get("linux") or {}).get("resources") or {}
    if resources.get("devices"):
        # The nodes that every container has must work in it, whatever the config's rules say.
        resources = {**resources, "devices": [*resources["devices"], *_DEFAULT_RULES]}
    cgroup.apply(resources)


_DEFAULT_RULES = [
    {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
    for kind, major, minor, access in (
        ("c", -1, -1, "m"),
        ("b", -1, -1, "m"),
        *(("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),
        *(("c", 5, minor, "rwm") for minor in (0, 1, 2)),
        ("c", 136, -1, "rwm"),
    )
]


def tell(channel: socket.socket, message: Message, descriptors: list[int] | None = None) -> None:
    # When it has ended already, what it said before that is still to be read.
    with contextlib.suppress(BrokenPipeError):
        send_packet(channel, message, descriptors)


def follow(
    created: Created,
    channel: socket.socket,
    gated: bool = False,
    state: Callable[[int], dict[str, Any]] | None = None,
    in_runtime_namespace: Callable[[int], None] | None = None,
    cgroup: Cgroup | None = None,
) -> None:
    """Listen to the child until it is ready (with a gate) or runs its program."""
    ready = False
    while True:
        try:
            message, descriptors = receive_packet(channel)
        except TimeoutError:
            raise StartFailed(
                "the process did not get as far as its program; is the container frozen?"
            ) from None
        if message is None:
            if ready:
                return
            if cgroup is not None and cgroup.oom_kills():
                raise StartFailed("container init was OOM-killed (memory limit too low?)")
            raise StartFailed("the container's first process was killed before it could start the program")
        match message["step"]:
            case "mounted":
                if in_runtime_namespace:
                    in_runtime_namespace(created.pid)
                tell(channel, {"step": "proceed", "state": state(created.pid) if state else None})
            case "console":
                created.console = descriptors[0]
            case "warning":
                created.warnings.append(message["text"])
            case "ready":
                ready = True
                if gated:
                    return
            case "failed":
                raise StartFailed(message["message"], message["code"])


def abandon(created: Created) -> None:
    """Kill and reap a child that came to nothing; its descriptors go too."""
    with contextlib.suppress(ProcessLookupError):
        send_signal(created.pidfd, signal.SIGKILL)
    if created.sibling:
        gone = select.poll()
        gone.register(created.pidfd, select.POLLIN)
        gone.poll()
    else:
        os.waitpid(created.pid, 0)
    os.close(created.pidfd)
    if created.console is not None:
        os.close(created.console)
