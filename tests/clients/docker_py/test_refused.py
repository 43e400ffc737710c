"""What the engine is not, called through docker-py: an APIError with a sentence, never a 500."""

from collections.abc import Callable
from typing import Any

import docker
import pytest
from docker.errors import APIError, NotFound
from docker.types import ContainerSpec, TaskTemplate

from tests.clients.docker_py.refusals import REFUSED

Ask = Callable[[docker.DockerClient], Any]

TASK = TaskTemplate(ContainerSpec("busybox"))
NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
NO_SWARM = "swarm mode is not supported by this engine: it is an engine of one machine"
NO_PLUGINS = "plugins are not supported by this engine: its drivers are built in"

BY_SWARM: dict[str, Ask] = {
    "APIClient.inspect_swarm": lambda client: client.api.inspect_swarm(),
    "APIClient.update_swarm": lambda client: client.api.update_swarm(1, {}),
    "APIClient.get_unlock_key": lambda client: client.api.get_unlock_key(),
    "APIClient.unlock_swarm": lambda client: client.api.unlock_swarm("SWMKEY-1-x"),
    "APIClient.nodes": lambda client: client.api.nodes(),
    "APIClient.inspect_node": lambda client: client.api.inspect_node("x"),
    "APIClient.update_node": lambda client: client.api.update_node("x", 1, {}),
    "APIClient.remove_node": lambda client: client.api.remove_node("x"),
    "APIClient.services": lambda client: client.api.services(),
    "APIClient.create_service": lambda client: client.api.create_service(TASK),
    "APIClient.inspect_service": lambda client: client.api.inspect_service("x"),
    "APIClient.update_service": lambda client: client.api.update_service("x", 1, task_template=TASK),
    "APIClient.remove_service": lambda client: client.api.remove_service("x"),
    "APIClient.service_logs": lambda client: client.api.service_logs("x", stdout=True),
    "APIClient.tasks": lambda client: client.api.tasks(),
    "APIClient.inspect_task": lambda client: client.api.inspect_task("x"),
    "APIClient.secrets": lambda client: client.api.secrets(),
    "APIClient.create_secret": lambda client: client.api.create_secret("x", b"y"),
    "APIClient.inspect_secret": lambda client: client.api.inspect_secret("x"),
    "APIClient.remove_secret": lambda client: client.api.remove_secret("x"),
    "APIClient.configs": lambda client: client.api.configs(),
    "APIClient.create_config": lambda client: client.api.create_config("x", b"y"),
    "APIClient.inspect_config": lambda client: client.api.inspect_config("x"),
    "APIClient.remove_config": lambda client: client.api.remove_config("x"),
    "Swarm.reload": lambda client: client.swarm.reload(),
    "Swarm.get_unlock_key": lambda client: client.swarm.get_unlock_key(),
    "Swarm.unlock": lambda client: client.swarm.unlock("SWMKEY-1-x"),
    "NodeCollection.get": lambda client: client.nodes.get("x"),
    "NodeCollection.list": lambda client: client.nodes.list(),
    "ServiceCollection.create": lambda client: client.services.create("busybox"),
    "ServiceCollection.get": lambda client: client.services.get("x"),
    "ServiceCollection.list": lambda client: client.services.list(),
    "SecretCollection.create": lambda client: client.secrets.create(name="x", data=b"y"),
    "SecretCollection.get": lambda client: client.secrets.get("x"),
    "SecretCollection.list": lambda client: client.secrets.list(),
    "ConfigCollection.create": lambda client: client.configs.create(name="x", data=b"y"),
    "ConfigCollection.get": lambda client: client.configs.get("x"),
    "ConfigCollection.list": lambda client: client.configs.list(),
}
BY_PLUGINS: dict[str, Ask] = {
    "APIClient.inspect_plugin": lambda client: client.api.inspect_plugin("x/y"),
    "APIClient.enable_plugin": lambda client: client.api.enable_plugin("x/y"),
    "APIClient.disable_plugin": lambda client: client.api.disable_plugin("x/y"),
    "APIClient.remove_plugin": lambda client: client.api.remove_plugin("x/y"),
    "APIClient.configure_plugin": lambda client: client.api.configure_plugin("x/y", {"A": "1"}),
    "PluginCollection.get": lambda client: client.plugins.get("x/y"),
}
OTHERS: dict[str, tuple[Ask, int, str]] = {
    "APIClient.init_swarm": (lambda client: client.api.init_swarm(), 501, NO_SWARM),
    "APIClient.join_swarm": (lambda client: client.api.join_swarm(["127.0.0.1"], "x"), 501, NO_SWARM),
    "APIClient.leave_swarm": (
        lambda client: client.api.leave_swarm(),
        503,
        "This node is not part of a swarm",
    ),
    "Swarm.init": (lambda client: client.swarm.init(), 501, NO_SWARM),
    "Swarm.join": (lambda client: client.swarm.join(["127.0.0.1"], "x"), 501, NO_SWARM),
    "Swarm.leave": (lambda client: client.swarm.leave(), 503, "This node is not part of a swarm"),
    "APIClient.plugin_privileges": (lambda client: client.api.plugin_privileges("x/y"), 501, NO_PLUGINS),
    "APIClient.pull_plugin": (lambda client: list(client.api.pull_plugin("x/y", [])), 501, NO_PLUGINS),
    "APIClient.upgrade_plugin": (
        lambda client: list(client.api.upgrade_plugin("x", "x", [])),
        501,
        NO_PLUGINS,
    ),
    # docker-py asks for …/pull, which Docker never had.
    "APIClient.push_plugin": (lambda client: client.api.push_plugin("x/y"), 404, "page not found"),
    "PluginCollection.install": (lambda client: client.plugins.install("x/y"), 501, NO_PLUGINS),
    "APIClient.search": (
        lambda client: client.api.search("busybox"),
        503,
        "search is not available: the OCI distribution protocol has no search",
    ),
    "ImageCollection.search": (
        lambda client: client.images.search("busybox"),
        503,
        "search is not available: the OCI distribution protocol has no search",
    ),
}


