"""Bundles of busybox, and the OCI runtime command run on them as an engine would: as a process of its own."""

import copy
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.oci.runtime import default_spec

BUSYBOX = Path("/bin/busybox")
COMMAND = Path(sys.executable).with_name("dockmagic-runtime")


class Runtime:
    """`dockmagic-runtime` with a `--root` of its own, and one bundle."""

    def __init__(self, directory: Path, rootfs: Path):
        self.root = directory / "state"
        self.bundle = directory / "bundle"
        self.rootfs = self.bundle / "rootfs"
        shutil.copytree(rootfs, self.rootfs, symlinks=True)
        self.id = f"dmt-{secrets.token_hex(4)}"
        self.config: dict[str, Any] = copy.deepcopy(default_spec())
        self.config["process"]["terminal"] = False
        self.config["root"]["readonly"] = False
        self.config["linux"]["cgroupsPath"] = f"/{self.id}"
        self.config["process"]["env"] = ["PATH=/bin"]

    @property
    def process(self) -> dict[str, Any]:
        return self.config["process"]

    @property
    def linux(self) -> dict[str, Any]:
        return self.config["linux"]

    @property
    def cgroup(self) -> Cgroup:
        return Cgroup.open(f"/{self.id}")

    def write(self) -> None:
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def __call__(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command line; stdout and stderr as text."""
        return subprocess.run(
            [str(COMMAND), "--root", str(self.root), *arguments],
            **{"cwd": self.bundle, "capture_output": True, "text": True, "timeout": 30, **options},
        )

    def ok(self, *arguments: str, **options: Any) -> str:
        """As calling, of what must succeed; its stdout."""
        done = self(*arguments, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sh(self, script: str) -> str:
        """The output of a shell script as the container's program, which must succeed."""
        self.process["args"] = ["sh", "-c", script]
        self.write()
        done = self("run", self.id)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def refused(self) -> str:
        """The one line that says why `create` will not take the config."""
        self.write()
        done = self("create", self.id)
        assert done.returncode == 1, "it was created"
        assert done.stderr.count("\n") == 1, done.stderr
        assert json.loads(self.ok("list", "-f", "json")) == []
        return done.stderr.split("msg=", 1)[1].strip().strip('"')

    def create(self, script: str = "sleep 100", **options: Any) -> None:
        self.process["args"] = ["sh", "-c", script]
        self.write()
        # What stays must not hold our pipes.
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "capture_output": False}
        with (self.bundle / "error").open("w+") as error:
            done = self(
                "create", self.id, **{**nowhere, "stdin": subprocess.DEVNULL, **options, "stderr": error}
            )
            error.seek(0)
            assert done.returncode == 0, error.read()

    def state(self) -> dict[str, Any]:
        return json.loads(self.ok("state", self.id))

    def status(self) -> str:
        return self.state()["status"]

    def await_status(self, wanted: str) -> None:
        """The container's end is seen through its first process; other changes are there when asked."""
        if wanted == "stopped":
            descriptor = os.pidfd_open(pid) if (pid := self.state()["pid"]) else -1
            if descriptor >= 0:
                import select

                assert select.select([descriptor], [], [], 10)[0], "it did not end"
                os.close(descriptor)
        assert self.status() == wanted


@pytest.fixture(scope="session")
def busybox_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not BUSYBOX.exists():
        pytest.fail("these tests need a static busybox: apt install busybox-static")
    rootfs = tmp_path_factory.mktemp("busybox")
    rootfs.chmod(0o755)
    for directory in ("bin", "etc", "tmp", "root", "dev", "proc", "sys"):
        (rootfs / directory).mkdir()
    shutil.copy(BUSYBOX, rootfs / "bin")
    for name in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
        if name != "busybox":
            (rootfs / "bin" / name).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n")
    return rootfs


@pytest.fixture
def runtime(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Runtime]:
    made = Runtime(tmp_path, busybox_rootfs)
    yield made
    for entry in json.loads(made.ok("list", "-f", "json")):
        made.ok("delete", "--force", entry["id"])
    assert not made.cgroup.exists(), f"the cgroup /{made.id} is left"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(), "a mount is left"


@pytest.fixture
def hook(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes hooks that append their name, status and where they are to one file (`hooks.log`)."""
    log = tmp_path / "hooks.log"

    def make(name: str, more: str = "") -> dict[str, Any]:
        script = tmp_path / f"{name}.sh"
        lines = [
            "#!/bin/sh",
            "state=$(cat)",
            f'echo "$state" > {tmp_path}/{name}.json',
            """status=$(echo "$state" | sed 's/.*"status": "//; s/".*//')""",
            f'echo "{name} $status $(readlink /proc/self/ns/mnt)" >> {log}',
            more,
        ]
        script.write_text("\n".join(lines) + "\n")
        script.chmod(0o755)
        return {"path": str(script), "args": [name], "env": ["PATH=/usr/bin:/bin"]}

    return make
