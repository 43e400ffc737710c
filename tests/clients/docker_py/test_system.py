"""docker-py on the engine itself: ping, version, info, disk use, events, and how a client finds it."""

import json
import os
import threading
import time
from pathlib import Path

import docker
import pytest
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, InvalidVersion
from docker.models.containers import Container

from tests.conftest import EngineProcess


def test_what_it_is(api: docker.APIClient, client: docker.DockerClient) -> None:
    assert client.ping() is True and api.ping() is True
    version = client.version()
    assert (version["ApiVersion"], version["MinAPIVersion"], version["Os"]) == ("1.47", "1.24", "linux")
    assert api.version(api_version=False) == version
    info = client.info()
    assert (info["OSType"], info["NCPU"], info["Driver"]) == ("linux", os.cpu_count(), "overlay2")
    assert api.info()["ID"] == info["ID"]


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.41", "1.44", "1.47"])
def test_versions_by_number(engine: EngineProcess, version: str) -> None:
    client = docker.DockerClient(base_url=engine.address, version=version)
    assert client.api.api_version == version
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    client.close()


def test_versions_by_agreement(engine: EngineProcess) -> None:
    for wish in ("auto", None):
        client = docker.APIClient(base_url=engine.address, version=wish)
        assert client.api_version == "1.47"
        client.close()


def test_versions_that_are_refused(engine: EngineProcess) -> None:
    with pytest.raises(InvalidVersion):
        docker.APIClient(base_url=engine.address, version="1.23")
    new = docker.APIClient(base_url=engine.address, version="1.99")
    with pytest.raises(APIError) as caught:
        new.containers()
    assert caught.value.status_code == 400
    assert caught.value.explanation == (
        "client version 1.99 is too new. Maximum supported API version is 1.47"
    )
    new.close()


def test_clients_from_the_environment(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    for make in (docker.from_env, docker.DockerClient.from_env):
        client = make(version="auto", timeout=20, max_pool_size=3)
        assert client.ping()
        client.close()
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    ContextAPI.create_context("ours", host=engine.address)
    client = docker.DockerClient.from_context("ours")
    assert client.ping()
    client.close()
    with pytest.raises(DockerException):
        docker.APIClient(base_url=f"unix://{tmp_path}/nosuch.sock", version="auto")


def test_disk_use(api: docker.APIClient, client: docker.DockerClient) -> None:
    volume = client.volumes.create("full")
    container = client.containers.create(
        "busybox", "sh -c 'echo 12345 >/v/a; echo 123 >/b'", volumes=["full:/v"]
    )
    container.start()
    container.wait()
    use = client.df()
    assert set(use) >= {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    (ours,) = use["Containers"]
    assert (ours["Id"], ours["SizeRw"]) == (container.id, 4)
    (listed,) = use["Volumes"]
    assert (listed["Name"], listed["UsageData"]) == (volume.name, {"RefCount": 1, "Size": 6})
    assert any("busybox:latest" in image["RepoTags"] and image["Containers"] == 1 for image in use["Images"])
    assert api.df()["LayersSize"] == use["LayersSize"] > 0


def test_events_as_they_come(client: docker.DockerClient) -> None:
    events = client.events(decode=True, filters={"type": "container", "label": "of=test"})
    runner = threading.Thread(
        target=client.containers.run,
        args=("busybox", "true"),
        kwargs={"labels": {"of": "test"}, "remove": True},
    )
    runner.start()
    seen = []
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            events.close()
    runner.join()
    assert seen == ["create", "start", "die", "destroy"]


def test_events_of_the_past(api: docker.APIClient, client: docker.DockerClient, container: Container) -> None:
    since = time.time() - 60
    container.kill()
    container.wait()
    raw = b"".join(
        line if isinstance(line, bytes) else line.encode()
        for line in api.events(since=since, until=time.time() + 0.01, filters={"container": container.name})
    )
    events = [json.loads(line) for line in raw.splitlines()]
    assert [event["Action"] for event in events] == ["create", "start", "kill", "die"]
    kill = next(event for event in events if event["Action"] == "kill")
    assert kill["Actor"]["Attributes"]["signal"] == "9" and kill["id"] == container.id
    assert kill["from"] == "busybox" and kill["scope"] == "local"
    die = next(event for event in events if event["Action"] == "die")
    assert die["Actor"]["Attributes"]["exitCode"] == "137"
    assert list(client.events(since=1, until=2, decode=True)) == []


def test_a_login_without_a_registry_to_ask(client: docker.DockerClient) -> None:
    with pytest.raises(APIError) as caught:
        client.login("alice", "wrong", registry="127.0.0.1:1")
    assert caught.value.status_code == 503