@pytest.mark.parametrize("name", BY_SWARM)
def test_swarm(client: docker.DockerClient, name: str) -> None:
    with pytest.raises(APIError) as caught:
        BY_SWARM[name](client)
    assert (caught.value.status_code, caught.value.explanation) == (503, NO_MANAGER)


@pytest.mark.parametrize("name", BY_PLUGINS)
def test_plugins(client: docker.DockerClient, name: str) -> None:
    with pytest.raises(NotFound) as caught:
        BY_PLUGINS[name](client)
    assert caught.value.explanation == 'plugin "x/y" not found'


@pytest.mark.parametrize("name", OTHERS)
def test_others(client: docker.DockerClient, name: str) -> None:
    ask, status, sentence = OTHERS[name]
    with pytest.raises(APIError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.explanation) == (status, sentence)


def test_a_plugin_is_not_made_of_a_directory(client: docker.DockerClient, tmp_path: Any) -> None:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "config.json").write_text("{}")
    for create in (client.api.create_plugin, client.plugins.create):
        with pytest.raises(APIError, match=NO_PLUGINS):
            create("x/y", str(tmp_path))


def test_there_are_no_plugins(client: docker.DockerClient) -> None:
    assert client.api.plugins() == []
    assert client.plugins.list() == []


def test_the_shape_of_a_swarm_needs_none(client: docker.DockerClient) -> None:
    assert client.api.create_swarm_spec(snapshot_interval=5)["Raft"]["SnapshotInterval"] == 5


def test_a_swarm_that_is_not_there_has_no_id(client: docker.DockerClient) -> None:
    assert client.swarm.id is None


def test_every_refusal_is_asked_for() -> None:
    """Those with an answer of the engine, which is told by the status that the reason begins with."""
    asked = {*BY_SWARM, *BY_PLUGINS, *OTHERS}
    with_status = {name for name, reason in REFUSED.items() if reason[:3].isdigit()}
    by_other_tests = {"APIClient.create_plugin", "PluginCollection.create"}
    assert with_status == asked | by_other_tests
