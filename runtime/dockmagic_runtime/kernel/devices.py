"""Which devices a group may use: `linux.resources.devices` of the OCI runtime specification.

cgroup v1 has the devices controller's files (admin-guide/cgroup-v1/devices). v2 has a BPF program of
type BPF_PROG_TYPE_CGROUP_DEVICE, asked at every open(2) and mknod(2) of a device: it's built and attached
here with bpf(2) alone, no library.

The rules of a config are read in order and the last one that fits decides. v1 keeps its own list in that way;
the BPF program tests them from the last to the first.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from dockmagic_runtime.errors import InvalidParameter

Rule = Mapping[str, Any]

_BPF_PROG_LOAD, _BPF_PROG_ATTACH, _BPF_PROG_GET_FD_BY_ID, _BPF_PROG_QUERY = 5, 8, 13, 16
_BPF_PROG_TYPE_CGROUP_DEVICE = 15
_BPF_CGROUP_DEVICE = 6
_BPF_F_ALLOW_MULTI, _BPF_F_REPLACE = 2, 4
_NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}

_ACCESS_BITS = {"m": 1, "r": 2, "w": 4}
_TYPE_NUMBERS = {"b": 1, "c": 2}


def v1_lines(rules: Iterable[Rule]) -> list[tuple[str, str]]:
    """The writes that make a fresh v1 group keep `rules`: (file name, line)."""
    lines = []
    for rule in rules:
        kind, major, minor, access = _fields(rule)
        name = "devices.allow" if rule.get("allow") else "devices.deny"
        if kind == "a" and major is None and minor is None and set(access) == set("rwm"):
            # Beside this word the kernel reads nothing: it always means everything.
            lines.append((name, "a"))
            continue
        numbers = ":".join("*" if number is None else str(number) for number in (major, minor))
        lines += [(name, f"{one} {numbers} {access}") for one in (("b", "c") if kind == "a" else kind)]
    return lines


def program(rules: Iterable[Rule]) -> bytes:
    """The BPF program that decides by `rules`, and denies what none of them is about.

    Its context is `struct bpf_cgroup_dev_ctx {u32 access_type; u32 major; u32 minor}`, where access_type is
    (access << 16) | type.
    """
    code = [
        _load(2, 0),  # r2 = access_type
        _move32(3, 2),
        _alu32(0x54, 2, 0xFFFF),  # r2: device type
        _alu32(0x74, 3, 16),  # r3: access asked for
        _load(4, 4),  # r4: major
        _load(5, 8),  # r5: minor
    ]
    for rule in reversed(list(rules)):
        kind, major, minor, access = _fields(rule)
        mask = sum(_ACCESS_BITS[letter] for letter in access)
        tests: list[bytes | tuple[int, int]] = []  # instruction, or (register, value that must be equal)
        if kind != "a":
            tests.append((2, _TYPE_NUMBERS[kind]))
        if mask != 7:
            if rule.get("allow"):
                # Allowed only if nothing beyond the rule's access is asked for.
                tests += [_move32(1, 3), _alu32(0x54, 1, ~mask & 7), (1, 0)]
            else:
                tests += [_move32(1, 3), _alu32(0x54, 1, mask), (-1, 0)]
        if major is not None:
            tests.append((4, major))
        if minor is not None:
            tests.append((5, minor))
        code += _branch(tests, 1 if rule.get("allow") else 0)
        if not tests:
            return b"".join(code)  # earlier rules can't be reached, and the verifier refuses dead code
    code += [_move_immediate(0, 0), _EXIT]
    return b"".join(code)


def attach(group: int, code: bytes) -> None:
    """Make `code` the device program of the v2 group whose directory is open, in place of one set before."""
    new = _load_program(code)
    try:
        before = _attached(group)
        if len(before) == 1:
            old = _bpf(_BPF_PROG_GET_FD_BY_ID, struct.pack("=III", before[0], 0, 0))
            try:
                attributes = struct.pack(
                    "=IIIII", group, new, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI | _BPF_F_REPLACE, old
                )
                _bpf(_BPF_PROG_ATTACH, attributes)
            finally:
                os.close(old)
        else:
            _bpf(_BPF_PROG_ATTACH, struct.pack("=IIII", group, new, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI))
    finally:
        os.close(new)


def _fields(rule: Rule) -> tuple[str, int | None, int | None, str]:
    kind = rule.get("type") or "a"
    access = rule.get("access") or "rwm"
    if kind not in ("a", "b", "c", "p", "u") or set(access) - set(_ACCESS_BITS):
        raise InvalidParameter(f"invalid device rule: type {kind!r}, access {access!r}")
    if kind == "p":
        raise InvalidParameter("invalid device rule: a FIFO is no device to a cgroup")
    numbers = [rule.get(key) for key in ("major", "minor")]
    major, minor = (None if number is None or number < 0 else number for number in numbers)
    return "c" if kind == "u" else kind, major, minor, access


# --- BPF instructions: struct bpf_insn {u8 code; u8 dst:4, src:4; s16 off; s32 imm} ----------------------


def _instruction(
    code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    return struct.pack("=BBhi", code, destination | source << 4, offset, immediate)


def _load(register: int, offset: int) -> bytes:
    return _instruction(0x61, register, 1, offset)  # BPF_LDX | BPF_MEM | BPF_W, from the context in r1


def _move32(destination: int, source: int) -> bytes:
    return _instruction(0xBC, destination, source)


def _alu32(code: int, register: int, value: int) -> bytes:
    return _instruction(code, register, immediate=value)


def _move_immediate(register: int, value: int) -> bytes:
    return _instruction(0xB7, register, immediate=value)


_EXIT = _instruction(0x95)


def _branch(tests: list[bytes | tuple[int, int]], verdict: int) -> list[bytes]:
    """`if all tests hold: return verdict`."""
    length = len(tests) + 2
    code = []
    for position, test in enumerate(tests):
        beyond = length - position - 1
        if isinstance(test, bytes):
            code.append(test)
        elif test[0] < 0:
            code.append(_instruction(0x15, 1, offset=beyond, immediate=test[1]))  # jump past if r1 == value
        else:
            code.append(_instruction(0x55, test[0], offset=beyond, immediate=test[1]))  # … if not equal
    return [*code, _move_immediate(0, verdict), _EXIT]


# --- bpf(2) ----------------------------------------------------------------------------------------------


def _bpf(command: int, attributes: bytes | bytearray | ctypes.Array[ctypes.c_char]) -> int:
    machine = os.uname().machine
    if machine not in _NR_BPF:
        raise OSError(errno.ENOSYS, f"no bpf(2) number known for {machine}")
    if not isinstance(attributes, ctypes.Array):
        attributes = ctypes.create_string_buffer(bytes(attributes), len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(_NR_BPF[machine], command, attributes, ctypes.c_uint(len(attributes)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "bpf")
    return result


def _load_program(code: bytes) -> int:
    text = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQII16s",
        _BPF_PROG_TYPE_CGROUP_DEVICE,
        len(code) // 8,
        ctypes.addressof(text),
        ctypes.addressof(licence),
        0,  # no verifier log
        0,
        0,
        0,
        0,
        b"dockmagic_dev",
    )
    return _bpf(_BPF_PROG_LOAD, attributes)


def _attached(group: int) -> list[int]:
    """The ids of the device programs attached to this very group (not those of its parents)."""
    ids = (ctypes.c_uint32 * 64)()
    packed = struct.pack("=IIIIQII", group, _BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), len(ids), 0)
    attributes = ctypes.create_string_buffer(packed, len(packed))
    _bpf(_BPF_PROG_QUERY, attributes)
    count = struct.unpack_from("=I", attributes.raw, 24)[0]
    return list(ids[:count])
