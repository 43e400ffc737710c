"""Every test here has the stand-in busybox."""

import docker
import pytest


@pytest.fixture(autouse=True)
def busybox(client: docker.DockerClient) -> None:
    if not client.images.list("busybox"):
        client.images.pull("busybox:latest")
