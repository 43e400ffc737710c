"""Descriptors of processes, which unlike pids never come to name another one: pidfd_open(2)."""

from dockmagic_runtime.kernel.libc import NR, syscall


def send_signal(pidfd: int, signum: int) -> None:
    """Raises ProcessLookupError when the process is gone."""
    syscall(NR["pidfd_send_signal"], pidfd, signum, 0, 0)


def start_time(pid: int) -> int:
    """When `pid` began, in clock ticks since boot; together the two name one process of this boot."""
    with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123
        # The second field is the name in parentheses, which may itself hold anything.
        return int(stat.read().rpartition(b")")[2].split()[19])
