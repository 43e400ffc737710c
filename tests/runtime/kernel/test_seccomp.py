"""System call filters, loaded into processes that then try."""

import ctypes
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import seccomp

ALLOW: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW"}


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def under(profile: dict[str, Any], function: Callable[[], int]) -> int:
    """What `function` returns in a child under the filter; minus the signal if that ended it."""
    program, flags = seccomp.compile(profile), seccomp.flags(profile)
    if (pid := os.fork()) == 0:
        try:
            seccomp.load(program, flags)
            os._exit(function())
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def errno_of(function: Callable[[], object]) -> Callable[[], int]:
    def call() -> int:
        try:
            function()
        except OSError as error:
            return error.errno or 254
        return 0

    return call


def umask() -> int:
    return errno_of(lambda: raw("umask", 0o22))()


def raw(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    number = seccomp.library().seccomp_syscall_resolve_name(name.encode()) if name else arguments[0]
    if libc.syscall(ctypes.c_long(number), *arguments[0 if name else 1 :]) == -1:
        raise OSError(ctypes.get_errno(), name)


def test_errno() -> None:
    seccomp.library()
    assert under({**ALLOW, "syscalls": [rule("umask", errnoRet=77)]}, umask) == 77
    assert under({**ALLOW, "syscalls": [rule("umask")]}, umask) == errno.EPERM
    assert under({**ALLOW, "syscalls": [rule("mkdir")]}, umask) == 0


@pytest.mark.parametrize(
    "action", ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"]
)
def test_deadly_actions(action: str) -> None:
    seccomp.library()
    assert under({**ALLOW, "syscalls": [rule("umask", action=action)]}, umask) == -signal.SIGSYS


@pytest.mark.parametrize(
    ("operator", "value", "two", "hits"),
    [
        ("SCMP_CMP_EQ", 5, 0, [5]),
        ("SCMP_CMP_NE", 5, 0, [4, 6]),
        ("SCMP_CMP_LT", 5, 0, [4]),
        ("SCMP_CMP_LE", 5, 0, [4, 5]),
        ("SCMP_CMP_GE", 5, 0, [5, 6]),
        ("SCMP_CMP_GT", 5, 0, [6]),
        ("SCMP_CMP_MASKED_EQ", 0b100, 0b100, [4, 5, 6]),
        ("SCMP_CMP_MASKED_EQ", 0b010, 0, [4, 5]),
    ],
)
def test_conditions(operator: str, value: int, two: int, hits: list[int]) -> None:
    seccomp.library()
    condition = {"index": 0, "value": value, "valueTwo": two, "op": operator}
    profile = {**ALLOW, "syscalls": [rule("umask", errnoRet=77, args=[condition])]}
    for number in (4, 5, 6):
        found = under(profile, errno_of(lambda number=number: raw("umask", number)))
        assert found == (77 if number in hits else 0), number


def test_conditions_on_one_argument_are_alternatives_on_several_all_must_hold() -> None:
    seccomp.library()
    both = [{"index": i, "value": 1, "op": "SCMP_CMP_EQ"} for i in (0, 1)]
    profile = {**ALLOW, "syscalls": [rule("getpriority", errnoRet=77, args=both)]}
    assert under(profile, errno_of(lambda: raw("getpriority", 1, 1))) == 77
    assert under(profile, errno_of(lambda: raw("getpriority", 1, 0))) == 0
    either = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (4, 6)]
    profile = {**ALLOW, "syscalls": [rule("umask", errnoRet=77, args=either)]}
    assert [under(profile, errno_of(lambda n=n: raw("umask", n))) for n in (4, 5, 6)] == [77, 0, 77]


def test_calls_newer_than_an_allow_list_do_not_exist() -> None:
    seccomp.library()
    names = [
        "read",
        "write",
        "exit_group",
        "mmap",
        "munmap",
        "brk",
        "rt_sigaction",
        "futex",
        "umask",
        "close",
    ]
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule(*names, "getcpu", action="SCMP_ACT_ALLOW")],
    }
    assert under(profile, umask) == 0
    assert under(profile, errno_of(lambda: raw("getppid"))) == errno.EPERM
    assert under(profile, errno_of(lambda: raw("", 470))) == errno.ENOSYS


def test_calls_nobody_knows_are_left_to_the_default() -> None:
    profile = {**ALLOW, "syscalls": [rule("call_of_tomorrow", "umask", errnoRet=77)]}
    assert under(profile, umask) == 77


def test_flags() -> None:
    assert seccomp.flags({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}) == 3
    profile = {**ALLOW, "flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], "syscalls": [rule("umask", errnoRet=77)]}
    assert under(profile, umask) == 77


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {**ALLOW, "architectures": ["SCMP_ARCH_PDP11"]},
        {**ALLOW, "syscalls": [rule("umask", action="SCMP_ACT_NO")]},
        {**ALLOW, "syscalls": [rule("umask", action="SCMP_ACT_NOTIFY")]},
        {**ALLOW, "syscalls": [rule("umask", args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}])]},
        {**ALLOW, "syscalls": [rule("umask", args=[{"index": 0, "value": 1, "op": "LIKE"}])]},
        {**ALLOW, "syscalls": [rule("umask", errnoRet=1 << 20)]},
    ],
)
def test_what_cant_be_kept_is_refused(profile: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        seccomp.compile(profile)


def test_programs_are_kept_and_a_torn_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = {**ALLOW, "syscalls": [rule("umask", errnoRet=78)]}
    program = seccomp.compile(profile, tmp_path)
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr(seccomp, "_compiled", {})
    with monkeypatch.context() as patch:
        patch.setattr(seccomp, "library", lambda: pytest.fail("compiled again"))
        assert seccomp.compile(profile, tmp_path) == program
    monkeypatch.setattr(seccomp, "_compiled", {})
    kept.write_bytes(kept.read_bytes()[:-5])
    assert seccomp.compile(profile, tmp_path) == program
