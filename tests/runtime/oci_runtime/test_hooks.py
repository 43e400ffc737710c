"""Hooks: their order, what they are told, and what their failure means."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Runtime

Hook = Callable[..., dict[str, Any]]


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """The words of each line that hooks have written: name, status, mount namespace."""
    return lambda: [line.split() for line in (tmp_path / "hooks.log").read_text().splitlines()]


def test_order_status_and_namespaces(runtime: Runtime, hook: Hook, log: Callable, tmp_path: Path) -> None:
    runtime.config["annotations"] = {"com.example.key": "value"}
    points = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    runtime.config["hooks"] = {point: [hook(point)] for point in points}
    inside = {"path": "/bin/sh", "args": ["sh", "-c", "cat > /state; readlink /proc/self/ns/mnt > /mnt.ns"]}
    runtime.config["hooks"]["startContainer"] = [inside]
    runtime.create("sleep 0.1")
    assert [line[:2] for line in log()] == [[point, "creating"] for point in points[:3]]
    state = runtime.state()
    runtime.ok("start", runtime.id)
    assert log()[3][:2] == ["poststart", "running"]
    runtime.await_status("stopped")
    runtime.ok("delete", runtime.id)
    assert log()[4][:2] == ["poststop", "stopped"]

    host = str(Path("/proc/self/ns/mnt").readlink())
    assert [line[2] == host for line in log()] == [True, True, False, True, True]
    assert (runtime.rootfs / "mnt.ns").read_text().strip() == log()[2][2]

    told = {point: json.loads((tmp_path / f"{point}.json").read_text()) for point in points}
    for document in told.values():
        assert document["id"] == runtime.id
        assert document["bundle"] == str(runtime.bundle)
        assert document["annotations"] == {"com.example.key": "value"}
    assert told["createRuntime"]["pid"] == told["poststart"]["pid"] == state["pid"]
    assert told["createContainer"]["pid"] == 1
    assert "pid" not in told["poststop"]
    in_container = json.loads((runtime.rootfs / "state").read_text())
    assert (in_container["status"], in_container["pid"]) == ("created", 1)


@pytest.mark.parametrize("point", ["prestart", "createRuntime", "createContainer"])
def test_failure_ends_the_creation(runtime: Runtime, hook: Hook, log: Callable, point: str) -> None:
    runtime.config["hooks"] = {
        point: [hook("first"), hook("second", "echo reason >&2; exit 3"), hook("third")],
        "poststop": [hook("after")],
    }
    error = runtime.refused()
    assert "error running hook #1" in error
    assert "exit status 3" in error
    assert "reason" in error
    assert [line[0] for line in log()] == ["first", "second", "after"]
    assert not runtime.cgroup.exists()


def test_failure_inside_is_an_error_of_start(runtime: Runtime) -> None:
    runtime.config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
    runtime.create("touch /ran")
    done = runtime("start", runtime.id)
    assert done.returncode == 1
    assert "startContainer" in done.stderr
    assert runtime.status() == "stopped"
    assert not (runtime.rootfs / "ran").exists()


def test_failure_afterwards_is_a_warning(runtime: Runtime, hook: Hook, log: Callable) -> None:
    for point in ("poststart", "poststop"):
        runtime.config.setdefault("hooks", {})[point] = [hook(f"{point}1", "exit 1"), hook(f"{point}2")]
    runtime.create()
    started = runtime("start", runtime.id)
    assert started.returncode == 0
    assert "level=warning" in started.stderr
    assert runtime.status() == "running"
    deleted = runtime("delete", "--force", runtime.id)
    assert deleted.returncode == 0
    assert [line[0] for line in log()] == ["poststart1", "poststart2", "poststop1", "poststop2"]


def test_timeout(runtime: Runtime) -> None:
    hook = {"path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1}
    runtime.config["hooks"] = {"createRuntime": [hook]}
    assert "not done after 1 seconds" in runtime.refused()


def test_environment_is_the_hooks_own(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "env"
    hook = {
        "path": "/bin/sh",
        "args": ["zero", "-c", f"/usr/bin/env > {path}; echo $0 >> {path}"],
        "env": ["A=b c"],
    }
    runtime.config["hooks"] = {"prestart": [hook]}
    runtime.create()
    lines = path.read_text().splitlines()
    assert "A=b c" in lines
    assert {line.split("=")[0] for line in lines[:-1]} <= {"A", "PWD", "SHLVL", "_"}
