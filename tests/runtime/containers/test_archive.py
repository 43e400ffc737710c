"""cp: what goes in and out of containers that run or don't, and what a hostile one can't make of it."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import docker
import pytest
import requests
from docker.models.containers import Container

from tests.conftest import EngineProcess


@pytest.fixture(params=["running", "stopped"])
def container(request: pytest.FixtureRequest, client: docker.DockerClient, tmp_path: Path) -> Container:
    """A container with files of its own, a volume at /volume and a read-only bind at /bind."""
    bind = tmp_path / "bind"
    bind.mkdir()
    (bind / "host.txt").write_text("of the host\n")
    script = """
        mkdir -p /data/sub; echo one > /data/one; echo two > /data/sub/two; ln -s /etc /data/link
        ln -s ../../../../../../etc/hostname /data/up; chmod 4755 /data/one
        echo kept > /volume/kept; exec sleep 1000
    """
    made = client.containers.run(
        "busybox",
        ["sh", "-c", script],
        detach=True,
        volumes={"cp-volume": {"bind": "/volume"}, str(bind): {"bind": "/bind", "mode": "ro"}},
    )
    made.exec_run(["sh", "-c", "until [ -e /volume/kept ]; do :; done"])
    if request.param == "stopped":
        made.stop(timeout=0)
    return made


def _tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _read(container: Container, path: str) -> tarfile.TarFile:
    chunks, _ = container.get_archive(path)
    return tarfile.open(fileobj=io.BytesIO(b"".join(chunks)))


def test_status_says_what_docker_says(container: Container) -> None:
    _, status = container.get_archive("/data/one")
    assert status["name"] == "one" and status["size"] == 4 and status["linkTarget"] == ""
    assert status["mode"] == 0o755 | 1 << 23
    _, status = container.get_archive("/data/link")
    assert status["mode"] & 1 << 27 and status["linkTarget"] == "/etc"
    assert container.get_archive("/data/")[1]["mode"] & 1 << 31
    assert container.get_archive("/data/.")[1]["name"] == "."


def test_a_directory_comes_out_whole(container: Container) -> None:
    names = _read(container, "/data").getnames()
    assert set(names) == {"data", "data/one", "data/sub", "data/sub/two", "data/link", "data/up"}
    assert {"./one", "./sub/two"} <= {
        f"./{name.removeprefix('./')}" for name in _read(container, "/data/.").getnames()
    }
    assert _read(container, "/data/link/").getnames()[0] == "link"


def test_volumes_and_binds_are_there(container: Container) -> None:
    out = _read(container, "/volume/kept").extractfile("kept")
    assert out and out.read() == b"kept\n"
    out = _read(container, "/bind/host.txt").extractfile("host.txt")
    assert out and out.read() == b"of the host\n"
    assert container.put_archive("/volume", _tar(new=b"new\n"))
    out = _read(container, "/volume/new").extractfile("new")
    assert out and out.read() == b"new\n"


def test_links_end_inside(container: Container) -> None:
    """A link that climbs out of the root ends at the root's own file, as it does for the container."""
    out = _read(container, "/data/link/hostname").extractfile("hostname")
    assert out and out.read().decode().strip() == container.short_id
    assert container.put_archive("/data/link/", _tar(planted=b"x"))
    assert _read(container, "/etc/planted").getnames() == ["planted"]
    assert not Path("/etc/planted").exists()


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/nowhere", 404, "Could not find the file /nowhere in container"),
        ("/data/one/", 404, "Could not find the file /data/one/ in container"),
        ("/data/one/deeper", 404, "Could not find the file"),
    ],
)
def test_what_is_not_there(container: Container, path: str, status: int, sentence: str) -> None:
    with pytest.raises(docker.errors.APIError, match=sentence) as refusal:
        container.get_archive(path)
    assert refusal.value.status_code == status


