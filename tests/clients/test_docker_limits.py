"""The docker command's limits: what `run` and `update` set, discard with a warning, or refuse.

The sentences are those that Docker answered to the same commands.
"""

import os

import pytest
from dockmagic_runtime.kernel.cgroups import layout

from tests.conftest import EngineProcess

MIB = 1 << 20
CPUS = len(os.sched_getaffinity(0))

# What the container's group says: file and value, as (cgroup v1, cgroup v2).
LIMITS = [
    (("memory/memory.limit_in_bytes", str(64 * MIB)), ("memory.max", str(64 * MIB))),
    (("memory/memory.memsw.limit_in_bytes", str(80 * MIB)), ("memory.swap.max", str(16 * MIB))),
    (("memory/memory.soft_limit_in_bytes", str(32 * MIB)), ("memory.low", str(32 * MIB))),
    (("cpu/cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")),
    (("cpu/cpu.shares", "512"), ("cpu.weight", "59")),
    (("cpuset/cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    (("cpuset/cpuset.mems", "0"), ("cpuset.mems", "0")),
    (("pids/pids.max", "77"), ("pids.max", "77")),
]


def show(expected: list[tuple[tuple[str, str], tuple[str, str]]]) -> tuple[str, str]:
    """A shell command that prints the files, and what it should print."""
    chosen = [each[1 if layout().unified else 0] for each in expected]
    files = " ".join(f"/sys/fs/cgroup/{name}" for name, _ in chosen)
    return f"cat {files}", "".join(f"{value}\n" for _, value in chosen)


def test_every_limit_reaches_the_kernel(engine: EngineProcess) -> None:
    command, output = show(LIMITS)
    options = "-m 64m --memory-swap 80m --memory-reservation 32m --cpus 0.5 --cpu-shares 512"
    options += " --cpuset-cpus 0 --cpuset-mems 0 --pids-limit 77"
    done = engine.docker("run", "--rm", *options.split(), "busybox", "sh", "-c", command)
    assert (done.stdout, done.stderr) == (output, "")


def test_quota_period_and_unlimited_swap(engine: EngineProcess) -> None:
    command, output = show(
        [
            (("cpu/cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 50000")),
            (("cpu/cpu.cfs_period_us", "50000"), ("cpu.max", "20000 50000")),
            (("memory/memory.memsw.limit_in_bytes", "9223372036854771712"), ("memory.swap.max", "max")),
            (("pids/pids.max", "max"), ("pids.max", "max")),
        ]
    )
    options = "--cpu-quota 20000 --cpu-period 50000 -m 64m --memory-swap -1 --pids-limit -1"
    done = engine.docker("run", "--rm", *options.split(), "busybox", "sh", "-c", command)
    assert (done.stdout, done.stderr) == (output, "")


@pytest.mark.skipif(layout().unified, reason="cgroup v2 has no swappiness and no OOM killer to switch off")
def test_swappiness_and_no_oom_killer(engine: EngineProcess) -> None:
    files = (
        "cat /sys/fs/cgroup/memory/memory.swappiness; grep disable /sys/fs/cgroup/memory/memory.oom_control"
    )
    options = "--memory-swappiness 7 --oom-kill-disable -m 64m"
    done = engine.docker("run", "--rm", *options.split(), "busybox", "sh", "-c", files)
    assert (done.stdout, done.stderr) == ("7\noom_kill_disable 1\n", "")
    endless = engine.docker("run", "--rm", "--oom-kill-disable", "busybox", "true")
    assert endless.stderr == (
        "WARNING: OOM killer is disabled for the container, but no memory limit is set, "
        "this can result in the system running out of resources.\n"
    )


def test_disk_limits(engine: EngineProcess) -> None:
    """By device: the numbers are those of a real block device, whichever it is."""
    names = [name for name in sorted(os.listdir("/sys/block")) if not name.startswith(("loop", "ram"))]  # noqa: PTH208
    if not names:
        pytest.fail("this machine has no disk")
    numbers = open(f"/sys/block/{names[0]}/dev").read().strip()  # noqa: PTH123, SIM115
    device = f"/dev/{names[0]}"
    options = [f"--device-read-bps={device}:1mb", f"--device-write-bps={device}:2mb"]
    options += [f"--device-read-iops={device}:3", f"--device-write-iops={device}:4"]
    if layout().unified:
        command = "cat /sys/fs/cgroup/io.max"
        output = f"{numbers} rbps=1048576 wbps=2097152 riops=3 wiops=4\n"
    else:
        kinds = ("read_bps", "write_bps", "read_iops", "write_iops")
        command = "cat " + " ".join(f"/sys/fs/cgroup/blkio/blkio.throttle.{kind}_device" for kind in kinds)
        output = f"{numbers} 1048576\n{numbers} 2097152\n{numbers} 3\n{numbers} 4\n"
    done = engine.docker("run", "--rm", *options, "busybox", "sh", "-c", command)
    assert (done.stdout, done.stderr) == (output, "")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("-m 1m", "Minimum memory limit allowed is 6MB"),
        (
            "-m 20m --memory-swap 10m",
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            "--memory-swap 10m",
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        ("--memory-reservation 1m", "Minimum memory reservation allowed is 6MB"),
        (
            "-m 10m --memory-reservation 20m",
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            f"--cpus {CPUS + 1}",
            f"Range of CPUs is from 0.01 to {CPUS}.00, as there are only {CPUS} CPUs available",
        ),
        (
            "--cpus -1",
            f"Range of CPUs is from 0.01 to {CPUS}.00, as there are only {CPUS} CPUs available",
        ),
        (
            "--cpus 1 --cpu-quota 5000",
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            "--cpus 1 --cpu-period 5000",
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        ("--cpu-quota 500", "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (
            "--cpu-period 500",
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ("--cpuset-cpus 9999", "Requested CPUs are not available - requested 9999, available: "),
        ("--cpuset-cpus abc", "Invalid value abc for cpuset cpus: invalid format: abc"),
        ("--cpuset-mems 99", "Requested memory nodes are not available - requested 99, available: "),
        ("--oom-score-adj 1001", "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        ("--cpu-shares -1", "invalid CPU shares (-1): value must be a positive integer"),
    ],
)
def test_what_create_refuses(engine: EngineProcess, options: str, sentence: str) -> None:
    refused = engine.docker("create", *options.split(), "busybox", "true")
    assert refused.returncode == 1
    assert f"Error response from daemon: {sentence}" in refused.stderr
    assert engine.docker("ps", "-aq").stdout == ""


def test_weights_where_no_scheduler_weighs_are_discarded_with_a_warning(engine: EngineProcess) -> None:
    if layout().weighs_block_io or layout().weighs_block_devices:
        pytest.skip("this kernel weighs block I/O")
    done = engine.docker(
        "create", "--blkio-weight", "300", "--blkio-weight-device", "/dev/null:200", "busybox", "true"
    )
    assert done.stderr.splitlines() == [
        "WARNING: Your kernel does not support Block I/O weight or the cgroup is not mounted. "
        "Weight discarded.",
        "WARNING: Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
        "Weight-device discarded.",
    ]


def test_update_changes_a_running_container(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    options = "-m 64m --memory-swap 80m --memory-reservation 32m --cpus 0.5 --cpu-shares 512"
    options += " --cpuset-cpus 0 --cpuset-mems 0 --pids-limit 77"
    done = engine.docker("update", *options.split(), "box")
    assert (done.stdout, done.stderr) == ("box\n", "")
    command, output = show(LIMITS)
    assert engine.docker("exec", "box", "sh", "-c", command).stdout == output
    engine.docker("update", "--pids-limit", "-1", "box")
    command, output = show([(("pids/pids.max", "max"), ("pids.max", "max"))])
    assert engine.docker("exec", "box", "sh", "-c", command).stdout == output
    told = engine.docker("inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", "box")
    assert told.stdout == "500000000 0\n"


def test_update_of_a_container_that_does_not_run_holds_from_its_start(engine: EngineProcess) -> None:
    command, output = show([(("cpu/cpu.shares", "512"), ("cpu.weight", "59"))])
    engine.docker("create", "--name", "box", "busybox", "sh", "-c", command)
    assert engine.docker("update", "--cpu-shares", "512", "box").returncode == 0
    assert engine.docker("start", "-a", "box").stdout == output


@pytest.mark.parametrize(
    ("has", "asks", "sentence"),
    [
        (
            "",
            "-m 64m",
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time",
        ),
        (
            "--cpu-quota 20000",
            "--cpus 1",
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            "--cpu-period 20000",
            "--cpus 1",
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            "--cpus 1",
            "--cpu-quota 20000",
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
    ],
)
def test_update_refuses_what_clashes(engine: EngineProcess, has: str, asks: str, sentence: str) -> None:
    identity = engine.docker("create", "--name", "box", *has.split(), "busybox", "true").stdout.strip()
    refused = engine.docker("update", *asks.split(), "box")
    assert refused.returncode == 1
    assert refused.stderr == f"Error response from daemon: Cannot update container {identity}: {sentence}\n"


def test_update_that_the_kernel_refuses_changes_nothing(engine: EngineProcess) -> None:
    """More memory alone than memory and swap together."""
    engine.docker("run", "-d", "--name", "box", "-m", "64m", "busybox", "sleep", "1000")
    if layout().unified:
        pytest.skip("cgroup v2 counts swap apart")
    refused = engine.docker("update", "--cpu-shares", "99", "--memory-swap", "10m", "box")
    assert refused.returncode == 1
    assert "Cannot update container " in refused.stderr
    told = engine.docker("inspect", "-f", "{{.HostConfig.CpuShares}} {{.HostConfig.MemorySwap}}", "box")
    assert told.stdout == f"0 {128 * MIB}\n"
    assert engine.docker("exec", "box", "cat", "/sys/fs/cgroup/cpu/cpu.shares").stdout == "1024\n"


def test_memory_limit_kills_and_says_so(engine: EngineProcess) -> None:
    eater = "x=a; while :; do x=$x$x; done"
    done = engine.docker(
        "run", "--name", "eater", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", eater
    )
    assert done.returncode == 137
    assert engine.docker("inspect", "-f", "{{.State.OOMKilled}}", "eater").stdout == "true\n"


def test_pids_limit(engine: EngineProcess) -> None:
    forks = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done"
    done = engine.docker("run", "--rm", "--pids-limit", "4", "busybox", "sh", "-c", forks)
    assert "fork" in done.stderr


def test_limits_of_processes(engine: EngineProcess) -> None:
    """`--ulimit`, `--oom-score-adj`."""
    options = "--ulimit nofile=100:200 --ulimit core=0 --ulimit nproc=50 --oom-score-adj 77"
    command = "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj"
    done = engine.docker("run", "--rm", *options.split(), "busybox", "sh", "-c", command)
    assert (done.stdout, done.stderr) == ("100\n200\n0\n77\n", "")
