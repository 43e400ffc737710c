"""Control groups: real ones of this machine, and v2's parts wherever a v2 hierarchy is mounted."""

import os
import secrets
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import cgroups
from dockmagic_runtime.kernel.cgroups import Cgroup, Layout, layout, v2


@pytest.fixture(params=["this machine", "v2"])
def where(request: pytest.FixtureRequest) -> Layout:
    """The machine's own layout, and its v2 mount taken as if it were alone."""
    if request.param == "v2":
        if layout().v2 is None:
            pytest.fail("these tests need a cgroup2 mount: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
        return Layout({}, layout().v2)
    return layout()


@pytest.fixture
def group(where: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cgroup]:
    monkeypatch.setattr(cgroups, "layout", lambda: where)
    parent = f"/dmt-{secrets.token_hex(4)}"
    made = Cgroup.create(f"{parent}/child")
    yield made
    made.remove(kill=True)
    Cgroup.open(parent).remove()
    assert not Cgroup.open(parent).exists()


@pytest.fixture
def sleeper(group: Cgroup) -> Iterator[int]:
    with subprocess.Popen(["sleep", "100"]) as process:
        group.add(process.pid)
        yield process.pid
        process.kill()


def test_membership(group: Cgroup, sleeper: int) -> None:
    assert group.pids() == [sleeper]
    assert group.exists()
    names = {line.split(":")[2].strip() for line in Path(f"/proc/{sleeper}/cgroup").read_text().splitlines()}
    assert group.path in names


def test_freeze_and_thaw(group: Cgroup, sleeper: int) -> None:
    assert not group.frozen()
    group.freeze()
    assert group.frozen()
    group.thaw()
    assert not group.frozen()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_kill_reaches_every_process(group: Cgroup, number: int) -> None:
    children = [subprocess.Popen(["sleep", "100"]) for _ in range(3)]
    for child in children:
        group.add(child.pid)
    group.kill(number)
    assert [child.wait(5) for child in children] == [-number] * 3


def test_kill_of_a_frozen_group(group: Cgroup) -> None:
    with subprocess.Popen(["sleep", "100"]) as child:
        group.add(child.pid)
        group.freeze()
        group.kill()
        assert child.wait(5) == -signal.SIGKILL


def test_rename_takes_processes_along(group: Cgroup, sleeper: int) -> None:
    group.rename(group.path + "-new")
    assert group.path.endswith("-new")
    assert group.pids() == [sleeper]
    with pytest.raises(InvalidParameter):
        group.rename("/elsewhere/x")


def test_remove_takes_nested_groups_and_what_runs_there(group: Cgroup) -> None:
    nested = Cgroup.create(group.path + "/deep/er")
    with subprocess.Popen(["sleep", "100"]) as child:
        nested.add(child.pid)
        assert group.pids() == [child.pid]
        group.remove(kill=True)
        assert child.wait(5) == -signal.SIGKILL
    assert not group.exists()


def test_limits_can_be_set_changed_and_read_back() -> None:
    group = Cgroup.create(f"/dmt-{secrets.token_hex(4)}")
    try:
        group.apply({"memory": {"limit": 64 << 20, "swap": 128 << 20}, "pids": {"limit": 7}})
        assert (group.stats().memory_limit, group.stats().pids_limit) == (64 << 20, 7)
        # Both grow, so that memory plus swap has to go first; then both shrink.
        group.apply({"memory": {"limit": 256 << 20, "swap": 256 << 20}})
        group.apply({"memory": {"limit": 32 << 20, "swap": 32 << 20}, "pids": {"limit": -1}})
        assert (group.stats().memory_limit, group.stats().pids_limit) == (32 << 20, None)
        group.apply({"memory": {"limit": -1}})
        assert group.stats().memory_limit is None
        with pytest.raises(OSError) as error:
            group.apply({"cpu": {"cpus": "99999"}})
        assert error.value.filename.endswith("cpuset.cpus")
    finally:
        group.remove()


def test_statistics_count() -> None:
    group = Cgroup.create(f"/dmt-{secrets.token_hex(4)}")
    try:
        before = group.stats()
        script = "import time\nx = bytearray(20 << 20)\nwhile time.process_time() < 0.2: pass\ninput()"
        with subprocess.Popen(["python3", "-c", f"input()\n{script}"], stdin=subprocess.PIPE) as busy:
            assert busy.stdin
            group.add(busy.pid)
            busy.stdin.write(b"\n")
            busy.stdin.flush()
            while group.stats().cpu_usage_ns < 150_000_000:
                assert busy.poll() is None
            stats = group.stats()
            busy.kill()
        assert stats.cpu_usage_ns > before.cpu_usage_ns
        assert stats.memory_usage > 10 << 20
        assert stats.memory_stat
        assert stats.pids_current == 1
    finally:
        group.remove(kill=True)


def test_an_oom_kill_is_seen() -> None:
    group = Cgroup.create(f"/dmt-{secrets.token_hex(4)}")
    watch = group.oom_watch()
    assert watch
    try:
        group.apply({"memory": {"limit": 16 << 20, "swap": 16 << 20}})
        assert group.oom_kills() == 0
        greedy = ["python3", "-c", "input(); x = bytearray(100 << 20); input()"]
        with subprocess.Popen(greedy, stdin=subprocess.PIPE) as process:
            assert process.stdin
            group.add(process.pid)
            process.stdin.write(b"\n")
            process.stdin.flush()
            poll = select.poll()
            poll.register(*watch)
            assert poll.poll(10_000)
            assert process.wait(10) == -signal.SIGKILL
        assert group.oom_kills() == 1
    finally:
        os.close(watch[0])
        group.remove(kill=True)


def test_what_the_controllers_cant_keep_is_an_error() -> None:
    group = Cgroup.create(f"/dmt-{secrets.token_hex(4)}")
    try:
        if not group.layout.unified:
            with pytest.raises(InvalidParameter, match="needs cgroup v2"):
                group.apply({"unified": {"memory.high": "1"}})
        if "net_cls" not in group.layout.controllers:
            with pytest.raises(InvalidParameter, match="no net_cls cgroup controller"):
                group.apply({"network": {"classID": 1}})
        if "rdma" not in group.layout.controllers:
            with pytest.raises(InvalidParameter, match="no rdma cgroup controller"):
                group.apply({"rdma": {"mlx5_0": {"hcaHandles": 1}}})
    finally:
        group.remove()


def test_a_new_group_inherits_cpus_and_memory_nodes() -> None:
    where = layout()
    effective = "cpuset.effective_cpus" if "cpuset" in where.v1 else "cpuset.cpus.effective"
    top = Path(where.v1.get("cpuset") or where.v2 or "")
    parent = f"/dmt-{secrets.token_hex(4)}"
    group = Cgroup.create(f"{parent}/a/b")
    try:
        with subprocess.Popen(["sleep", "100"]) as process:
            group.add(process.pid)  # which v1 refuses for a group without either
            process.kill()
        assert Path(f"{top}{group.path}/{effective}").read_text() == (top / effective).read_text()
    finally:
        Cgroup.open(parent).remove()


@pytest.mark.parametrize("path", ["", "/", "/a/../b", "..", "/a/./b"])
def test_odd_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidParameter):
        Cgroup.open(path)


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 1), (2, 1), (1024, 100), (262144, 10000), (1 << 40, 10000)]
)
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert v2.weight_of_shares(shares) == weight


