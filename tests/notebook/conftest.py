"""What the notebook tests stand on: an engine, an image in it, and cells that run against it.

The engine is our own, on its test data root (fixture `engine`). With `DOCKMAGIC_TEST_DOCKER` set to the
address of a real Docker (`unix:///var/run/docker.sock`) every test runs against that one as well.
"""

import atexit
import io
import os
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

REAL_DOCKER = os.environ.get("DOCKMAGIC_TEST_DOCKER")
ENGINES = ["dockmagic", "docker"] if REAL_DOCKER else ["dockmagic"]
BUSYBOX = Path("/bin/busybox")
APPLETS = [
    "sh",
    "echo",
    "cat",
    "sleep",
    "sort",
    "ls",
    "true",
    "false",
    "env",
    "id",
    "head",
    "touch",
    "printf",
    "rm",
    "wc",
]
IMAGE = "dockmagic-test/busybox:1"
LABEL = "org.dockmagic.test"


@pytest.fixture(params=ENGINES)
def docker_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an engine with IMAGE in it, as DOCKER_HOST; what a test made with LABEL is removed."""
    if request.param == "docker":
        assert REAL_DOCKER is not None
        host = REAL_DOCKER
    else:
        host = f"unix://{request.getfixturevalue('engine').socket}"
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.delenv("DOCKMAGIC_SOCKET", raising=False)
    client = docker.DockerClient(base_url=host)
    repository, tag = IMAGE.split(":")
    client.api.import_image_from_data(busybox_tar(), repository, tag, changes=[f"LABEL {LABEL}=1"])
    yield host
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": LABEL}):
        network.remove()
    for volume in client.volumes.list(filters={"label": LABEL}):
        volume.remove(force=True)
    for image in client.images.list(filters={"label": LABEL}):
        client.images.remove(str(image.id), force=True)
    client.close()


def busybox_tar() -> bytes:
    """A root file system of one static binary."""
    if not BUSYBOX.exists():
        pytest.fail("busybox is missing: apt-get install busybox-static")
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as tar:
        for directory in ("bin", "etc", "tmp", "root", "proc", "dev", "sys"):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        tar.add(BUSYBOX, "bin/busybox")
        for applet in APPLETS:
            member = tarfile.TarInfo(f"bin/{applet}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(member)
        for name, text in (("etc/passwd", "root:x:0:0::/root:/bin/sh\n"), ("etc/group", "root:x:0:\n")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return spool.getvalue()


@pytest.fixture
def name() -> str:
    """A container name that is nobody else's."""
    return f"dockmagic-test-{uuid.uuid4().hex[:8]}"


class Ran:
    """One cell that ran: its value, its error, and what it wrote."""

    def __init__(self, result: Any, stdout: str, stderr: str) -> None:
        self.value = result.result
        self.error = result.error_in_exec or result.error_before_exec
        self.stdout, self.stderr = stdout, stderr


Run = Callable[..., Ran]


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    yield shell
    shell.run_cell("%unload_ext dockmagic", silent=True)
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)
    InteractiveShell.clear_instance()


@pytest.fixture
def run(docker_host: str, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one cell with the extension loaded. `IMAGE` in it is the test image, with the label."""
    assert shell.run_cell("%load_ext dockmagic", silent=True).success

    def run(source: str, **words: str) -> Ran:
        capsys.readouterr()
        result = shell.run_cell(
            source.replace("IMAGE", IMAGE).replace("LABEL", f"{LABEL}=1"), store_history=False
        )
        captured = capsys.readouterr()
        return Ran(
            result, captured.out.partition("Out[")[0], captured.err
        )  # the value's display is no output

    return run


@pytest.fixture
def notebook(docker_host: str) -> Callable[..., nbformat.NotebookNode]:
    """Execute cells in a real kernel; errors stay in the notebook's outputs."""

    def execute(*cells: str) -> nbformat.NotebookNode:
        sources = ["%load_ext dockmagic", *cells]
        book = nbformat.v4.new_notebook(
            cells=[
                nbformat.v4.new_code_cell(s.replace("IMAGE", IMAGE).replace("LABEL", f"{LABEL}=1"))
                for s in sources
            ]
        )
        NotebookClient(book, timeout=60, kernel_name="python3", allow_errors=True).execute()
        return book

    return execute
