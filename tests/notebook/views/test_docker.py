"""The pictures of a real Docker's answers: what its API gives is shown, the rest is said to be unknown."""

import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from dockmagic.views import engine
from dockmagic.views.cards import ContainerCard, ImageCard, NetworkCard, VolumeCard
from dockmagic.views.layers import Layers
from dockmagic.views.namespaces import Namespaces
from dockmagic.views.ports import PortMap
from dockmagic.views.progress import BuildProgress
from dockmagic.views.resources import Resources
from tests.notebook.views.reading import check_says_the_same


@pytest.fixture(scope="module")
def client(dockerd: str) -> Iterator[docker.DockerClient]:
    connection = docker.DockerClient(base_url=dockerd)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def web(client: docker.DockerClient) -> Iterator[Container]:
    container = client.containers.run(
        "busybox",
        ["sh", "-c", "mkdir /made; echo x > /made/file; while :; do :; done"],
        detach=True,
        name=f"views-{uuid.uuid4().hex[:8]}",
        ports={"80/tcp": ("127.0.0.1", None)},
        nano_cpus=200_000_000,
        mem_limit="32m",
        network_mode="bridge",
        ipc_mode="host",
    )
    yield container
    container.remove(force=True)


def test_it_is_not_ours(client: docker.DockerClient) -> None:
    assert not engine.is_ours(client)
    assert engine.extension(client, "ports") is None


def test_layers_of_an_image(client: docker.DockerClient) -> None:
    layers = Layers(client, "busybox")
    check_says_the_same(layers.text(), layers.html())
    assert "not known" in layers.text()
    assert "does not tell whether" in layers.text()


def test_layers_of_a_container_with_its_changes(client: docker.DockerClient, web: Container) -> None:
    layers = Layers(client, web.name)
    assert layers.frame()["Layer"][0] == "writable"
    assert "added    /made/file" in layers.text()


def test_sharing_is_found_by_the_layers_themselves(client: docker.DockerClient) -> None:
    tag = f"views-{uuid.uuid4().hex[:8]}:latest"
    image, _ = client.images.build(
        fileobj=io.BytesIO(b"FROM busybox\nRUN echo mine > /mine\n"), tag=tag, rm=True, forcerm=True
    )
    try:
        frame = Layers(client, image).frame()
        assert frame["Instruction"][0] == "RUN echo mine > /mine"
        assert frame["Shared with"][0] == "not shared"
        assert "busybox:latest" in frame["Shared with"].iloc[-1]
        assert tag in Layers(client, "busybox").frame()["Shared with"].iloc[-1]
    finally:
        client.images.remove(tag, force=True)


def test_namespaces_are_the_kernel_s(client: docker.DockerClient, web: Container) -> None:
    picture = Namespaces(client, web)
    web.reload()
    pid = web.attrs["State"]["Pid"]
    frame = picture.frame().set_index("Namespace")
    for kind in ("mnt", "pid", "net", "uts"):
        assert frame.loc[kind, web.name] == str(Path(f"/proc/{pid}/ns/{kind}").stat().st_ino)
        assert frame.loc[kind, "Relation"] == "≠ its own"
    assert frame.loc["ipc", "Relation"].startswith("= shared")
    check_says_the_same(picture.text(), picture.html())


def test_ports_are_said_to_be_records(client: docker.DockerClient, web: Container) -> None:
    web.reload()
    number = web.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    picture = PortMap(client, web)
    assert list(picture.frame()["Host"]) == [f"127.0.0.1:{number}"]
    assert "its records" in picture.text()


def test_resources_of_a_busy_container(client: docker.DockerClient, web: Container) -> None:
    picture = Resources(client, web, seconds=3)
    check_says_the_same(picture.text(), picture.html())
    assert len(picture.samples) >= 2
    assert max(one.cpu for one in picture.samples) > 5, "it spins within 20 % of a CPU"
    frame = picture.frame().set_index("Resource")
    assert frame.loc["CPU", "Limit"] == "20%"
    assert frame.loc["Memory", "Limit"] == "32MiB"
    assert "<svg" in picture.html()


def test_a_card_follows_its_container(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["true"])
    callbacks: list[Any] = []
    ended: list[bool] = []
    card = ContainerCard(container)
    assert "○ created" in card.text()

    def subscribe(callback: Any) -> Any:
        callbacks.append(callback)
        return lambda: ended.append(True)

    card.follow(subscribe)
    container.start()
    container.wait()
    callbacks[0]({"Type": "container", "Action": "die", "Actor": {"ID": container.id}})
    assert "■ exited with code 0" in card.text()
    callbacks[0]({"Type": "container", "Action": "destroy", "Actor": {"ID": "another"}})
    assert not card.closed
    container.remove()
    callbacks[0]({"Type": "container", "Action": "destroy", "Actor": {"ID": container.id}})
    assert "○ removed" in card.text()
    assert card.closed
    assert ended == [True]
    check_says_the_same(card.text(), card.html())


def test_cards_of_the_other_nouns(client: docker.DockerClient, web: Container) -> None:
    volume = client.volumes.create(f"views-{uuid.uuid4().hex[:8]}")
    try:
        pictures = [
            ImageCard(client.images.get("busybox")),
            NetworkCard(client.networks.get("bridge")),
            VolumeCard(volume),
        ]
        for picture in pictures:
            check_says_the_same(picture.text(), picture.html())
        assert str(web.name) in pictures[1].text()
    finally:
        volume.remove()


def test_a_build_that_fails(client: docker.DockerClient) -> None:
    dockerfile = "FROM busybox\n\nRUN echo before; exit 3\n"
    build = BuildProgress("Building", dockerfile)
    for message in client.api.build(fileobj=io.BytesIO(dockerfile.encode()), decode=True, forcerm=True):
        build.feed(message)
    build.close()
    assert build.error is not None
    assert "returned a non-zero code: 3" in build.error
    assert list(build.frame()["State"]) == ["= base", "✗ failed"]
    assert "▶  3 RUN echo before; exit 3" in build.text()
    assert "before" in build.text()
    check_says_the_same(build.text(), build.html())
