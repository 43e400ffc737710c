"""Pull and push through the magics, against the registry of stand-in images."""

import docker
import pytest
from docker.models.images import Image

from dockmagic.errors import DockmagicError
from dockmagic.grammar.pulling import reference

from .conftest import Run


@pytest.fixture
def docker_host(engine: "object", monkeypatch: pytest.MonkeyPatch) -> str:
    """Our engine, with the registry as its mirror and without the image that is to be pulled."""
    address: str = engine.address  # type: ignore[attr-defined]
    monkeypatch.setenv("DOCKER_HOST", address)
    client = docker.DockerClient(base_url=address)
    for image in client.images.list("busybox"):
        client.images.remove(str(image.id), force=True)
    client.close()
    return address


def test_pull_is_the_image_and_shows_its_progress(run: Run) -> None:
    ran = run("%docker pull busybox")
    assert ran.error is None
    assert isinstance(ran.value, Image) and ran.value.tags == ["busybox:latest"]
    assert "Pulling busybox" in ran.stdout and "Status: Downloaded newer image" in ran.stdout
    quiet = run("%docker pull -q busybox")
    assert quiet.error is None and quiet.stdout == ""


def test_run_pulls_what_is_missing_and_says_so(run: Run) -> None:
    ran = run("%docker run --rm --network none busybox echo hello")
    assert ran.error is None and ran.value.output == "hello\n"
    assert ran.stderr == "Unable to find image 'busybox:latest' locally\n"


def test_an_image_that_no_registry_has(run: Run) -> None:
    ran = run("%docker pull busybox:no-such-tag")
    assert isinstance(ran.error, DockmagicError)
    assert str(ran.error).startswith("Error response from daemon: ") and "\n" not in str(ran.error)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nginx", ("nginx", "latest")),
        ("nginx:1.25", ("nginx", "1.25")),
        ("localhost:5000/app", ("localhost:5000/app", "latest")),
        ("localhost:5000/app:2", ("localhost:5000/app", "2")),
        ("app@sha256:abc", ("app", "sha256:abc")),
    ],
)
def test_references(name: str, expected: tuple[str, str]) -> None:
    assert reference(name) == expected
