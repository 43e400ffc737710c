"""The first process of a container, from the clone to the exec of its program: what happens inside.

`run` is called in the child that `create.py` cloned into the new namespaces; it never returns. Read it top
to bottom: the order is the design. Two rules hold throughout:

- Until the root is changed we see the host's files, and the container's root only through its descriptor.
  After it we see only the container's, so everything that will be needed has been imported and opened before.
- We run the host's interpreter. It must not be possible to get at it from inside: we are not dumpable, so
  /proc/<us>/{exe,fd,root,mem} is closed to others, and the interpreter was executed from a read-only mount
  (`interpreter.py`), so that what /proc/<us>/exe gives can't be opened for writing by anyone.
"""

import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dockmagic_runtime.errors import EngineError
from dockmagic_runtime.kernel import libc, mounts, namespaces, pty, seccomp
from dockmagic_runtime.kernel.cgroups import Cgroup, layout
from dockmagic_runtime.process import execute, interfaces, reaper, scheduling, sysctls, targets
from dockmagic_runtime.process.messages import Message, StartFailed, receive_packet, send_packet
from dockmagic_runtime.process.mountoptions import PROPAGATION, Options
from dockmagic_runtime.process.rootfs import Binds, Premade, Tree
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs


@dataclass
class Start:
    """What the child inherits from `create`. Descriptors are numbers that are open in both."""

    config: Mapping[str, Any]
    bundle: str
    new: int
    join: list[tuple[str, int, int]]  # kind, descriptor, flag
    rootfs: Rootfs | None
    stdio: tuple[int, int, int] | None
    cgroup: Cgroup | None
    seccomp: bytes | None
    gate: int | None = None
    preserve_fds: int = 0
    no_pivot: bool = False
    reaper: bool = False
    die_with_parent: bool = False
    asks_before_pivot: bool = False
    state: Message = field(default_factory=dict)
    # Only for one that was made ahead (`spare.py`), which is in its group already:
    premade: Premade | None = None
    root_mount: int | None = None
    bind_mounts: list[int] | None = None

    @property
    def linux(self) -> Mapping[str, Any]:
        return self.config.get("linux") or {}

    @property
    def own(self) -> frozenset[str]:
        """The kinds of namespace that are not the host's."""
        return frozenset(entry["type"] for entry in self.linux.get("namespaces") or ())


class Parent:
    """The child's end of the talk with `create`."""

    def __init__(self, channel: socket.socket):
        self.channel = channel

    def say(self, step: str, descriptors: list[int] | None = None, **more: Any) -> None:
        send_packet(self.channel, {"step": step, **more}, descriptors)

    def warn(self, text: str) -> None:
        self.say("warning", text=text)

    def await_(self, step: str) -> Message:
        message, _ = receive_packet(self.channel)
        if message is None or message["step"] != step:
            os._exit(1)  # nobody is left who wants the container
        return message


def run(start: Start, channel: socket.socket) -> NoReturn:
    """Become the container's program, or say why not and end."""
    try:
        parent = Parent(channel)
        try:
            failure = _become_program(start, parent)
        except StartFailed as error:
            failure = error
        except (EngineError, OSError, KeyError, TypeError, ValueError) as error:
            failure = StartFailed(sentence(error))
        _report(start, parent, failure)
        os._exit(failure.exit_code)
    finally:
        end_after_mistake(channel)


def end_after_mistake(channel: socket.socket) -> NoReturn:
    """Whatever else went wrong: this process must never return into its parent's code.

    A traceback would read source files, which are the container's by now, so the error's own words must do.
    """
    if (mistake := sys.exc_info()[1]) is not None:
        send_packet(channel, {"step": "failed", "message": f"internal error: {mistake!r}", "code": 125})
    os._exit(1)


