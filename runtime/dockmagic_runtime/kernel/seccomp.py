"""System call filters: a profile in the OCI runtime specification's words becomes a BPF program, seccomp(2).

libseccomp (by ctypes) compiles, because it alone knows every architecture's call numbers; it's opened only
when a program isn't known yet. Compiling takes 10 to 20 ms, so programs are kept by the profile's content: in
memory, and in a directory if one is given. Loading is one system call and needs no library, so the process
that becomes the container has only the finished bytes.

A profile that denies by default denies also the calls that were invented after it. For those the program says
ENOSYS, not the profile's errno: C libraries try the newest call first and fall back only when it is missing.
"""

# pathlib would cost an import to every container start.
# ruff: noqa: PTH103, PTH104, PTH118, PTH120, PTH123

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from typing import Any

from dockmagic_runtime.errors import InvalidParameter, SystemFailure
from dockmagic_runtime.kernel import libc

Profile = Mapping[str, Any]
"""`linux.seccomp` of an OCI config."""

_LIBRARY = "libseccomp.so.2"

_KILL_PROCESS, _KILL_THREAD, _TRAP = 0x80000000, 0x00000000, 0x00030000
_ERRNO, _TRACE, _LOG, _ALLOW, _NOTIFY = 0x00050000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000, 0x7FC00000

ACTIONS = {
    "SCMP_ACT_KILL": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_TRAP": _TRAP,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_ALLOW": _ALLOW,
    "SCMP_ACT_LOG": _LOG,
}
"""SCMP_ACT_NOTIFY is not among them: it needs a listener outside that decides."""

OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}

ARCHITECTURES = {
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_ARM": "arm",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_MIPS": "mips",
    "SCMP_ARCH_MIPS64": "mips64",
    "SCMP_ARCH_MIPS64N32": "mips64n32",
    "SCMP_ARCH_MIPSEL": "mipsel",
    "SCMP_ARCH_MIPSEL64": "mipsel64",
    "SCMP_ARCH_MIPSEL64N32": "mipsel64n32",
    "SCMP_ARCH_PPC": "ppc",
    "SCMP_ARCH_PPC64": "ppc64",
    "SCMP_ARCH_PPC64LE": "ppc64le",
    "SCMP_ARCH_S390": "s390",
    "SCMP_ARCH_S390X": "s390x",
    "SCMP_ARCH_PARISC": "parisc",
    "SCMP_ARCH_PARISC64": "parisc64",
    "SCMP_ARCH_RISCV64": "riscv64",
    "SCMP_ARCH_LOONGARCH64": "loongarch64",
    "SCMP_ARCH_M68K": "m68k",
    "SCMP_ARCH_SH": "sh",
    "SCMP_ARCH_SHEB": "sheb",
}
"""libseccomp's name of each architecture that a profile may ask for."""

_NR_SECCOMP = {
    "x86_64": 317,
    "aarch64": 277,
    "riscv64": 277,
    "loongarch64": 277,
    "ppc64le": 358,
    "s390x": 348,
}
_SET_MODE_FILTER = 1

_ATTRIBUTE_BAD_ARCH, _ATTRIBUTE_NO_NEW_PRIVS, _ATTRIBUTE_OPTIMIZE = 2, 3, 8

_compiled: dict[str, bytes] = {}


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def compile(profile: Profile, directory: str | os.PathLike[str] | None = None) -> bytes:
    """The BPF program of a profile: `struct sock_filter[]` as bytes.

    `directory` keeps programs between processes, by the hash of the profile and of libseccomp's version.
    Raises InvalidParameter for a profile that can't be kept, SystemFailure where libseccomp is missing.
    """
    key = hashlib.sha256(json.dumps(profile, sort_keys=True).encode()).hexdigest()
    if key in _compiled:
        return _compiled[key]
    stored = os.path.join(directory, f"{key}-{os.uname().machine}.bpf") if directory else None
    program = _stored(stored) if stored else None
    if program is None:
        program = _build(profile)
        if stored:
            _store(stored, program)
    _compiled[key] = program
    return program


