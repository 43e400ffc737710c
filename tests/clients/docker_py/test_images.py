"""docker-py on images: list, tag, pull, push, save, load, import, prune, and what a registry knows."""

import base64
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, ImageLoadError, ImageNotFound, NotFound
from docker.models.images import Image

from tests.images.registry import Registry
from tests.runtime.registry.servers import PASSWORD, USER, registry


@pytest.fixture(autouse=True)
def only_busybox(client: docker.DockerClient) -> Iterator[None]:
    before = {image.id: image.tags for image in client.images.list()}
    yield
    for image in client.images.list(all=True):
        if image.id not in before:
            client.images.remove(image.id, force=True)
    for image in client.images.list():
        for tag in set(image.tags) - set(before[image.id]):
            client.images.remove(tag)


@pytest.fixture
def busybox(client: docker.DockerClient) -> Image:
    return client.images.get("busybox")


@pytest.fixture
def root() -> bytes:
    """A tar archive with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("hello")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    return out.getvalue()


@pytest.fixture
def writable(tmp_path: Path) -> Iterator[str]:
    """The address of a registry to push to."""
    with Registry(storage=tmp_path) as registry:
        yield registry.address


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """The address of a registry that asks for a password."""
    with registry(tmp_path, password=True) as address:
        yield address


def test_an_image(api: docker.APIClient, client: docker.DockerClient, busybox: Image) -> None:
    assert busybox.tags == ["busybox:latest"]
    assert busybox.labels["org.dockmagic.stand-in"] == "true"
    assert busybox.short_id == busybox.id[:19] and busybox.id.startswith("sha256:")
    assert busybox.history()[0]["Tags"] == ["busybox:latest"]
    assert api.history("busybox") == busybox.history()
    assert client.images.get(busybox.id) == client.images.get(busybox.short_id) == busybox
    assert api.inspect_image("busybox:latest")["Config"]["Cmd"] == ["sh"]
    with pytest.raises(ImageNotFound):
        client.images.get("nosuch")


def test_lists(api: docker.APIClient, client: docker.DockerClient, busybox: Image) -> None:
    assert busybox in client.images.list()
    assert client.images.list("busybox") == client.images.list(name="busybox:latest") == [busybox]
    assert client.images.list("nosuch") == []
    assert client.images.list(filters={"label": "org.dockmagic.stand-in=true", "dangling": False}) == [
        busybox
    ]
    assert client.images.list(filters={"label": ["org.dockmagic.stand-in", "nosuch"]}) == []
    assert client.images.list(all=True, filters={"reference": "busy*"}) == [busybox]
    assert api.images("busybox", quiet=True) == [busybox.id]
    (listed,) = api.images("busybox")
    assert listed["RepoTags"] == ["busybox:latest"] and listed["Size"] > 100_000


def test_tags(api: docker.APIClient, client: docker.DockerClient, busybox: Image) -> None:
    assert busybox.tag("tagged", "1") and api.tag("tagged:1", "example.org:5000/a/b", force=True)
    busybox.reload()
    assert sorted(busybox.tags) == ["busybox:latest", "example.org:5000/a/b:latest", "tagged:1"]
    with pytest.raises(APIError) as caught:
        busybox.remove()
    assert caught.value.status_code == 409
    client.images.remove("tagged:1", noprune=True)
    api.remove_image("example.org:5000/a/b")
    busybox.reload()
    assert busybox.tags == ["busybox:latest"]
    with pytest.raises(APIError, match="invalid tag format"):
        busybox.tag("tagged", "not a tag")


def test_an_image_is_removed(client: docker.DockerClient, root: bytes) -> None:
    client.api.import_image_from_data(root, "removed")
    image = client.images.get("removed")
    image.tag("removed", "again")
    image.remove(force=True)
    with pytest.raises(ImageNotFound):
        client.images.get(image.id)


def test_pull(api: docker.APIClient, client: docker.DockerClient) -> None:
    image = client.images.pull("busybox", "1.35")
    assert "busybox:1.35" in image.tags
    assert image == client.images.pull("busybox:1.35", platform="linux/amd64")
    steps = list(api.pull("busybox", "1.35", stream=True, decode=True))
    assert steps[0] == {"status": "Pulling from library/busybox", "id": "1.35"}
    assert steps[-1] == {"status": "Status: Image is up to date for busybox:1.35"}
    assert "Status: Image is up to date" in api.pull("busybox", "1.35")
    assert "Status: Image is up to date" in api.import_image(image="busybox:1.35")
    assert "Status: Image is up to date" in api.import_image_from_image("busybox", tag="1.35")
    (every,) = client.images.pull("busybox", all_tags=True)
    assert {"busybox:1.35", "busybox:latest"} <= set(every.tags)


def test_what_the_registry_has_not(client: docker.DockerClient, writable: str) -> None:
    with pytest.raises(NotFound) as caught:
        client.images.pull(f"{writable}/nosuch", "1")
    assert caught.value.explanation.startswith(f"manifest for {writable}/nosuch:1 not found")
    with pytest.raises(NotFound):
        client.images.get_registry_data(f"{writable}/nosuch:1")


def test_what_the_registry_knows(api: docker.APIClient, client: docker.DockerClient, busybox: Image) -> None:
    data = client.images.get_registry_data("busybox")
    assert [f"busybox@{data.id}"] == busybox.attrs["RepoDigests"]
    assert data.short_id == data.id[:19]
    assert data.has_platform("linux/amd64") and data.has_platform({"os": "linux"})
    assert not data.has_platform("linux/s390x")
    assert data.pull() == busybox
    data.reload()
    described = api.inspect_distribution("busybox:latest")
    assert described == data.attrs
    assert described["Descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert described["Platforms"] == [{"architecture": "amd64", "os": "linux"}]


def test_the_platform_of_a_single_manifest(
    client: docker.DockerClient, writable: str, busybox: Image
) -> None:
    busybox.tag(f"{writable}/single")
    client.images.push(f"{writable}/single")
    described = client.api.inspect_distribution(f"{writable}/single")
    assert described["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert described["Descriptor"]["mediaType"].endswith("manifest.v1+json")


def test_push(api: docker.APIClient, client: docker.DockerClient, writable: str, busybox: Image) -> None:
    for tag in ("1", "2"):
        busybox.tag(f"{writable}/pushed", tag)
    steps = list(api.push(f"{writable}/pushed", "1", stream=True, decode=True))
    assert steps[0] == {"status": f"The push refers to repository [{writable}/pushed]"}
    assert any(step.get("status") == "Pushed" for step in steps)
    (tagged,) = [step["aux"] for step in steps if "aux" in step]
    assert tagged["Tag"] == "1" and tagged["Digest"].startswith("sha256:")
    assert f'"status":"2: digest: {tagged["Digest"]}' in client.images.push(f"{writable}/pushed", "2")
    assert client.images.get_registry_data(f"{writable}/pushed:2").id == tagged["Digest"]


def test_credentials(
    api: docker.APIClient, client: docker.DockerClient, guarded: str, busybox: Image, root: bytes
) -> None:
    busybox.tag(f"{guarded}/kept")
    refused = api.push(f"{guarded}/kept", stream=True, decode=True)
    assert "no basic auth credentials" in list(refused)[-1]["error"]
    with pytest.raises(APIError) as caught:
        client.login(USER, "wrong", registry=guarded)
    assert caught.value.status_code == 401
    answer = client.login(USER, PASSWORD, registry=guarded, reauth=True)
    assert answer["Status"] == "Login Succeeded"
    # Now the client sends them by itself.
    assert "error" not in list(api.push(f"{guarded}/kept", stream=True, decode=True))[-1]
    given = {"username": USER, "password": PASSWORD}
    assert client.images.get_registry_data(f"{guarded}/kept", auth_config=given).has_platform("linux/amd64")
    client.images.remove(f"{guarded}/kept")
    assert client.images.pull(f"{guarded}/kept", auth_config=given) == busybox


def test_the_client_reads_its_configuration_again(
    api: docker.APIClient, guarded: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with pytest.raises(APIError) as caught:
        api.inspect_distribution(f"{guarded}/nosuch")
    assert caught.value.status_code == 401
    config.write_text(json.dumps({"auths": {guarded: {"auth": credentials}}}))
    api.reload_config(str(config))
    with pytest.raises(NotFound, match="nosuch"):
        api.inspect_distribution(f"{guarded}/nosuch")


def test_save_and_load(
    api: docker.APIClient, client: docker.DockerClient, root: bytes, tmp_path: Path
) -> None:
    api.import_image_from_data(root, "saved", "1")
    image = client.images.get("saved:1")
    image.tag("saved", "2")
    image.reload()
    archives = {
        "id": b"".join(image.save()),
        "first": b"".join(image.save(named=True, chunk_size=None)),
        "second": b"".join(image.save(named="saved:2")),
        "low": b"".join(api.get_image("saved:1", chunk_size=100)),
    }
    image.remove(force=True)
    tags = {"id": [], "first": [image.tags[0]], "second": ["saved:2"], "low": ["saved:1"]}
    for kind, archive in archives.items():
        (loaded,) = client.images.load(archive)
        assert (loaded.id, loaded.tags) == (image.id, tags[kind])
        loaded.remove(force=True)
    (tmp_path / "saved.tar").write_bytes(archives["low"])
    with (tmp_path / "saved.tar").open("rb") as file:
        assert {"stream": "Loaded image: saved:1\n"} in list(api.load_image(file, quiet=True))
    assert client.images.get("saved:1") == image


def test_what_is_no_archive(client: docker.DockerClient, root: bytes) -> None:
    with pytest.raises((APIError, ImageLoadError)) as caught:
        client.images.load(root)
    assert getattr(caught.value, "status_code", 400) < 500


def test_imports(api: docker.APIClient, client: docker.DockerClient, root: bytes, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(root)
    name = str(tmp_path / "root.tar")
    changes = ["CMD hello", "ENV A=1 B=2", "EXPOSE 80"]
    answers = [
        api.import_image(name, "imported", "path", changes=changes),
        api.import_image(io.BytesIO(root), "imported", "file"),
        api.import_image_from_data(root, "imported", "data", changes=["LABEL a=b"]),
        api.import_image_from_file(name, "imported", "named"),
        api.import_image_from_stream((root[at : at + 1000] for at in range(0, len(root), 1000)), "imported"),
    ]
    assert all(json.loads(answer)["status"].startswith("sha256:") for answer in answers)
    config = client.images.get("imported:path").attrs["Config"]
    assert (config["Cmd"], config["ExposedPorts"]) == (["/bin/sh", "-c", "hello"], {"80/tcp": {}})
    assert config["Env"] == ["A=1", "B=2"]
    assert client.images.get("imported:data").labels == {"a": "b"}
    assert len(client.images.list("imported")) == 5
    with pytest.raises(APIError) as caught:
        api.import_image(name, "imported", changes=["FROM busybox"])
    assert caught.value.status_code == 400


def test_prune(api: docker.APIClient, client: docker.DockerClient, root: bytes) -> None:
    api.import_image_from_data(root, "pruned", changes=["LABEL which=1"])
    dangling = client.images.get("pruned").id
    api.import_image_from_data(root, "pruned", changes=["LABEL which=2"])
    assert api.images(filters={"dangling": True}, quiet=True) == [dangling]
    pruned = client.images.prune(filters={"label": "which=2"})
    assert pruned["ImagesDeleted"] is None
    pruned = client.images.prune()
    assert {"Deleted": dangling} in pruned["ImagesDeleted"] and pruned["SpaceReclaimed"] >= 0
    kept = client.images.get("pruned").id
    pruned = api.prune_images(filters={"dangling": False, "label": "which=2"})
    assert {"Deleted": kept} in pruned["ImagesDeleted"]
    assert set(api.prune_builds()) >= {"SpaceReclaimed"}
    assert set(client.images.prune_builds(filters={"until": "1h"})) >= {"SpaceReclaimed"}


def test_an_image_that_a_container_uses(client: docker.DockerClient, root: bytes) -> None:
    client.api.import_image_from_data(root, "used")
    container = client.containers.create("used", "/hello")
    with pytest.raises(APIError) as caught:
        client.images.remove("used")
    assert caught.value.status_code == 409
    assert caught.value.explanation.startswith(
        'conflict: unable to remove repository reference "used" (must force) - container'
    )
    client.images.remove("used", force=True)
    with pytest.raises(ImageNotFound):
        _ = container.image
    # Its files are still the container's.
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as exported:
        assert exported.extractfile("hello").read() == b"hello"  # type: ignore[union-attr]


def test_import_from_a_url(
    api: docker.APIClient, client: docker.DockerClient, root: bytes, tmp_path: Path
) -> None:
    (tmp_path / "root.tar").write_bytes(root)
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "-b", "127.0.0.1", "-d", str(tmp_path), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout
        url = server.stdout.readline().split("(")[1].split(")")[0]
        answer = api.import_image_from_url(f"{url}root.tar", "imported", "url", changes=["CMD hello"])
        assert client.images.get("imported:url").id == json.loads(answer)["status"]
        with pytest.raises(APIError, match="404"):
            api.import_image_from_url(f"{url}nosuch.tar", "imported", "url")
        server.terminate()
    with pytest.raises(APIError, match="ftp://x is no http or https URL"):
        api.import_image_from_url("ftp://x", "imported")
