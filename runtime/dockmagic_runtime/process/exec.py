"""One more process in a running container: the parent's side (`exec_in`) and the child's.

The child is born in the container's pid namespace (and, on cgroup v2, in its group), moves into the rest, and
gives up power by the same steps as the container's first process. As that it is never dumpable, so that what
already runs in the container can't look into it.
"""

import os
import signal
import socket
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from dockmagic_runtime.errors import EngineError
from dockmagic_runtime.kernel import capabilities, libc, namespaces, paths, pty
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.process import create, execute, init, scheduling
from dockmagic_runtime.process.create import Created
from dockmagic_runtime.process.messages import StartFailed

Process = Mapping[str, Any]

_PATIENCE = 30.0


@dataclass(frozen=True)
class _Order:
    """What the child is to do, as `exec_in` was told; `flags` are the namespaces that it enters itself."""

    process: Process
    pidfd: int
    flags: int
    stdio: tuple[int, int, int] | None
    cgroup: Cgroup | None
    seccomp: bytes | None
    seccomp_flags: int
    preserve_fds: int
    die_with_parent: bool


def exec_in(
    pid: int,
    pidfd: int,
    process: Process,
    kinds: Iterable[str],
    *,
    stdio: tuple[int, int, int] | None = None,
    cgroup: Cgroup | None = None,
    seccomp: bytes | None = None,
    seccomp_flags: int = 0,
    preserve_fds: int = 0,
    die_with_parent: bool = False,
) -> Created:
    """Run `process` (an OCI one) in the container whose first process is `pid`; returns when it was executed.

    `kinds` are the namespaces that are the container's own, in the runtime-spec's names. The caller has one
    thread; the process is its child. The other arguments are as in `create.create`; raises StartFailed
    likewise, also if the process doesn't get to its exec in half a minute (in a frozen container).
    """
    flags = 0
    for kind in kinds:
        if kind != "user" or namespaces.inode(pid, "user") != namespaces.inode("self", "user"):
            flags |= namespaces.KINDS[kind]
    for_children = flags & namespaces.CLONE_NEWPID
    order = _Order(
        process,
        pidfd,
        flags & ~for_children,
        stdio,
        cgroup,
        seccomp,
        seccomp_flags,
        preserve_fds,
        die_with_parent,
    )
    capabilities.last_cap()  # read where /proc is ours, and remembered
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs, _children_in(pidfd, for_children):
            created = _fork(ours, theirs, order)
        ours.settimeout(_PATIENCE)
        try:
            create.follow(created, ours)
        except BaseException:
            create.abandon(created)
            raise
    return created


@contextmanager
def _children_in(pidfd: int, kind: int) -> Iterator[None]:
    """Children made in the block are in the process's namespace of that kind (CLONE_NEWPID; 0: in ours)."""
    if not kind:
        yield
        return
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(pidfd, kind)
        try:
            yield
        finally:
            namespaces.setns(home, kind)
    finally:
        os.close(home)


def _fork(ours: socket.socket, theirs: socket.socket, order: _Order) -> Created:
    group = order.cgroup.directory_fd() if order.cgroup is not None else None
    try:
        child, child_fd = namespaces.clone(0, group)
        if child == 0:
            ours.close()
            _run(theirs, order)
    finally:
        if group is not None:
            os.close(group)
    return Created(child, child_fd)


def _run(channel: socket.socket, order: _Order) -> NoReturn:
    try:
        parent = init.Parent(channel)
        try:
            failure = _become(parent, order)
        except StartFailed as error:
            failure = error
        except (EngineError, OSError, KeyError, TypeError, ValueError) as error:
            failure = StartFailed(init.sentence(error))
        parent.say("failed", message=str(failure), code=failure.exit_code)
        os._exit(failure.exit_code)
    finally:
        init.end_after_mistake(channel)


def _become(parent: init.Parent, order: _Order) -> StartFailed:
    process, cgroup = order.process, order.cgroup
    execute.set_oom_score(process, parent.warn)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    os.setsid()
    scheduling.set_affinity(process, "initial")
    # The groups are named by the host's paths, so they come before the container's mounts.
    if cgroup is not None and not cgroup.layout.unified:
        init.join_v1(cgroup)
    sys.path.clear()
    sys.meta_path.clear()
    namespaces.setns(order.pidfd, order.flags)
    if order.flags & namespaces.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)

    stdio = order.stdio
    if process.get("terminal"):
        master, slave = _open_terminal()
        size = process.get("consoleSize")
        if size:
            pty.resize(master, size["height"], size["width"])
        pty.make_controlling(slave)
        parent.say("console", [master])
        stdio = (slave, slave, slave)
    if stdio:
        init.set_stdio(stdio)
    init.keep_only(parent, order.preserve_fds)

    execute.join_session_keyring("_ses.exec")
    execute.own_stdio((process.get("user") or {}).get("uid", 0))
    execute.enter_directory(process.get("cwd") or "/")
    execute.set_rlimits(process.get("rlimits") or (), parent.warn)
    scheduling.apply(process)
    scheduling.set_affinity(process, "final")
    execute.reset_signals()
    no_new_privs = bool(process.get("noNewPrivileges"))
    execute.become_user(process, keep_for_seccomp=order.seccomp is not None and not no_new_privs)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    if order.die_with_parent:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    env = execute.environment(process)
    argv = process["args"]
    program = execute.Program(execute.find_program(argv[0], env), argv, env)
    parent.say("ready")
    execute.load_filter(process, order.seccomp, order.seccomp_flags)
    return program.run()


def _open_terminal() -> tuple[int, int]:
    """A terminal of the container's own devpts, which is proved to be one."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    devpts = paths.open_in_root(root, "/dev/pts", os.O_PATH | os.O_DIRECTORY, symlinks=False)
    if not paths.is_devpts(devpts) or not stat.S_ISDIR(os.fstat(devpts).st_mode):
        raise StartFailed("a terminal needs a devpts mount at /dev/pts")
    return pty.open_pair(devpts)