def flags(profile: Profile) -> int:
    """The seccomp(2) flags that a profile asks for."""
    mask = 0
    for name in profile.get("flags") or ():
        if name not in FLAGS:
            raise InvalidParameter(f"linux.seccomp.flags: {name} is not supported")
        mask |= FLAGS[name]
    return mask


def load(program: bytes, flags: int = 0) -> None:
    """Put the calling thread under `program` for good (with TSYNC: all threads). It must have
    no_new_privs or CAP_SYS_ADMIN."""
    text = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    libc.syscall(_NR_SECCOMP[os.uname().machine], _SET_MODE_FILTER, flags, header)


# --- the store ---------------------------------------------------------------------------------------------


def _stored(path: str) -> bytes | None:
    """A program kept before. It ends with its own digest: a torn or altered file is compiled anew."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return None
    program, digest = content[:-32], content[-32:]
    return program if program and hashlib.sha256(program).digest() == digest else None


def _store(path: str, program: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    beside = f"{path}.{os.getpid()}"
    with open(beside, "wb") as file:
        file.write(program + hashlib.sha256(program).digest())
    os.rename(beside, path)


# --- libseccomp --------------------------------------------------------------------------------------------


@functools.cache
def library() -> ctypes.CDLL:
    """libseccomp; raises SystemFailure where it isn't installed."""
    try:
        found = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError:
        raise SystemFailure(f"{_LIBRARY} is needed for seccomp profiles: apt install libseccomp2") from None
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    found.seccomp_release.restype = None
    found.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    found.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    found.seccomp_arch_exist.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    found.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    found.seccomp_arch_native.restype = ctypes.c_uint32
    found.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    ]
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return found


def version() -> str:
    """libseccomp's version, `2.5.4`."""

    class Version(ctypes.Structure):
        _fields_ = [("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint)]

    ask = library().seccomp_version
    ask.restype = ctypes.POINTER(Version)
    found = ask().contents
    return f"{found.major}.{found.minor}.{found.micro}"


def _build(profile: Profile) -> bytes:
    seccomp = library()
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"), "defaultAction")
    context = seccomp.seccomp_init(default)
    if not context:
        raise InvalidParameter(
            f"linux.seccomp.defaultAction: {profile.get('defaultAction')} is not supported"
        )
    try:
        _check(seccomp.seccomp_attr_set(context, _ATTRIBUTE_NO_NEW_PRIVS, 0), "no_new_privs")
        # A binary tree of call numbers instead of a list: fewer steps for every system call of the container.
        with contextlib.suppress(OSError):  # libseccomp 2.5
            _check(seccomp.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, 2), "optimize")
        for name in profile.get("architectures") or ():
            _add_architecture(seccomp, context, name)
        for rule in profile.get("syscalls") or ():
            _add_rule(seccomp, context, rule, default)
        program = _export(seccomp, context)
    finally:
        seccomp.seccomp_release(context)
    if default in (_ALLOW, _LOG) or default == _ERRNO | errno.ENOSYS:
        return program
    return _missing_calls(seccomp, profile) + program


def _action(name: object, number: int | None, where: str) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise InvalidParameter("linux.seccomp: SCMP_ACT_NOTIFY is not supported")
    if name not in ACTIONS:
        raise InvalidParameter(f"linux.seccomp.{where}: unknown action {name!r}")
    action = ACTIONS[str(name)]
    if action in (_ERRNO, _TRACE):
        number = errno.EPERM if number is None else number
        if not 0 <= number <= 0xFFFF:
            raise InvalidParameter(f"linux.seccomp.{where}: errno {number} is out of range")
        return action | number
    if number:
        raise InvalidParameter(f"linux.seccomp.{where}: {name} takes no errno")
    return action


def _add_architecture(seccomp: ctypes.CDLL, context: int, name: str) -> None:
    if name not in ARCHITECTURES:
        raise InvalidParameter(f"linux.seccomp.architectures: unknown architecture {name!r}")
    token = seccomp.seccomp_arch_resolve_name(ARCHITECTURES[name].encode())
    if not token:
        raise InvalidParameter(f"linux.seccomp.architectures: this libseccomp doesn't know {name}")
    if seccomp.seccomp_arch_exist(context, token) != 0:
        _check(seccomp.seccomp_arch_add(context, token), name)


def _add_rule(seccomp: ctypes.CDLL, context: int, rule: Mapping[str, Any], default: int) -> None:
    action = _action(rule.get("action"), rule.get("errnoRet"), "syscalls")
    if action == default:
        return  # libseccomp refuses what changes nothing
    conditions = [_comparison(argument) for argument in rule.get("args") or ()]
    # Several conditions on one argument are alternatives; otherwise all must hold (as runc reads them).
    indexes = [condition.arg for condition in conditions]
    groups = [conditions] if len(set(indexes)) == len(indexes) else [[one] for one in conditions]
    for name in rule.get("names") or ():
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            continue  # a call that this libseccomp has not heard of stays under the default action
        for group in groups:
            array = (_Comparison * len(group))(*group)
            result = seccomp.seccomp_rule_add_array(context, action, number, len(group), array)
            if result != -errno.EEXIST:
                _check(result, name)


def _comparison(argument: Mapping[str, Any]) -> _Comparison:
    operator = argument.get("op")
    if operator not in OPERATORS:
        raise InvalidParameter(f"linux.seccomp.syscalls.args: unknown operator {operator!r}")
    if not 0 <= argument.get("index", -1) <= 5:
        raise InvalidParameter(f"linux.seccomp.syscalls.args: no argument {argument.get('index')!r}")
    # Masked equality's mask is `value`, and what must be left is `valueTwo`.
    return _Comparison(
        argument["index"], OPERATORS[operator], argument["value"], argument.get("valueTwo") or 0
    )


def _export(seccomp: ctypes.CDLL, context: int) -> bytes:
    memory = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(seccomp.seccomp_export_bpf(context, memory), "export")
        return os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)