def _become_program(start: Start, parent: Parent) -> StartFailed:
    process = start.config["process"]
    linux = start.linux

    # 1. Ours alone. oom_score_adj first, for afterwards our /proc files belong to the real root only.
    execute.set_oom_score(process, parent.warn)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    _die_with_parent(start)
    os.setsid()

    # 2. The namespaces that exist already. (pid and time were joined by the parent: they count for children.)
    for path, descriptor, flag in start.join:
        namespaces.setns(descriptor, flag, path)
        os.close(descriptor)

    # 3. In a user namespace of our own we are nobody until the parent has written the maps.
    if start.new & namespaces.CLONE_NEWUSER:
        parent.say("unmapped")
        parent.await_("mapped")
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)

    if start.new & namespaces.CLONE_NEWNET:
        interfaces.bring_up("lo")

    # 4. The root, invisible to the host. Binds are copied first: what is shared on the host, and asked for as
    # shared, must be copied while it still is.
    tree, binds = _enter_root(start)

    # 5. What is mounted inside, in the config's order; the group's own file system when we are in the group.
    for number, entry in enumerate(start.config.get("mounts") or ()):
        if Options(entry).bind:
            tree.mount_bind(entry, binds.take(number))
        elif entry["type"] not in ("cgroup", "cgroup2"):
            tree.mount_new(entry)

    # 6. Devices, unless /dev is the host's own. Before we enter the group, whose rules may forbid mknod.
    if not _binds(start.config, "/dev"):
        tree.add_devices(linux.get("devices") or ())
    _enter_cgroup(start, parent)
    where = start.cgroup.layout if start.cgroup else layout()
    for entry in start.config.get("mounts") or ():
        if entry.get("type") in ("cgroup", "cgroup2") and not Options(entry).bind:
            tree.mount_cgroup(entry, where)
    if process.get("terminal"):
        _make_console(process, tree, parent)
    elif start.stdio:
        set_stdio(start.stdio)

    # 7. Hooks: the runtime's while everybody still sees the host, then those inside our namespaces.
    if start.asks_before_pivot:
        parent.say("mounted")
        start.state.update(parent.await_("proceed").get("state") or {})
    _run_hooks(start, "createContainer", "creating")

    # 8. What must not be written or read. After the sysctls, which are about to become read-only.
    sysctls.write(linux.get("sysctl") or {}, start.own)
    cwd = process.get("cwd") or "/"
    os.close(targets.make(tree.root, cwd, directory=True))
    tree.mask(linux.get("maskedPaths") or ())
    tree.make_readonly(linux.get("readonlyPaths") or ())
    if (start.config.get("root") or {}).get("readonly"):
        mounts.set_attributes(tree.root, mounts.MOUNT_ATTR_RDONLY)

    # 9. The host's tree goes. So do all descriptors: a directory among them would be a way back.
    _change_root(tree.root, start)
    keep_only(parent, start.preserve_fds, start.gate)

    # 10. Names and limits.
    if start.config.get("hostname") and "uts" in start.own:
        libc.set_name("sethostname", start.config["hostname"])
    if start.config.get("domainname") and "uts" in start.own:
        libc.set_name("setdomainname", start.config["domainname"])
    execute.join_session_keyring(f"_ses.{os.path.basename(start.bundle)}")  # noqa: PTH119
    execute.own_stdio((process.get("user") or {}).get("uid", 0))
    execute.enter_directory(cwd)
    execute.set_rlimits(process.get("rlimits") or (), parent.warn)
    scheduling.apply(process, linux)
    execute.reset_signals()

    # 11. The user. CAP_SYS_ADMIN stays for the filter unless no_new_privs makes that unnecessary.
    profile = linux.get("seccomp")
    flags = seccomp.flags(profile) if profile else 0
    execute.become_user(
        process, keep_for_seccomp=start.seccomp is not None and not process.get("noNewPrivileges")
    )
    # The kernel forgets both whenever credentials change.
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    _die_with_parent(start)
    env = execute.environment(process)
    argv = process["args"]
    program = execute.Program(execute.find_program(argv[0], env), argv, env)

    # 12. Ready. Whatever is left can only be done when the program is to run.
    parent.say("ready")
    if start.gate is not None:
        parent.channel.close()
        _wait_at(start.gate)
    _run_hooks(start, "startContainer", "created")
    if start.reaper:
        return reaper.run(
            program, parent.channel.fileno(), lambda: execute.load_filter(process, start.seccomp, flags)
        )
    execute.load_filter(process, start.seccomp, flags)
    return program.run()


