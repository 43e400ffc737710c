"""docker-py builds: from a directory, a file object, a tar of one's own; and what it says of a failure."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, BuildError


@pytest.fixture(autouse=True)
def removed(client: docker.DockerClient) -> Iterator[None]:
    yield
    for image in client.images.list(filters={"label": "of=build"}):
        client.images.remove(image.id, force=True)
    client.images.prune_builds()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS first\nARG WORD=none\nLABEL of=build\nCOPY file /file\nRUN echo $WORD >> /file\n"
        "FROM first\nCMD cat /file\n"
    )
    (tmp_path / "Other").write_text("FROM busybox\nLABEL of=build\nCMD echo other\n")
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "left").write_text("ignored\n")
    (tmp_path / ".dockerignore").write_text("left\n")
    return tmp_path


def test_a_directory(client: docker.DockerClient, context: Path) -> None:
    image, log = client.images.build(
        path=str(context),
        tag="built:1",
        buildargs={"WORD": "said"},
        labels={"more": "1"},
        rm=True,
        forcerm=True,
    )
    assert image.tags == ["built:1"] and image.labels.items() >= {"of": "build", "more": "1"}.items()
    assert any("Step 1/" in line.get("stream", "") for line in log)
    assert client.containers.run(image, remove=True) == b"text\nsaid\n"
    other, _ = client.images.build(path=str(context), dockerfile="Other", nocache=True)
    assert client.containers.run(other, remove=True) == b"other\n"
    first, _ = client.images.build(path=str(context), target="first", pull=False, quiet=False)
    assert first.attrs["Config"]["Cmd"] == client.images.get("busybox").attrs["Config"]["Cmd"]


def test_a_file_object_and_a_tar(api: docker.APIClient, client: docker.DockerClient) -> None:
    lines = api.build(
        fileobj=io.BytesIO(b"FROM busybox\nLABEL of=build\nCMD echo one\n"), tag="built:2", decode=True
    )
    assert "Successfully tagged built:2\n" in [line.get("stream") for line in lines]
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w:gz") as tar:
        content = b"FROM busybox\nLABEL of=build\nCMD echo two\n"
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    spool.seek(0)
    image, _ = client.images.build(fileobj=spool, custom_context=True, encoding="gzip")
    assert client.containers.run(image, remove=True) == b"two\n"


def test_what_fails(client: docker.DockerClient) -> None:
    with pytest.raises(BuildError, match="returned a non-zero code: 7") as caught:
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nLABEL of=build\nRUN exit 7\n"))
    assert any("exit 7" in str(line.get("stream", "")) for line in caught.value.build_log)
    with pytest.raises((APIError, BuildError), match="unknown instruction: NOSUCH"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nNOSUCH x\n"))


def test_its_cache(api: docker.APIClient, context: Path) -> None:
    for expected in (False, True):
        log = "".join(line.get("stream", "") for line in api.build(path=str(context), decode=True, rm=True))
        assert ("Using cache" in log) is expected
    assert set(api.prune_builds()) >= {"SpaceReclaimed"}
