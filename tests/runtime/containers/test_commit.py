"""commit: the writable layer and the settings of a container as an image."""

import docker
import pytest

from tests.conftest import EngineProcess


def test_commit_of_files_and_settings(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = client.containers.run(
        "busybox",
        ["sh", "-c", "echo new > /new; rm /etc/group; exec sleep 1000"],
        environment={"A": "1"},
        volumes={"commit-volume": {"bind": "/volume"}},
        detach=True,
    )
    container.exec_run(["sh", "-c", "until [ ! -e /etc/group ]; do :; done; echo x > /volume/not-in-it"])
    options = ["-a", "Ada", "-m", "first", "-c", 'CMD ["cat", "/new"]', "-c", "ENV B=2", "-c", "EXPOSE 80"]
    made = engine.docker("commit", *options, container.id, "committed:1")
    assert made.returncode == 0, made.stderr
    image = client.images.get("committed:1")
    assert made.stdout.strip() == image.id and image.attrs["Author"] == "Ada"
    config = image.attrs["Config"]
    assert config["Cmd"] == ["cat", "/new"] and "80/tcp" in config["ExposedPorts"]
    assert "A=1" in config["Env"] and "B=2" in config["Env"]
    history = image.history()
    assert history[0]["Comment"] == "first" and history[0]["Size"] > 0
    base = client.images.get("busybox")
    assert image.attrs["Parent"] == base.id
    assert image.attrs["RootFS"]["Layers"][:-1] == base.attrs["RootFS"]["Layers"]
    assert client.containers.run(image.id) == b"new\n"
    script = "ls /etc/group /volume/not-in-it; cat /etc/hostname"
    seen = client.containers.run(image.id, ["sh", "-c", script + "; true"], stderr=True).decode()
    assert seen.count("No such file") == 2 and container.short_id not in seen
    # The container itself goes on with what it had.
    container.reload()
    assert container.status == "running"
    assert container.exec_run(["cat", "/new"]).output == b"new\n"
    assert {change["Path"] for change in container.diff()} >= {"/new", "/etc/group"}


def test_commit_by_docker_py_of_a_stopped_container(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["touch", "/made"], detach=True)
    container.wait()
    image = container.commit("committed", "2", conf={"Cmd": ["ls", "/made"]})
    assert client.containers.run(image.id) == b"/made\n"
    untagged = container.commit()
    assert untagged.tags == []


def test_refusals(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["true"], detach=True)
    container.wait()
    refused = engine.docker("commit", "-c", "RUN true", container.id)
    assert refused.returncode == 1 and "RUN is not a valid change command" in refused.stderr
    assert "No such container: nothing" in engine.docker("commit", "nothing").stderr
    with pytest.raises(docker.errors.APIError, match="invalid reference format"):
        container.commit("A B")


def test_events(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["true"], detach=True)
    container.wait()
    image = container.commit("committed", "3", message="why")
    for event in client.api.events(since=0, filters={"container": container.id}, decode=True):
        if event["Action"] == "commit":
            break
    told = event["Actor"]["Attributes"]
    assert told["imageID"] == image.id and told["comment"] == "why" and told["imageRef"] == "committed:3"
