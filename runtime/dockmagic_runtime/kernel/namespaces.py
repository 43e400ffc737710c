"""Namespaces: namespaces(7), clone(2), unshare(2), setns(2)."""

import ctypes
import os
import signal

from dockmagic_runtime.kernel.libc import NR, syscall

CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# The runtime-spec's name of each kind -> its flag, in the order in which joining works: user first, for
# it gives the rights over the others; mount last but one, for the others may be named by path.
KINDS = {
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "time": CLONE_NEWTIME,
    "cgroup": CLONE_NEWCGROUP,
    "mount": CLONE_NEWNS,
}

# The same kinds as /proc/<pid>/ns names them.
PROC_NAMES = {
    "user": "user",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "time": "time",
    "cgroup": "cgroup",
    "mount": "mnt",
}


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


def clone(flags: int, cgroup: int | None = None) -> tuple[int, int]:
    """Fork into new namespaces with clone3(2): `(pid, pidfd)` in the parent, `(0, -1)` in the child.

    `cgroup` is a descriptor of the cgroup v2 directory to be born in. Only for a process with one thread;
    Python's own after-fork work is not done in the child, which is meant to call `exec` soon.
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(
        flags=flags | CLONE_PIDFD,
        pidfd=ctypes.addressof(pidfd),
        exit_signal=0 if flags & CLONE_PARENT else signal.SIGCHLD,
    )
    if cgroup is not None:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup
    pid = syscall(NR["clone3"], ctypes.byref(args), ctypes.sizeof(args))
    return (pid, pidfd.value) if pid else (0, -1)


def unshare(flags: int) -> None:
    syscall(NR["unshare"], flags)


def setns(fd: int, flags: int, path: str | None = None) -> None:
    """Join the namespace `fd` (of kind `flags`), or those of a pidfd's process that `flags` names."""
    syscall(NR["setns"], fd, flags, path=path)


def inode(pid: int | str, kind: str) -> int:
    """The number by which the kernel tells namespaces apart; `kind` as in the runtime-spec."""
    return os.stat(f"/proc/{pid}/ns/{PROC_NAMES[kind]}").st_ino  # noqa: PTH116
