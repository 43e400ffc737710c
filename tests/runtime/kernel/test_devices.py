"""Device rules: the v1 lines, and the v2 program asked by the kernel itself."""

import secrets
import subprocess
from collections.abc import Iterator

import pytest
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import cgroups, devices
from dockmagic_runtime.kernel.cgroups import Cgroup, Layout

DENY_ALL = {"allow": False, "access": "rwm"}


def char(minor: int | None, access: str, allow: bool = True, major: int | None = 1) -> dict:
    rule = {"allow": allow, "type": "c", "access": access, "major": major, "minor": minor}
    return {key: value for key, value in rule.items() if value is not None}


def test_v1_lines() -> None:
    rules = [DENY_ALL, char(3, "rw"), char(None, "m", major=None), {"allow": True, "access": "m"}]
    assert devices.v1_lines(rules) == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rw"),
        ("devices.allow", "c *:* m"),
        ("devices.allow", "b *:* m"),
        ("devices.allow", "c *:* m"),
    ]


@pytest.mark.parametrize("rule", [{"allow": True, "type": "x"}, {"allow": True, "access": "rx"}])
def test_odd_rules_are_refused(rule: dict) -> None:
    with pytest.raises(InvalidParameter):
        devices.v1_lines([rule])


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cgroup]:
    v2 = cgroups.layout().v2
    if v2 is None:
        pytest.fail("these tests need a cgroup2 mount: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
    monkeypatch.setattr(cgroups, "layout", lambda: Layout({}, v2))
    made = Cgroup.create(f"/dmt-{secrets.token_hex(4)}")
    yield made
    made.remove(kill=True)


def allowed(group: Cgroup, path: str, mode: str) -> bool:
    """Whether a process of the group may open a device."""
    operator = {"r": "<", "w": ">", "rw": "<>"}[mode]
    script = f"read go; exec 3{operator}{path}"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        group.add(process.pid)
        process.communicate(b"\n", timeout=10)
        return process.returncode == 0


def test_the_program_denies_and_allows(group: Cgroup) -> None:
    group.apply({"devices": [DENY_ALL, char(3, "rwm"), char(5, "r"), char(None, "r", major=5)]})
    assert allowed(group, "/dev/null", "rw")
    assert allowed(group, "/dev/zero", "r")
    assert not allowed(group, "/dev/zero", "w")
    assert not allowed(group, "/dev/zero", "rw")
    assert not allowed(group, "/dev/full", "r")


def test_the_last_rule_that_fits_decides(group: Cgroup) -> None:
    group.apply({"devices": [{"allow": True}, char(5, "w", allow=False), char(7, "rwm", allow=False)]})
    assert allowed(group, "/dev/zero", "r")
    assert not allowed(group, "/dev/zero", "w")
    assert not allowed(group, "/dev/full", "r")
    assert allowed(group, "/dev/null", "w")


def test_rules_can_be_replaced(group: Cgroup) -> None:
    group.apply({"devices": [DENY_ALL]})
    assert not allowed(group, "/dev/null", "r")
    group.apply({"devices": [DENY_ALL, char(3, "r")]})
    assert allowed(group, "/dev/null", "r")
    assert not allowed(group, "/dev/null", "w")


def test_nothing_is_allowed_that_no_rule_is_about(group: Cgroup) -> None:
    group.apply({"devices": [char(3, "rw")]})
    assert allowed(group, "/dev/null", "rw")
    assert not allowed(group, "/dev/zero", "r")


def test_many_rules_pass_the_verifier(group: Cgroup) -> None:
    group.apply(
        {"devices": [DENY_ALL, *[char(minor, "rw", major=200) for minor in range(200)], char(3, "rw")]}
    )
    assert allowed(group, "/dev/null", "rw")
    assert not allowed(group, "/dev/zero", "r")