def test_refusals_of_writing(container: Container) -> None:
    with pytest.raises(docker.errors.APIError, match="Could not find the file /nowhere in container"):
        container.put_archive("/nowhere", _tar(x=b""))
    with pytest.raises(docker.errors.APIError, match="extraction point is not a directory"):
        container.put_archive("/data/one", _tar(x=b""))
    with pytest.raises(docker.errors.APIError, match="mounted volume is marked read-only") as refusal:
        container.put_archive("/bind", _tar(x=b""))
    assert refusal.value.status_code == 403
    api = container.client.api
    url = api._url("/containers/{0}/archive", container.id)
    answer = api.put(url, params={"path": "/data", "noOverwriteDirNonDir": "1"}, data=_tar(sub=b"a file"))
    assert answer.status_code == 400 and "cannot overwrite directory" in answer.json()["message"]
    answer = api.put(url, params={"path": "/data"}, data=b"no tar at all, but long enough" * 40)
    assert answer.status_code == 400
    assert api.get(url).status_code == 400


def test_nothing_leads_out(container: Container) -> None:
    with pytest.raises(docker.errors.APIError):
        container.put_archive("/data", _tar(**{"../../../../../../../tmp/dockmagic-escaped": b"x"}))
    assert not Path("/tmp/dockmagic-escaped").exists()


def test_the_docker_command_copies_both_ways(
    engine: EngineProcess, container: Container, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("hello\n")
    assert engine.docker("cp", str(source), f"{container.name}:/tmp/copied").returncode == 0
    assert (
        engine.docker("cp", f"{container.name}:/tmp/copied/deep/file", str(tmp_path / "back")).returncode == 0
    )
    assert (tmp_path / "back").read_text() == "hello\n"
    assert (
        engine.docker("cp", "-L", f"{container.name}:/data/link/hostname", str(tmp_path / "name")).returncode
        == 0
    )
    environment = {**os.environ, "DOCKER_HOST": engine.address}
    piped = subprocess.run(
        ["docker", "cp", f"{container.name}:/data", "-"], env=environment, capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(piped.stdout)) as archive:
        assert "data/sub/two" in archive.getnames()
    subprocess.run(
        ["docker", "cp", "-", f"{container.name}:/data"], env=environment, input=_tar(piped=b"in"), check=True
    )
    assert _read(container, "/data/piped").getnames() == ["piped"]


def test_a_readonly_root(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "1000"], read_only=True, detach=True)
    with pytest.raises(docker.errors.APIError, match="container rootfs is marked read-only") as refusal:
        container.put_archive("/tmp", _tar(x=b""))
    assert refusal.value.status_code == 403


def test_a_container_that_swaps_its_directories_meanwhile(client: docker.DockerClient) -> None:
    """CVE-2018-15664: between the look at a path and its use the container makes a link to the host of it."""
    script = """
        mkdir -p /real /a; cd /
        while :; do
            rm -rf /a; ln -s /proc/1/root/etc /a; rm -f /a; ln -s ../../../../etc /a; rm -f /a; mkdir /a
        done
    """
    container = client.containers.run("busybox", ["sh", "-c", script], detach=True)
    ours = Path("/etc/hostname").read_bytes()
    for number in range(60):
        try:
            container.put_archive("/a", _tar(**{f"swapped-{number}": b"x"}))
            data = _read(container, "/a/hostname").extractfile("hostname")
            assert data is None or data.read() != ours
        except (docker.errors.APIError, tarfile.TarError, requests.exceptions.ChunkedEncodingError):
            continue  # the file or the directory was not there just then, or went while it was read
    assert not list(Path("/etc").glob("swapped-*"))


def test_nothing_stays_mounted(engine: EngineProcess, container: Container) -> None:
    before = Path(f"/proc/{engine.process.pid if engine.process else 0}/mountinfo").read_text()
    _read(container, "/data")
    assert engine.process
    after = Path(f"/proc/{engine.process.pid}/mountinfo").read_text()
    assert set(after.splitlines()) <= set(before.splitlines())  # a network may go meanwhile
