"""Capability sets, in processes made to give theirs up."""

import os
from collections.abc import Callable

import pytest
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import capabilities, libc


def in_child(function: Callable[[], None]) -> dict[str, int]:
    """The sets of a child after `function`."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            function()
            os.write(writer, repr(capabilities.current()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as text:
        answer = text.read()
    os.waitpid(pid, 0)
    assert answer, "the child failed"
    found: dict[str, int] = eval(answer)
    return found


def test_names_and_bits() -> None:
    assert capabilities.bits(["CAP_CHOWN", "net_raw", "cap_checkpoint_restore"]) == 1 | 1 << 13 | 1 << 40
    assert capabilities.names(1 | 1 << 13) == ["CAP_CHOWN", "CAP_NET_RAW"]
    assert len(capabilities.NAMES) == 41
    with pytest.raises(InvalidParameter, match='unknown capability "CAP_X"'):
        capabilities.bits(["CAP_X"])


def test_the_kernels_last_one() -> None:
    assert capabilities.every().bit_length() == capabilities.last_cap() + 1
    assert capabilities.current()["permitted"] & ~capabilities.every() == 0


def test_giving_up() -> None:
    keep = capabilities.bits(["CAP_KILL", "CAP_CHOWN", "CAP_SETPCAP"])

    def give_up() -> None:
        capabilities.last_cap()
        capabilities.drop_bounding(keep)
        capabilities.set_caps(keep & ~1, keep, inheritable=1)
        capabilities.set_ambient(1)

    assert in_child(give_up) == {
        "bounding": keep,
        "permitted": keep,
        "effective": keep & ~1,
        "inheritable": 1,
        "ambient": 1,
    }


def test_capabilities_survive_a_change_of_user_when_kept() -> None:
    def change() -> None:
        libc.prctl(libc.PR_SET_KEEPCAPS, 1)
        os.setresuid(1000, 1000, 1000)
        capabilities.set_caps(1, 1)

    assert in_child(change)["effective"] == 1


def test_what_is_not_permitted_is_refused() -> None:
    def grab() -> None:
        capabilities.set_caps(0, 0)
        with pytest.raises(PermissionError):
            capabilities.set_caps(1, 1)

    assert in_child(grab)["permitted"] == 0