def _missing_calls(seccomp: ctypes.CDLL, profile: Profile) -> bytes:
    """The program's beginning: a call with a higher number than any in the profile doesn't exist (ENOSYS)."""
    names = [name.encode() for rule in profile.get("syscalls") or () for name in rule.get("names") or ()]
    tokens = {seccomp.seccomp_arch_native()}
    tokens |= {
        seccomp.seccomp_arch_resolve_name(ARCHITECTURES[a].encode())
        for a in profile.get("architectures") or ()
    }
    last = {
        token: max((seccomp.seccomp_syscall_resolve_name_arch(token, name) for name in names), default=-1)
        for token in tokens
    }
    x32 = last.pop(_TOKEN_X32, None)
    code = [_LOAD_ARCH]
    for token, number in last.items():
        if number < 0:
            continue
        test = [_filter(_JUMP_GREATER, number, 0, 1), _RETURN_ENOSYS]
        if token == _TOKEN_X86_64:
            # One audit architecture, two tables of calls: x32's numbers have bit 30 set.
            above = [_filter(_JUMP_GREATER, x32, 0, 1), _RETURN_ENOSYS] if x32 and x32 > 0 else []
            test = [_filter(_JUMP_NOT_LESS, _X32_BIT, 0, len(above) + 1), *above, _filter(_JUMP, 2), *test]
        block = [_LOAD_NUMBER, *test, _LOAD_ARCH]
        code += [_filter(_JUMP_EQUAL, token, 0, len(block)), *block]
    return b"".join(code)


_TOKEN_X86_64, _TOKEN_X32, _X32_BIT = 0xC000003E, 0x4000003E, 0x40000000
_JUMP, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_NOT_LESS = 0x05, 0x15, 0x25, 0x35


def _filter(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """`struct sock_filter {u16 code; u8 jt, jf; u32 k}`."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


_LOAD_NUMBER, _LOAD_ARCH = _filter(0x20, 0), _filter(0x20, 4)  # from struct seccomp_data
_RETURN_ENOSYS = _filter(0x06, _ERRNO | errno.ENOSYS)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result), f"libseccomp: {what}")
