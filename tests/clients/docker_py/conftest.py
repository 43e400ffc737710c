"""What these tests use of docker-py is noted: see `surface.py`."""

from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container

from tests.clients.docker_py.surface import Recorder


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module", autouse=True)
def noted(recorder: Recorder) -> Iterator[None]:
    recorder.put_in()
    yield
    recorder.take_out()


@pytest.fixture
def api(client: docker.DockerClient) -> docker.APIClient:
    """The low-level client."""
    return client.api


@pytest.fixture
def container(client: docker.DockerClient) -> Container:
    """A running container that ends when told to, with some output."""
    script = "trap 'exit 3' TERM; echo out; echo err >&2; while :; do sleep 60 & wait $!; done"
    container = client.containers.run("busybox", ["sh", "-c", script], detach=True, labels={"of": "test"})
    # Both lines are there: what it says is no longer a question of time.
    for seen, _ in enumerate(container.logs(stream=True), 1):
        if seen == 2:
            break
    return container
