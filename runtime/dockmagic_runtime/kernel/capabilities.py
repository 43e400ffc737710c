"""Capabilities: the pieces that root's power is cut into; capabilities(7), capset(2), prctl(2).

A set is an int with bit N for capability N. The order that works when a process gives up power: bounding set,
then the change of user (with PR_SET_KEEPCAPS), then `set_caps`, then `set_ambient`.
"""

import ctypes
import struct
from collections.abc import Iterable
from functools import cache

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import libc

NAMES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL"),
    *("CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE"),
    *("CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER"),
    *(
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_SYS_CHROOT",
        "CAP_SYS_PTRACE",
        "CAP_SYS_PACCT",
        "CAP_SYS_ADMIN",
    ),
    *("CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD"),
    *("CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE"),
    *("CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ"),
    *("CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
)
"""By number; the kernel appends to the end."""

_BITS = {name: 1 << number for number, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4

_capset = ctypes.CDLL(None, use_errno=True).capset


def bits(names: Iterable[str]) -> int:
    """The set of these capabilities, spelt `CAP_NET_RAW` or `NET_RAW`, in any case."""
    mask = 0
    for name in names:
        upper = name.upper()
        bit = _BITS.get(upper) or _BITS.get(f"CAP_{upper}")
        if bit is None:
            raise InvalidParameter(f'unknown capability "{name}"')
        mask |= bit
    return mask


def names(mask: int) -> list[str]:
    """The names in a set, in the kernel's order; bits newer than this module are left out."""
    return [name for name, bit in _BITS.items() if mask & bit]


@cache
def last_cap() -> int:
    """The number of the newest capability that this kernel has."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as number:  # noqa: PTH123
        return int(number.read())


def every() -> int:
    """All that this kernel has."""
    return (2 << last_cap()) - 1


def current(pid: int | None = None) -> dict[str, int]:
    """The sets of a thread: `inheritable`, `permitted`, `effective`, `bounding`, `ambient`."""
    found = {}
    with open(f"/proc/{pid or 'thread-self'}/status", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
        for line in lines:
            name, _, value = line.partition(":")
            if kind := _STATUS_NAMES.get(name):
                found[kind] = int(value, 16)
    return found


_STATUS_NAMES = {
    "CapInh": "inheritable",
    "CapPrm": "permitted",
    "CapEff": "effective",
    "CapBnd": "bounding",
    "CapAmb": "ambient",
}


def drop_bounding(keep: int) -> None:
    """Drop all but `keep` from the bounding set, which no exec'd program can ever get back."""
    for number in range(last_cap() + 1):
        if not keep >> number & 1:
            _prctl(_PR_CAPBSET_DROP, number, 0)


def set_caps(effective: int, permitted: int, inheritable: int = 0) -> None:
    """capset(2) for the calling thread."""
    header = struct.pack("=Ii", _VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack(
        "=6I",
        *(effective & low, permitted & low, inheritable & low),
        *(effective >> high, permitted >> high, inheritable >> high),
    )
    if _capset(header, data) != 0:
        raise libc.fail("capset")


def set_ambient(mask: int) -> None:
    """Make the ambient set exactly `mask`: each must be permitted and inheritable already."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0)
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def _prctl(option: int, argument: int, second: int) -> None:
    if libc.prctl_raw(option, argument, second, 0, 0) != 0:
        raise libc.fail()
