"""A real engine for the tests, with a data root of its own, and a registry with the stand-in images.

Both are started once a session, when first asked for, and ended by their process ids. What an engine leaves
in the kernel when it has been told to remove everything is an error of the session's last test.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.images.registry import Registry


class EngineProcess:
    """One engine: `start`, `stop` (SIGTERM), `kill` (SIGKILL), clients for its socket.

    The same object may be started again: it is the next engine on the same data root.
    """

    def __init__(self, data_root: Path, *options: str) -> None:
        self.data_root = data_root
        self.socket = data_root / "e.sock"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> "EngineProcess":
        """Returns when clients are served; raises RuntimeError with the engine's own line if it refuses."""
        self.data_root.mkdir(parents=True, exist_ok=True)
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "dockmagic_runtime", "--data-root", str(self.data_root)]
        command += ["--socket", str(self.socket), "--ready-fd", str(writer), *self.options]
        with (self.data_root.parent / f"{self.data_root.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, pass_fds=(writer,), stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
        os.close(writer)
        with os.fdopen(reader) as lines:
            answer = lines.readline().strip()
        if answer != "ready":
            self.process.wait()
            raise RuntimeError(answer)
        return self

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.address, timeout=60)

    def docker(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run the docker command against this engine."""
        if shutil.which("docker") is None:
            pytest.fail("the docker command is missing: apt-get install docker.io")
        environment = {**os.environ, "DOCKER_HOST": self.address, "DOCKER_BUILDKIT": "0"}
        return subprocess.run(
            ["docker", *arguments], env=environment, capture_output=True, text=True, timeout=60, **options
        )

    def clear(self) -> None:
        """Remove all containers, networks and volumes."""
        client = self.client()
        for container in client.containers.list(all=True, ignore_removed=True):
            container.remove(force=True, v=True)
        client.networks.prune()
        for volume in client.volumes.list():
            volume.remove()
        client.close()


@pytest.fixture(scope="session")
def short_path() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="dm-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """The stand-in images, as a registry mirror."""
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="session")
def shared_engine(short_path: Path, registry: Registry) -> Iterator[EngineProcess]:
    engine = EngineProcess(short_path / "engine", "--registry-mirror", registry.mirror_url)
    engine.start()
    yield engine
    engine.clear()
    engine.stop()


@pytest.fixture
def engine(shared_engine: EngineProcess) -> Iterator[EngineProcess]:
    """The session's engine, emptied of containers, networks and volumes after the test."""
    yield shared_engine
    shared_engine.clear()


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[docker.DockerClient]:
    """docker-py on the session's engine."""
    client = engine.client()
    yield client
    client.close()


@pytest.fixture
def busybox(client: docker.DockerClient) -> None:
    """The stand-in busybox, in the engine of the test."""
    if not client.images.list("busybox"):
        client.images.pull("busybox:latest")


@pytest.fixture
def own_engine(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[EngineProcess]:
    """An engine that the test may stop, kill and start again; not started yet."""
    directory = Path(tempfile.mkdtemp(prefix="dm-"))
    engine = EngineProcess(directory / "engine", "--registry-mirror", registry.mirror_url)
    yield engine
    if engine.process:
        if engine.process.poll() is not None:
            engine.start()
        engine.clear()
        engine.stop()
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def dockerd() -> Iterator[str]:
    """The address of a real Docker of our own, with an image busybox. It leaves the packet filter alone."""
    from bench.engines import started_dockerd
    from tests.notebook.conftest import busybox_tar

    if shutil.which("dockerd") is None:
        pytest.fail("dockerd is missing: apt-get install docker.io")
    root = Path(tempfile.mkdtemp(prefix="dm-docker-"))
    with started_dockerd(root, root / "log", "--iptables=false", "--ip6tables=false") as socket:
        client = docker.DockerClient(base_url=f"unix://{socket}")
        client.api.import_image_from_data(busybox_tar(), "busybox", "latest")
        client.close()
        yield f"unix://{socket}"
    shutil.rmtree(root)


@pytest.fixture
def real_docker(dockerd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The docker command means a real Docker in this test."""
    monkeypatch.setenv("DOCKER_HOST", dockerd)
