"""What this engine has not, as clients meet it: Docker's sentence where Docker has one, never a 500."""

import docker
import pytest

from tests.conftest import EngineProcess

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
NO_SWARM = "swarm mode is not supported by this engine: it is an engine of one machine"
NO_PLUGINS = "plugins are not supported by this engine: its drivers are built in"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("swarm init", NO_SWARM),
        ("swarm join --token t 127.0.0.1:2377", NO_SWARM),
        ("swarm leave", "This node is not part of a swarm"),
        ("swarm unlock-key", NO_MANAGER),
        ("swarm update --autolock", NO_MANAGER),
        ("swarm ca", NO_MANAGER),
        ("node ls", NO_MANAGER),
        ("node ps", NO_MANAGER),
        ("service ls", NO_MANAGER),
        ("service create busybox", NO_MANAGER),
        ("stack ls", NO_MANAGER),
        ("secret ls", NO_MANAGER),
        ("config ls", NO_MANAGER),
        ("plugin install --grant-all-permissions vieux/sshfs", NO_PLUGINS),
        ("plugin enable nosuch", 'plugin "nosuch" not found'),
        ("plugin inspect nosuch", 'plugin "nosuch" not found'),
        ("plugin rm nosuch", 'plugin "nosuch" not found'),
    ],
)
def test_commands(engine: EngineProcess, command: str, sentence: str) -> None:
    done = engine.docker(*command.split())
    assert done.returncode == 1, done
    assert done.stderr.strip().endswith(f"Error response from daemon: {sentence}")


def test_there_are_no_plugins(engine: EngineProcess) -> None:
    done = engine.docker("plugin", "ls", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("action", ["create", "ls", "rm"])
def test_checkpoints(engine: EngineProcess, client: docker.DockerClient, action: str) -> None:
    client.containers.create("busybox", name="held")
    url = f"/containers/held/checkpoints{'/x' if action == 'rm' else ''}"
    method = {"create": "POST", "ls": "GET", "rm": "DELETE"}[action]
    response = client.api.request(method, client.api._url(url))
    assert response.status_code == 501
    assert response.json()["message"] == (
        "checkpoints are not supported by this engine: it cannot save the state of running processes"
    )


def test_a_start_from_a_checkpoint(engine: EngineProcess, client: docker.DockerClient) -> None:
    held = client.containers.create("busybox", name="held")
    response = client.api.post(client.api._url("/containers/held/start"), params={"checkpoint": "x"})
    assert (response.status_code, response.json()["message"][:27]) == (501, "checkpoints are not support")
    held.reload()
    assert held.status == "created"
