"""Podman with this runtime in place of its own, on storage and cgroups of the test's."""

import io
import json
import os
import pty
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dockmagic_runtime.kernel.cgroups import Cgroup

from .conftest import COMMAND

CGROUP_PARENT = "/dmt-podman"


class Podman:
    def __init__(self, directory: Path):
        self.options = [
            *("--root", str(directory / "storage"), "--runroot", str(directory / "run")),
            *("--tmpdir", str(directory / "tmp"), "--storage-driver", "vfs", "--events-backend", "file"),
            *("--cgroup-manager", "cgroupfs", "--runtime", str(COMMAND)),
        ]

    def __call__(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", *self.options, *arguments], input=stdin, capture_output=True, text=True, timeout=60
        )

    def ok(self, *arguments: str) -> str:
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """`podman run --rm` without a network: that is not the runtime's work."""
        confined = ("--network", "none", "--cgroup-parent", CGROUP_PARENT)
        return self("run", "--rm", *confined, *arguments, stdin=stdin)

    def start(self, name: str, *arguments: str) -> None:
        confined = ("--network", "none", "--cgroup-parent", CGROUP_PARENT)
        self.ok("run", "-d", "--name", name, *confined, *arguments)

    def on_terminal(self, *arguments: str) -> tuple[bytes, int]:
        """Run with a terminal: what it showed, and the exit code."""
        pid, master = pty.fork()
        if pid == 0:
            os.execvp("podman", ["podman", *self.options, *arguments])
        output = b""
        try:
            while chunk := os.read(master, 4096):
                output += chunk
        except OSError:  # EIO: the other side has closed it
            pass
        os.close(master)
        return output, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Iterator[Podman]:
    if not shutil.which("podman") or not shutil.which("conmon"):
        pytest.fail("these tests need podman: apt install podman conmon")
    directory = tmp_path_factory.mktemp("podman")
    # conmon makes the second one for itself.
    groups = [
        group for path in (CGROUP_PARENT, "/libpod_parent") if not (group := Cgroup.open(path)).exists()
    ]
    made = Podman(directory)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(busybox_rootfs, ".")
    (directory / "busybox.tar").write_bytes(content.getvalue())
    made.ok("import", "-q", str(directory / "busybox.tar"), "bb")
    yield made
    made.ok("rm", "--all", "--force", "--time", "0")
    for mount in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if str(directory) in mount.split()[1]:
            subprocess.run(["umount", mount.split()[1]], check=True)
    for group in groups:
        group.remove()


def test_run_with_output_input_and_exit_code(podman: Podman) -> None:
    done = podman.run("-i", "bb", "sh", "-c", "read x; echo got $x; echo err >&2; exit 42", stdin="word\n")
    assert (done.returncode, done.stdout) == (42, "got word\n")
    assert "err" in done.stderr


@pytest.mark.parametrize(("program", "code"), [("nope", 127), ("/etc", 126), ("/etc/passwd", 126)])
def test_exit_codes_of_what_cant_run(podman: Podman, program: str, code: int) -> None:
    assert podman.run("bb", program).returncode == code


def test_terminal(podman: Podman) -> None:
    output, code = podman.on_terminal(
        "run", "--rm", "-it", "--network", "none", "bb", "sh", "-c", "tty; exit 6"
    )
    assert b"/dev/pts/0" in output
    assert code == 6


def test_life_of_a_container(podman: Podman) -> None:
    script = "echo begun; trap 'echo bye; exit 9' TERM; while :; do sleep 0.05; done"
    podman.start("life", "bb", "sh", "-c", script)
    done = podman("exec", "life", "sh", "-c", "echo inside; exit 4")
    assert (done.returncode, done.stdout) == (4, "inside\n")
    assert podman("exec", "life", "nope").returncode == 127
    output, code = podman.on_terminal("exec", "-it", "life", "sh", "-c", "tty; exit 3")
    assert b"/dev/pts/0" in output
    assert code == 3
    assert "sleep" in podman.ok("top", "life")

    podman.ok("pause", "life")
    assert podman.ok("inspect", "-f", "{{.State.Status}}", "life") == "paused"
    podman.ok("unpause", "life")
    assert podman.ok("inspect", "-f", "{{.State.Status}}", "life") == "running"

    podman.ok("stop", "life")
    assert podman.ok("inspect", "-f", "{{.State.ExitCode}}", "life") == "9"
    assert podman.ok("logs", "life").split() == ["begun", "bye"]
    podman.ok("start", "life")
    podman.ok("kill", "--signal", "KILL", "life")
    assert podman.ok("wait", "life") == "137"
    podman.ok("rm", "life")


def test_limits(podman: Podman) -> None:
    podman.start("limits", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "bb", "sleep", "100")
    path = podman.ok("inspect", "-f", "{{.State.CgroupPath}}", "limits")
    stats = Cgroup.open(path).stats()
    assert (stats.memory_limit, stats.pids_limit) == (64 << 20, 50)
    (entry,) = json.loads(podman.ok("stats", "--no-stream", "--format", "json", "limits"))
    assert entry["name"] == "limits"
    podman.ok("rm", "--force", "--time", "0", "limits")


def test_readonly_and_its_tmpfs(podman: Podman) -> None:
    done = podman.run("--read-only", "bb", "sh", "-c", "touch /x; touch /tmp/y && echo tmp")
    assert done.stdout == "tmp\n"
    assert "Read-only file system" in done.stderr


def test_privileged_and_user(podman: Podman) -> None:
    plain = podman.run("bb", "grep", "CapEff", "/proc/self/status").stdout.split()[1]
    every = podman.run("--privileged", "bb", "grep", "CapEff", "/proc/self/status").stdout.split()[1]
    assert int(plain, 16) & ~int(every, 16) == 0
    assert int(every, 16) > int(plain, 16)
    done = podman.run(
        "--user",
        "1000:1001",
        "--workdir",
        "/tmp",
        "--hostname",
        "hh",
        "bb",
        "sh",
        "-c",
        "id -u; id -g; pwd; hostname",
    )
    assert done.stdout.split() == ["1000", "1001", "/tmp", "hh"]


def test_default_seccomp_profile_is_in_force(podman: Podman) -> None:
    done = podman.run("bb", "grep", "Seccomp:", "/proc/self/status")
    assert done.stdout.split()[1] == "2", done.stderr
