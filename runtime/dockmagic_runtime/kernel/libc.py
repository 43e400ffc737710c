"""System calls that Python's `os` does not have, by number, through the C library's `syscall(2)`.

Each wrapper elsewhere in this folder is one call under its man-page name: Python types in, `OSError` with
errno and path out. No policy here.
"""

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)

_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

prctl_raw = _libc.prctl
prctl_raw.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

_NUMBERS = {
    # name: (x86_64, generic: aarch64 and riscv64)
    "clone": (56, 220),
    "execve": (59, 221),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "keyctl": (250, 219),
    "ioprio_set": (251, 30),
    "unshare": (272, 97),
    "set_mempolicy": (238, 237),
    "sched_setattr": (314, 274),
    "setns": (308, 268),
    "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "mount_setattr": (442, 442),
}
_COLUMN = 0 if platform.machine() == "x86_64" else 1
NR = {name: numbers[_COLUMN] for name, numbers in _NUMBERS.items()}


def fail(path: str | bytes | None = None) -> OSError:
    """The exception for the errno that the last call left."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def syscall(number: int, *args: object, path: str | bytes | None = None) -> int:
    """Call by number; raises `OSError` naming `path`. Integer arguments are passed as full registers."""
    result: int = _syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result == -1:
        raise fail(path)
    return result


PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38


def prctl(option: int, argument: int = 0) -> None:
    if prctl_raw(option, argument, 0, 0, 0) == -1:
        raise fail()


def set_process_name(name: bytes) -> None:
    """What `ps` shows for the calling thread (at most 15 bytes)."""
    text = ctypes.create_string_buffer(name)
    prctl(PR_SET_NAME, ctypes.addressof(text))


_LAST_FD = 0xFFFFFFFF


def close_range(first: int, last: int = _LAST_FD) -> None:
    """Close the descriptors from `first` to `last`, open or not."""
    syscall(NR["close_range"], first, last, 0)


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor above 2 that isn't in `keep`."""
    first = 3
    for fd in sorted(fd for fd in keep if fd > 2):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def set_name(kind: str, name: str) -> None:
    """`sethostname(2)` or `setdomainname(2)` of the current UTS namespace; `kind` is the call's name."""
    data = name.encode()
    syscall(NR[kind], data, len(data), path=name)


def give_memory_back() -> None:
    """Return the C library's free memory to the kernel: malloc_trim(3), where there is one."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim:
        trim(0)


def default_signals() -> None:
    """Set every signal to its default action."""
    for number in range(1, 32):
        if number not in (_SIGKILL, _SIGSTOP):
            set_signal(number, ignore=False)


def set_signal(number: int, *, ignore: bool) -> None:
    """signal(2) itself: Python's own, with its enumerations, writes to a hundred pages of memory."""
    _libc.signal(number, ctypes.c_void_p(1 if ignore else 0))


_SIGKILL, _SIGSTOP = 9, 19


def string_array(values: list[bytes]) -> "ctypes.Array[ctypes.c_char_p]":
    """A NULL-terminated `char *[]`."""
    return (ctypes.c_char_p * (len(values) + 1))(*values, None)


def execve(
    path: bytes, argv: "ctypes.Array[ctypes.c_char_p]", env: "ctypes.Array[ctypes.c_char_p]"
) -> OSError:
    """Replace the process image. Returns only on failure, with the reason."""
    _syscall(NR["execve"], path, argv, env)
    return fail(path)
