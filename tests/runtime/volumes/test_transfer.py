"""Archives of volumes, clones and other names: whole, or not at all."""

import contextlib
import gzip
import hashlib
import io
import os
import sqlite3
import stat
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import docker
import pytest
from dockmagic_runtime.kernel.mounts import is_mount_point

from tests.conftest import EngineProcess
from tests.web import Connection


def ask(engine: EngineProcess, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    connection = Connection(engine.socket)
    connection.request(method, f"/dockmagic/volumes/{path}", body)
    response = connection.getresponse()
    found = response.status, response.read()
    if response.getheader("Content-Type") == "application/json":
        found = found[0], found[1].strip()
    connection.close()
    return found


def files_of(engine: EngineProcess, name: str) -> Path:
    return engine.data_root / "volumes" / name / "_data"


def listing(directory: Path) -> list[tuple[object, ...]]:
    """Everything that a copy has to keep: kinds, modes, owners, seconds, contents, links, attributes."""
    found = []
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append(
            (
                str(path.relative_to(directory)),
                (oct(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime)),
                hashlib.sha256(content).hexdigest(),
                path.readlink() if path.is_symlink() else None,
                1 if stat.S_ISDIR(status.st_mode) else status.st_nlink,
                [
                    (name, os.getxattr(path, name, follow_symlinks=False))
                    for name in sorted(os.listxattr(path, follow_symlinks=False))
                ],
            )
        )
    return found


@pytest.fixture
def odd(engine: EngineProcess) -> Path:
    """A volume `odd` with one of everything, in whole seconds."""
    engine.docker("volume", "create", "--label", "of=test", "odd")
    files = files_of(engine, "odd")
    (files / "file").write_text("content\n")
    (files / "empty").touch(mode=0o4711)
    (files / "deep/er").mkdir(parents=True)
    (files / "deep/er/file").write_bytes(os.urandom(300_000))
    (files / "link").symlink_to("/etc/passwd")
    os.link(files / "file", files / "deep/other name of file")
    os.mkfifo(files / "pipe")
    os.chown(files / "deep", 70, 71)
    os.setxattr(files / "file", "user.note", b"kept")
    files.chmod(0o700)
    os.chown(files, 70, 70)
    for path in (*files.rglob("*"), files):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return files


def test_out_and_in_again(engine: EngineProcess, odd: Path) -> None:
    status, packed = ask(engine, "GET", "odd/export")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:  # what others make of it
        assert archive.getmember("./link").linkname == "/etc/passwd"
        assert archive.getmember(".").uid == 70
    assert ask(engine, "POST", "back/import", packed)[0] == 201
    assert listing(files_of(engine, "back")) == listing(odd)
    assert files_of(engine, "back").stat().st_mode & 0o777 == 0o700
    assert ask(engine, "POST", "pressed/import", gzip.compress(packed))[0] == 201
    assert listing(files_of(engine, "pressed")) == listing(odd)


def test_clone(engine: EngineProcess, client: docker.DockerClient, odd: Path) -> None:
    before = listing(odd)
    status, _ = ask(engine, "POST", "odd/clone?to=copy")
    assert status == 201
    assert listing(files_of(engine, "copy")) == before
    assert client.volumes.get("copy").attrs["Labels"] == {"of": "test"}
    (files_of(engine, "copy") / "file").write_text("changed\n")
    assert listing(odd) == before
    assert ask(engine, "POST", "odd/clone?to=copy") == (
        409,
        b'{"message": "import copy: the volume is not empty: import into a new one, or remove it first"}',
    )
    assert ask(engine, "POST", "nosuch/clone?to=other") == (
        404,
        b'{"message": "get nosuch: no such volume"}',
    )
    assert ask(engine, "POST", "odd/clone")[0] == 400
    assert ask(engine, "POST", "odd/clone?to=bad/name")[0] in (400, 404)


@pytest.mark.usefixtures("busybox")
def test_rename(engine: EngineProcess, client: docker.DockerClient, odd: Path) -> None:
    before = listing(odd)
    container = client.containers.create("busybox", volumes=["odd:/v"])
    status, said = ask(engine, "POST", "odd/rename?to=other")
    assert (status, container.id.encode() in said) == (409, True)
    container.remove()
    assert ask(engine, "POST", "odd/rename?to=other")[0] == 200
    assert [volume.name for volume in client.volumes.list()] == ["other"]
    assert listing(files_of(engine, "other")) == before and not odd.parent.exists()
    client.volumes.create("third")
    assert ask(engine, "POST", "other/rename?to=third") == (
        409,
        b'{"message": "rename other: a volume third exists"}',
    )
    assert client.volumes.get("other").attrs["Labels"] == {"of": "test"}


def test_into_volumes_that_exist(engine: EngineProcess, client: docker.DockerClient, odd: Path) -> None:
    _, packed = ask(engine, "GET", "odd/export")
    client.volumes.create("empty", labels={"stays": "1"})
    running = client.containers.run("busybox", "sleep 1000", detach=True, volumes=["empty:/v"])
    status, said = ask(engine, "POST", "empty/import", packed)
    assert (status, said) == (
        409,
        f'{{"message": "import empty: volume is in use - [{running.id}]"}}'.encode(),
    )
    running.stop(timeout=0)
    running.remove()
    assert ask(engine, "POST", "empty/import", packed)[0] == 201
    assert listing(files_of(engine, "empty")) == listing(odd)
    assert client.volumes.get("empty").attrs["Labels"] == {"stays": "1"}
    assert ask(engine, "POST", "odd/import", packed)[0] == 409
    # A volume with options is filled in its place.
    directory = engine.data_root.parent / "elsewhere"
    directory.mkdir()
    options = ("-o", "type=none", "-o", f"device={directory}", "-o", "o=bind")
    engine.docker("volume", "create", *options, "away")
    assert ask(engine, "POST", "away/import", packed[:100_000])[0] == 400
    assert list(directory.iterdir()) == []
    assert ask(engine, "POST", "away/import", packed)[0] == 201
    assert listing(directory) == listing(odd)
    assert ask(engine, "GET", "away/export")[1] == packed
    assert not any(files_of(engine, "away").iterdir())  # and unmounted again


@pytest.mark.parametrize("broken", ["truncated", "garbage", "escaping"])
def test_a_bad_archive_leaves_nothing(engine: EngineProcess, odd: Path, broken: str, tmp_path: Path) -> None:
    _, packed = ask(engine, "GET", "odd/export")
    if broken == "truncated":
        packed = packed[: len(packed) // 2]
    elif broken == "garbage":
        packed = b"no archive at all" * 100
    else:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            link = tarfile.TarInfo("way")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            archive.addfile(link)
            archive.addfile(tarfile.TarInfo("way/out"))
        packed = out.getvalue()
    status, said = ask(engine, "POST", "bad/import", packed)
    assert status in (400, 500) and said
    assert not list(tmp_path.iterdir())
    left = {entry.name for entry in (engine.data_root / "volumes").iterdir()}
    assert left == {"odd"}
    assert engine.docker("volume", "ls", "-q").stdout == "odd\n"


def test_who_has_the_archive_may_remove_the_volume(engine: EngineProcess) -> None:
    for number in range(30):
        engine.docker("volume", "create", "short")
        (files_of(engine, "short") / "file").write_bytes(bytes(number * 1000))
        assert ask(engine, "GET", "short/export")[0] == 200
        connection = Connection(engine.socket)
        connection.request("DELETE", "/volumes/short")
        assert connection.getresponse().status == 204
        connection.close()


def test_nobody_removes_what_is_read(engine: EngineProcess, client: docker.DockerClient) -> None:
    client.volumes.create("large")
    with (files_of(engine, "large") / "file").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
    connection = Connection(engine.socket)
    connection.request("GET", "/dockmagic/volumes/large/export")
    response = connection.getresponse()
    response.read(100_000)  # the rest waits for us
    done = engine.docker("volume", "rm", "large")
    assert "remove large: volume is in use - [export]" in done.stderr
    connection.close()  # and a reader who goes lets go of it

    def removed() -> bool:
        return engine.docker("volume", "rm", "large").returncode == 0

    deadline = time.monotonic() + 20
    while not removed():
        assert time.monotonic() < deadline
    assert client.volumes.list() == []


def test_two_read_at_once_and_the_first_that_ends_takes_nothing_away(
    engine: EngineProcess, client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(os.urandom(16 << 20))
    options = ("-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind")
    engine.docker("volume", "create", *options, "away")
    connection = Connection(engine.socket)
    connection.request("GET", "/dockmagic/volumes/away/export")
    response = connection.getresponse()
    begun = response.read(100_000)  # the rest waits for us
    assert len(ask(engine, "GET", "away/export")[1]) > 16 << 20
    assert is_mount_point(files_of(engine, "away"))
    refused = engine.docker("volume", "rm", "away")
    assert "remove away: volume is in use - [export]" in refused.stderr
    with tarfile.open(fileobj=io.BytesIO(begun + response.read())) as archive:
        assert archive.getmember("./file").size == 16 << 20
    connection.close()
    assert not is_mount_point(files_of(engine, "away"))
    client.volumes.get("away").remove()


def test_a_killed_import_leaves_nothing(own_engine: EngineProcess) -> None:
    engine = own_engine.start()
    arrived, goes_on = threading.Event(), threading.Event()

    def pieces() -> Any:
        entry = tarfile.TarInfo("file")
        entry.size = 10_000_000
        yield entry.tobuf() + os.urandom(2_000_000)
        arrived.set()
        goes_on.wait()
        yield os.urandom(100)

    def send() -> None:
        connection = Connection(engine.socket)
        with contextlib.suppress(OSError):  # the engine is gone
            connection.request("POST", "/dockmagic/volumes/half/import", pieces())
        connection.close()

    sending = threading.Thread(target=send)
    sending.start()
    arrived.wait()
    volumes = engine.data_root / "volumes"
    deadline = time.monotonic() + 20
    while not list(volumes.glob(".incoming-*/_data/file")):
        assert time.monotonic() < deadline
    engine.kill()
    goes_on.set()
    sending.join()
    engine.start()
    assert engine.docker("volume", "ls", "-q").stdout == ""
    assert list(volumes.iterdir()) == []


def test_a_rename_that_was_killed_in_its_middle_is_finished(own_engine: EngineProcess) -> None:
    engine = own_engine.start()
    engine.docker("volume", "create", "old")
    (files_of(engine, "old") / "file").write_text("kept\n")
    engine.kill()
    with sqlite3.connect(engine.data_root / "engine.db") as database:  # the first half of it
        database.execute("UPDATE volumes SET name = 'new', was = 'old'")
    database.close()
    engine.start()
    assert engine.docker("volume", "ls", "-q").stdout == "new\n"
    assert (files_of(engine, "new") / "file").read_text() == "kept\n"
    assert not files_of(engine, "old").exists()


def test_size_counts_a_file_with_two_names_once(engine: EngineProcess, client: docker.DockerClient) -> None:
    client.volumes.create("linked")
    files = files_of(engine, "linked")
    (files / "one").write_bytes(b"x" * 1000)
    os.link(files / "one", files / "two")
    volumes = {volume["Name"]: volume for volume in client.df()["Volumes"]}
    assert volumes["linked"]["UsageData"] == {"RefCount": 0, "Size": 1000}