def test_the_weight_of_more_shares_is_never_less() -> None:
    weights = [v2.weight_of_shares(1 << power) for power in range(1, 19)]
    assert weights == sorted(weights)


@pytest.mark.parametrize(("weight", "converted"), [(10, 1), (1000, 10000), (500, 4950)])
def test_block_io_weights(weight: int, converted: int) -> None:
    assert v2.io_weight_of_blkio(weight) == converted


def test_swap_is_without_memory_on_v2() -> None:
    assert v2.swap_alone(100, 300) == 200
    assert v2.swap_alone(100, -1) == "max"
    assert v2.swap_alone(100, 100) == 0
    for limit, swap in ((None, 100), (-1, 100), (100, 50)):
        with pytest.raises(InvalidParameter):
            v2.swap_alone(limit, swap)


def test_layouts_are_told_apart() -> None:
    assert Layout({}, "/sys/fs/cgroup").unified
    assert Layout({"name=systemd": "/sys/fs/cgroup/systemd"}, "/sys/fs/cgroup/unified").unified
    assert not Layout({"memory": "/sys/fs/cgroup/memory"}, "/sys/fs/cgroup/unified").unified
    assert not Layout({"memory": "/sys/fs/cgroup/memory"}, None).unified
    both = {"cpu": "/c", "cpuacct": "/c", "memory": "/m"}
    assert Layout(both, None).v1_mounts == ("/c", "/m")
