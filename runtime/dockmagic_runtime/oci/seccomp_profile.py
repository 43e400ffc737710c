"""The system calls a container may make when nothing else is said: an allow-list equal in effect to Docker's.

Grouped by what the calls are for. Everything that is not listed fails with EPERM. What is missing is missing
for a reason: it reaches past namespaces (`kexec_load`, `swapon`, `settimeofday`), guards secrets that have
no namespace (`keyctl`, `add_key`), or has been the way out too often (`userfaultfd`, `io_uring_setup`).
"""

import os
from collections.abc import Collection
from functools import cache

from dockmagic_runtime.oci.spec import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall

_ALLOWED = {
    "Files by name": """
        access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmodat fchmodat2 fchownat
        fstatat64 futimesat getcwd lchown lchown32 link linkat listmount lstat lstat64 mkdir mkdirat mknod
        mknodat name_to_handle_at newfstatat open openat openat2 readlink readlinkat rename renameat renameat2
        rmdir stat stat64 statfs statfs64 statmount statx symlink symlinkat truncate truncate64 umask unlink
        unlinkat utime utimensat utimensat_time64 utimes
    """,
    "Open files": """
        cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fchmod
        fchown fchown32 fcntl fcntl64 fdatasync flock fstat fstat64 fstatfs fstatfs64 fsync ftruncate
        ftruncate64 getdents getdents64 ioctl _llseek lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev
        pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee vmsplice
        write writev
    """,
    "Extended attributes": """
        fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat
        llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
    """,
    "Waiting for many things at once": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
        eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
        io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect poll ppoll
        ppoll_time64 pselect6 pselect6_time64 select
    """,
    "Sockets": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
        recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
    """,
    "Memory": """
        brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap
        mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
        process_mrelease remap_file_pages
    """,
    "Processes and threads": """
        execve execveat exit exit_group fork get_robust_list get_thread_area getpgid getpgrp getpid getppid
        getsid gettid kill pidfd_open pidfd_send_signal prctl process_vm_readv process_vm_writev ptrace
        restart_syscall riscv_hwprobe rseq set_robust_list set_thread_area set_tid_address setpgid setsid
        tgkill tkill uretprobe vfork wait4 waitid waitpid
    """,
    "Futexes": """
        futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
    """,
    "Signals": """
        alarm pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
        rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask
        sigreturn
    """,
    "Users, groups and capabilities": """
        capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid
        getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid
        setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32
        setreuid setreuid32 setuid setuid32
    """,
    "Scheduling and limits": """
        getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max
        sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler sched_yield setpriority setrlimit ugetrlimit
    """,
    "Time": """
        adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
        clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create
        timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
        timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
    """,
    "System V and POSIX message passing": """
        ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
        mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
        semtimedop_time64 shmat shmctl shmdt shmget
    """,
    "The system, and giving up rights": """
        getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp sysinfo uname
    """,
}

_ALLOWED_WITH = {
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
        quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
    """,
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}
"""Calls that are harmless only because the kernel asks for the same capability, or dangerous without it."""

_ALLOWED_ON = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    "ppc64le": "swapcontext sync_file_range2",
    "riscv64": "riscv_flush_icache",
    "s390x": "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
}

_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "ppc64le": [],
    "riscv64": ["SCMP_ARCH_RISCV64"],
    "s390x": ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
    "loongarch64": ["SCMP_ARCH_LOONGARCH64"],
}
"""The machine's own calls and those of the older programs that it can run."""

_PERSONALITIES = {
    0x0: "PER_LINUX",
    0x8: "PER_LINUX32",
    0x20000: "UNAME26",
    0x20008: "PER_LINUX32 | UNAME26",
    0xFFFFFFFF: "ask for the present one",
}

_AF_ALG, _AF_VSOCK = 38, 40
"""Sockets into the kernel's cryptography and into the hypervisor: the families that are not allowed."""

_NEW_NAMESPACES = 0x7E020000
"""Every CLONE_NEW… flag of clone(2) but CLONE_NEWTIME, which only clone3(2) and unshare(2) take."""

_ENOSYS = 38


def default_profile(capabilities: Collection[str], machine: str | None = None) -> LinuxSeccomp:
    """For a process whose bounding set is `capabilities`, on `machine` (as `uname -m`; None: this one)."""
    return _profile(frozenset(capabilities), machine or os.uname().machine)


@cache
def _profile(capabilities: frozenset[str], machine: str) -> LinuxSeccomp:
    names = {name for group in _ALLOWED.values() for name in group.split()}
    names |= set(_ALLOWED_ON.get(machine, "").split())
    for capability in capabilities:
        names |= set(_ALLOWED_WITH.get(capability, "").split())
    rules = [_allow(*sorted(names))]
    rules += [
        _allow("socket", _when(0, _AF_ALG, "SCMP_CMP_LT")),
        _allow("socket", _when(0, _AF_ALG + 1, "SCMP_CMP_EQ")),
        _allow("socket", _when(0, _AF_VSOCK, "SCMP_CMP_GT")),
    ]
    rules += [_allow("personality", _when(0, value, "SCMP_CMP_EQ")) for value in _PERSONALITIES]
    if "CAP_SYS_ADMIN" not in capabilities:
        flags = 1 if machine in ("s390", "s390x") else 0
        rules.append(_allow("clone", _when(flags, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ")))
        # Its flags are in memory, where a filter can't look; told "no such call", C libraries use clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": list(_ARCHITECTURES.get(machine, [])),
        "syscalls": rules,
    }


def _allow(*names_and_conditions: "str | LinuxSeccompArg") -> LinuxSyscall:
    names = [item for item in names_and_conditions if isinstance(item, str)]
    conditions = [item for item in names_and_conditions if not isinstance(item, str)]
    rule: LinuxSyscall = {"names": names, "action": "SCMP_ACT_ALLOW"}
    if conditions:
        rule["args"] = conditions
    return rule


def _when(argument: int, value: int, operator: str) -> LinuxSeccompArg:
    return {"index": argument, "value": value, "op": operator}