def _enter_root(start: Start) -> tuple[Tree, Binds]:
    if "mount" not in start.own:
        raise StartFailed("linux.namespaces: a container needs a mount namespace")
    binds = Binds(start.config.get("mounts") or (), start.bundle, start.bind_mounts)
    path = start.bundle
    if start.root_mount is not None:
        root = start.root_mount
    elif start.rootfs is None:
        path = os.path.join(start.bundle, (start.config.get("root") or {}).get("path") or "rootfs")  # noqa: PTH118
        root = mounts.copy_path(path, recursive=True)
    else:
        root = mount_rootfs(start.rootfs)
    mounts.set_propagation("/", mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.set_attributes(root, propagation=mounts.MS_PRIVATE, recursive=True)
    # It must hang somewhere to become the root. In this namespace nobody else looks.
    here = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.attach(root, here)
    os.close(here)
    return Tree(root, start.premade), binds


def _enter_cgroup(start: Start, parent: Parent) -> None:
    """Move ourselves into the group, then make it the root of what we can see of the groups.

    On v1 a process that moves *itself*, by its `tasks` file, spares the kernel the wait for an RCU grace
    period (5 to 10 ms) that moving another by `cgroup.procs` costs. On v2 we were born in it.
    """
    parent.await_("grouped")
    if start.premade is not None:
        return
    group = start.cgroup
    if group is not None and not group.layout.unified and not start.new & namespaces.CLONE_NEWUSER:
        join_v1(group)
    if start.new & namespaces.CLONE_NEWCGROUP or _wants_new(start.linux, "cgroup"):
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)


def join_v1(group: Cgroup) -> None:
    """Move the calling process, which has one thread, into every v1 hierarchy's directory of `group`."""
    for mount in group.layout.v1_mounts:
        fd = os.open(f"{mount}{group.path}/tasks", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)


def _make_console(process: Mapping[str, Any], tree: Tree, parent: Parent) -> None:
    if tree.devpts is None:
        raise StartFailed("a terminal needs a devpts mount at /dev/pts")
    master, slave = pty.open_pair(tree.devpts)
    size = process.get("consoleSize")
    if size:
        pty.resize(master, size["height"], size["width"])
    tree.set_console(slave)
    pty.make_controlling(slave)
    parent.say("console", [master])
    os.close(master)
    set_stdio((slave, slave, slave))


def set_stdio(descriptors: tuple[int, int, int]) -> None:
    for number, fd in enumerate(descriptors):
        os.dup2(fd, number)  # which also makes it inheritable
        if fd == number:
            os.set_inheritable(fd, True)


def _change_root(root: int, start: Start) -> None:
    # From here on an import would load the container's code into us.
    sys.path.clear()
    sys.meta_path.clear()
    os.fchdir(root)
    if start.no_pivot:
        # From an initramfs, whose root can't be pivoted away: cover it and stay on top.
        top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.attach(root, top)
        os.chroot(".")
    else:
        # Both names are the new root; the old one ends up stacked on top of it, as ".".
        mounts.pivot_root(".", ".")
        mounts.umount(".", mounts.MNT_DETACH)
    os.chdir("/")
    propagation = start.linux.get("rootfsPropagation")
    if propagation:
        flag = PROPAGATION.get(propagation.removeprefix("r"), mounts.MS_PRIVATE)
        mounts.set_propagation("/", flag | (mounts.MS_REC if propagation.startswith("r") else 0))


def keep_only(parent: Parent, preserve_fds: int, gate: int | None = None) -> None:
    """Close every descriptor but stdio, those to be preserved, and our own two, which the exec closes."""
    preserved = set(range(3, 3 + preserve_fds))
    own = {parent.channel.fileno()} | ({gate} if gate is not None else set())
    libc.close_all_but(own | preserved)
    for fd in own:
        os.set_inheritable(fd, False)
    for fd in preserved:
        os.set_inheritable(fd, True)


def _wait_at(gate: int) -> None:
    poll = select.poll()
    poll.register(gate, select.POLLIN)
    poll.poll()
    if not os.read(gate, 1):
        os._exit(1)
    os.close(gate)


def _die_with_parent(start: Start) -> None:
    if start.die_with_parent:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)


def _run_hooks(start: Start, point: str, status: str) -> None:
    entries = (start.config.get("hooks") or {}).get(point)
    if not entries:
        return
    from dockmagic_runtime.process import hooks  # loaded by `create` before the root was changed

    hooks.run(entries, {**start.state, "status": status})


def _report(start: Start, parent: Parent, failure: StartFailed) -> None:
    if parent.channel.fileno() >= 0:
        parent.say("failed", message=str(failure), code=failure.exit_code)
    else:
        os.write(2, f"{failure}\n".encode())


def sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        words = (error.strerror or os.strerror(error.errno)).strip()
        return f"{error.filename}: {words}" if error.filename else words
    if isinstance(error, KeyError):
        return f"the config has no {error}"
    return str(error)


def _binds(config: Mapping[str, Any], destination: str) -> bool:
    return any(
        e["destination"].rstrip("/") == destination and Options(e).bind for e in config.get("mounts") or ()
    )


def _wants_new(linux: Mapping[str, Any], kind: str) -> bool:
    return any(e["type"] == kind and not e.get("path") for e in linux.get("namespaces") or ())
