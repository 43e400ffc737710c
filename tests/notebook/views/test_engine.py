"""The pictures of our own engine: what they show is what the kernel says at that moment."""

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from dockmagic.contexts import Contexts
from dockmagic.views import engine
from dockmagic.views.layers import Layers
from dockmagic.views.namespaces import Namespaces
from dockmagic.views.ports import PortMap
from dockmagic.views.resources import Resources
from tests.notebook.views.reading import check_says_the_same
from tools.sandbox import sandbox

PORT = 18123


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """A throw-away engine of ours with the stand-in images behind it."""
    before = dict(os.environ)
    try:
        with sandbox():
            contexts = Contexts()
            yield contexts.client()
            contexts.close()
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def web(client: docker.DockerClient) -> Container:
    client.images.pull("busybox", tag="latest")
    return client.containers.run(
        "busybox",
        ["sh", "-c", "mkdir /made; echo x > /made/file; while :; do :; done"],
        detach=True,
        name="web",
        ports={"80/tcp": ("127.0.0.1", PORT)},
        nano_cpus=200_000_000,
        mem_limit="32m",
        uts_mode="host",
    )


def test_it_is_ours(client: docker.DockerClient) -> None:
    assert engine.is_ours(client)
    with pytest.raises(docker.errors.NotFound):
        engine.extension(client, "containers/nobody/namespaces")


def test_namespaces_are_the_kernel_s(client: docker.DockerClient, web: Container) -> None:
    picture = Namespaces(client, web)
    web.reload()
    inside = Path("/proc", str(web.attrs["State"]["Pid"]), "ns")
    frame = picture.frame().set_index("Namespace")
    assert list(frame.index)[:3] == ["mnt", "pid", "net"]
    for kind in frame.index:
        assert frame.loc[kind, "web"] == str((inside / kind).stat().st_ino)
        assert frame.loc[kind, "Host"] == str(Path("/proc/self/ns", kind).stat().st_ino)
    assert frame.loc["net", "Relation"] == "≠ its own"
    assert frame.loc["uts", "Relation"] == "= shared with the host"
    check_says_the_same(picture.text(), picture.html())


def test_ports_are_the_kernel_s(client: docker.DockerClient, web: Container) -> None:
    picture = PortMap(client, "web")
    web.reload()
    address = web.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    frame = picture.frame()
    assert list(frame["Host"]) == [f"127.0.0.1:{PORT}"]
    assert list(frame["Address in its network"]) == [f"{address}:80"]
    assert "Read from the kernel's map." in picture.text()
    check_says_the_same(picture.text(), picture.html())


def test_layers_with_the_writable_one(client: docker.DockerClient, web: Container) -> None:
    picture = Layers(client, "web")
    frame = picture.frame().set_index("Layer")
    assert frame.loc["writable", "Size"] == "2B"
    assert frame.loc["1", "Origin"] == "↓ pulled"
    assert "added    /made/file" in picture.text()
    assert "does not tell" not in picture.text()
    check_says_the_same(picture.text(), picture.html())


def test_resources_of_a_busy_container(client: docker.DockerClient, web: Container) -> None:
    picture = Resources(client, web, seconds=3)
    assert len(picture.samples) >= 2
    assert 5 < max(one.cpu for one in picture.samples) < 60, "it spins within 20 % of a CPU"
    assert picture.frame().set_index("Resource").loc["Memory", "Limit"] == "32MiB"
    check_says_the_same(picture.text(), picture.html())


def test_a_container_that_has_ended(client: docker.DockerClient, web: Container) -> None:
    ended = client.containers.create("busybox", ["true"], name="ended")
    assert Namespaces(client, ended).text() == "ended is not running: it has no namespaces now."
    assert Resources(client, ended).text() == "ended is not running: it uses nothing now."
