"""Health checks: what their exit codes make of a container, who is told, what the next engine knows."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from tests.conftest import EngineProcess

_MS = 1_000_000
_PATIENCE = 20.0


def _run(client: docker.DockerClient, line: str, **check: Any) -> Container:
    test = {"test": ["CMD-SHELL", line], "interval": 50 * _MS, **check}
    return client.containers.run("busybox", ["sleep", "1000"], healthcheck=test, detach=True)


def _health_events(client: docker.DockerClient, container: Container) -> Iterator[str]:
    for event in client.api.events(since=0, filters={"container": container.id}, decode=True):
        if event["Action"].startswith("health_status"):
            yield event["Action"]


def _until(container: Container, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        container.reload()
        health: dict[str, Any] = container.attrs["State"]["Health"]
        if right(health):
            return health
    raise AssertionError(f"its health stays {health}")


def test_healthy_then_unhealthy_then_healthy(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = _run(client, "cat /sick && exit 1; echo fine", retries=2)
    container.reload()
    assert container.attrs["State"]["Health"]["Status"] == "starting"
    told = _health_events(client, container)
    assert next(told) == "health_status: healthy"
    assert "(healthy)" in engine.docker("ps").stdout
    container.exec_run(["sh", "-c", "echo flu > /sick"])
    assert next(told) == "health_status: unhealthy"
    container.reload()
    health = container.attrs["State"]["Health"]
    assert health["FailingStreak"] >= 2 and len(health["Log"]) <= 5
    last = health["Log"][-1]
    assert last["ExitCode"] == 1 and last["Output"] == "flu\n" and last["Start"] < last["End"]
    listed = client.containers.list(filters={"health": "unhealthy"})
    assert [each.id for each in listed] == [container.id]
    assert not client.containers.list(filters={"health": "healthy"})
    container.exec_run(["rm", "/sick"])
    assert next(told) == "health_status: healthy"


def test_starting_is_told_by_ps_and_failures_of_the_start_period_do_not_count(
    engine: EngineProcess, client: docker.DockerClient
) -> None:
    options = ["--health-cmd=exit 1", "--health-retries=1", "--health-start-period=1h"]
    made = engine.docker("run", "-d", *options, "--health-start-interval=20ms", "busybox", "sleep", "1000")
    container = client.containers.get(made.stdout.strip())
    health = _until(container, lambda health: len(health["Log"]) == 5)
    assert health["Status"] == "starting" and health["FailingStreak"] == 0
    assert "(health: starting)" in engine.docker("ps").stdout


def test_a_check_that_takes_too_long_is_killed(client: docker.DockerClient) -> None:
    container = _run(client, "exec sleep 567", retries=1, timeout=100 * _MS)
    health = _until(container, lambda health: health["Status"] == "unhealthy")
    assert health["Log"][0]["ExitCode"] == -1
    assert health["Log"][0]["Output"] == "Health check exceeded timeout (0.1s)"
    container.stop(timeout=0)
    container.reload()
    assert container.attrs["State"]["Health"]["Status"] == "unhealthy"


def test_output_is_cut_and_a_missing_command_is_a_failure(client: docker.DockerClient) -> None:
    chatty = _run(client, "yes | head -c 100000")
    health = _until(chatty, lambda health: bool(health["Log"]))
    assert len(health["Log"][0]["Output"]) == 4096 + 3 and health["Log"][0]["Output"].endswith("...")
    check = {"test": ["CMD", "no-such-command"], "interval": 50 * _MS, "retries": 1}
    wrong = client.containers.run("busybox", ["sleep", "1000"], healthcheck=check, detach=True)
    health = _until(wrong, lambda health: health["Status"] == "unhealthy")
    assert health["Log"][0]["ExitCode"] == -1 and "no-such-command" in health["Log"][0]["Output"]


def test_a_restart_begins_anew_and_pause_suspends(client: docker.DockerClient) -> None:
    container = _run(client, "echo > /asked; cat /sick && exit 1; exit 0", retries=1)
    _until(container, lambda health: health["Status"] == "healthy")
    container.pause()
    container.reload()
    assert "(Paused)" in client.api.containers()[0]["Status"]
    container.unpause()
    container.exec_run(["touch", "/sick"])
    _until(container, lambda health: health["Status"] == "unhealthy")
    container.restart(timeout=0)
    health = _until(container, lambda health: True)
    assert health["Status"] == "starting" or health["FailingStreak"] <= 2


def test_no_healthcheck_and_defaults_of_the_image(engine: EngineProcess, client: docker.DockerClient) -> None:
    dockerfile = b"FROM busybox\nHEALTHCHECK --interval=50ms --retries=7 CMD echo from the image\n"
    image = engine.docker("build", "-q", "-t", "checked", "-", input=dockerfile.decode())
    assert image.returncode == 0, image.stderr
    own = client.containers.run("checked", ["sleep", "1000"], detach=True)
    assert _until(own, lambda health: bool(health["Log"]))["Log"][0]["Output"] == "from the image\n"
    changed = client.containers.run(
        "checked", ["sleep", "1000"], healthcheck={"retries": 2, "timeout": 1000 * _MS}, detach=True
    )
    check = changed.attrs["Config"]["Healthcheck"]
    assert check["Retries"] == 2 and check["Interval"] == 50 * _MS and check["Test"][0] == "CMD-SHELL"
    none = engine.docker("run", "-d", "--no-healthcheck", "checked", "sleep", "1000").stdout.strip()
    assert "Health" not in client.api.inspect_container(none)["State"]
    assert [each.id for each in client.containers.list(filters={"health": "none"})] == [none]


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        ({"Test": ["CMD", "true"], "Interval": 1}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "Timeout": -1}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "Retries": -1}, "Retries in Healthcheck cannot be negative"),
        ({"Test": ["SOMETIMES", "true"]}, "Unknown type SOMETIMES in Healthcheck"),
        ({"Test": "true"}, "must be an array of strings"),
    ],
)
def test_refusals(client: docker.DockerClient, check: dict[str, Any], sentence: str) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "Healthcheck": check}
    with pytest.raises(docker.errors.APIError, match=sentence) as refusal:
        client.api.create_container_from_config(body)
    assert refusal.value.status_code == 400


def test_the_next_engine_goes_on(own_engine: EngineProcess) -> None:
    client = own_engine.start().client()
    container = _run(client, "cat /sick && exit 1; exit 0", retries=1)
    _until(container, lambda health: health["Status"] == "healthy")
    own_engine.kill()
    client.close()
    client = own_engine.start().client()
    container = client.containers.get(container.id)
    assert container.attrs["State"]["Health"]["Status"] == "healthy"
    container.exec_run(["touch", "/sick"])
    _until(container, lambda health: health["Status"] == "unhealthy")
    own_engine.stop()
    own_engine.start()
    client.close()
