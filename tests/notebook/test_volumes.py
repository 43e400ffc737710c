"""`%volume`: who uses what, archives, clones, other names."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pandas
import pytest
from docker.models.volumes import Volume

from .conftest import Run


@pytest.fixture
def client(docker_host: str) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=docker_host)
    yield client
    client.close()


@pytest.fixture
def data(run: Run, name: str, client: docker.DockerClient) -> Iterator[str]:
    """A volume with a file in it; it and what was made of it is gone afterwards."""
    run(f"%volume create --label of=test {name}-data")
    run(f"%container run --rm -v {name}-data:/v --label LABEL IMAGE sh -c 'echo kept > /v/file'")
    yield f"{name}-data"
    for container in client.containers.list(all=True, filters={"name": name}):
        container.remove(force=True)
    for volume in client.volumes.list(filters={"name": name}):
        volume.remove()


def test_ls_says_who_uses_what(run: Run, name: str, data: str) -> None:
    run(f"%container create --name {name}-two -v {data}:/v --label LABEL IMAGE true")
    run(f"%container run -d --name {name}-one --stop-signal KILL -v {data}:/a -v {data}:/b "
        "--label LABEL IMAGE sleep 1000")  # fmt: skip
    run(f"%volume create {name}-alone")
    shown = run(f"%volume ls --filter name={name}").value
    assert isinstance(shown, pandas.DataFrame)
    assert list(shown.columns) == ["DRIVER", "VOLUME NAME", "USED BY"]
    assert dict(zip(shown["VOLUME NAME"], shown["USED BY"], strict=True)) == {
        data: f"{name}-one (running), {name}-two",
        f"{name}-alone": "",
    }
    sized = run(f"%volume ls -s --filter name={name}").value
    assert dict(zip(sized["VOLUME NAME"], sized["SIZE"], strict=True)) == {data: "5B", f"{name}-alone": "0B"}
    assert run(f"%volume ls -q --filter name={data}").value == [data]
    line = run(f"%volume ls --filter name={data} --format '{{{{.Name}}}}: {{{{.UsedBy}}}}'").value
    assert line == f"{data}: {name}-one (running), {name}-two"


def test_backup_and_restore(run: Run, name: str, data: str, tmp_path: Path) -> None:
    target = tmp_path / "backup.tar"
    assert run(f"%volume export {data} -o {target}").value == target
    with tarfile.open(target) as archive:
        assert "./file" in archive.getnames()
    restored = run(f"%volume import {name}-back {target}").value
    assert isinstance(restored, Volume) and restored.name == f"{name}-back"
    read = run(f"%container run --rm -v {name}-back:/v --label LABEL IMAGE cat /v/file")
    assert read.stdout == "kept\n"
    again = run(f"%volume import {name}-back {target}")
    assert str(again.error).endswith(
        f"import {name}-back: the volume is not empty: import into a new one, or remove it first"
    )
    assert "no such file" in str(run(f"%volume import {name}-x {tmp_path}/nosuch.tar").error).lower()
    assert "refusing to save to a terminal" in str(run(f"%volume export {data}").error)


def test_an_export_while_somebody_writes_says_so(run: Run, name: str, data: str, tmp_path: Path) -> None:
    run(f"%container run -d --name {name} --stop-signal KILL -v {data}:/v --label LABEL IMAGE sleep 1000")
    ran = run(f"%volume export {data} -o {tmp_path}/b.tar")
    assert ran.stderr == (
        f"WARNING: {name} may be writing to {data} meanwhile: stop or pause for a backup of one moment\n"
    )


def test_clone_and_rename(run: Run, name: str, data: str, client: docker.DockerClient) -> None:
    copy = run(f"%volume clone {data} {name}-copy").value
    assert copy.attrs["Labels"] == {"of": "test"}
    assert run(f"%volume rename {name}-copy {name}-other").value.name == f"{name}-other"
    assert sorted(volume.name for volume in client.volumes.list(filters={"name": name})) == [
        data,
        f"{name}-other",
    ]
    read = run(f"%container run --rm -v {name}-other:/v --label LABEL IMAGE cat /v/file")
    assert read.stdout == "kept\n"
    run(f"%container create --name {name} -v {data}:/v --label LABEL IMAGE true")
    assert "volume is in use" in str(run(f"%volume rename {data} {name}-x").error)
    assert str(run(f"%volume clone {name}-nosuch {name}-x").error).endswith(
        f"get {name}-nosuch: no such volume. Did you mean '{name}-other'?"
    )


def test_a_real_docker_has_none_of_it(run: Run, name: str, real_docker: None, tmp_path: Path) -> None:
    run("%docker context use default")
    for command in (f"export {name} -o {tmp_path}/x", f"clone {name} other", f"rename {name} other"):
        said = str(run(f"%volume {command}").error)
        assert said == (
            f"this engine cannot {command.split()[0]} volumes: copy the files with a container that mounts "
            "the volume and a directory"
        )
