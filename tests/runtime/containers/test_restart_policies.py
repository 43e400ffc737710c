"""Restart policies: what ends is started again, what somebody stopped is not; also across engines."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import docker
import pytest
from docker.models.containers import Container

from tests.conftest import EngineProcess

_PATIENCE = 20.0


def _events(client: docker.DockerClient, container: Container) -> Iterator[str]:
    filters = {"container": container.id, "type": "container"}
    stream = client.api.events(since=0, filters=filters, decode=True)
    for event in stream:
        yield event["Action"]


def _after(client: docker.DockerClient, container: Container, action: str, count: int) -> Container:
    """The container as it is after its n-th event of this kind, from its making on."""
    seen = 0
    for event in _events(client, container):
        seen += event == action
        if seen == count:
            break
    container.reload()
    return container


def _until(container: Container, right: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    """An engine that has just started tells no events of the time before: look until it is right."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        container.reload()
        state: dict[str, object] = container.attrs["State"]
        if right(state):
            return state
    raise AssertionError(f"the container stays {state}")


def test_on_failure_gives_up_after_its_count(client: docker.DockerClient) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    container = client.containers.run("busybox", ["sh", "-c", "exit 3"], restart_policy=policy, detach=True)
    _after(client, container, "die", 3)
    assert container.attrs["State"]["Status"] == "exited" and container.attrs["State"]["ExitCode"] == 3
    assert container.attrs["RestartCount"] == 2


def test_on_failure_is_content_with_success(client: docker.DockerClient) -> None:
    script = "echo run >> /runs; [ $(wc -l < /runs) = 2 ]"
    container = client.containers.run(
        "busybox", ["sh", "-c", script], restart_policy={"Name": "on-failure"}, detach=True
    )
    _after(client, container, "die", 2)
    assert container.attrs["State"]["Status"] == "exited" and container.attrs["State"]["ExitCode"] == 0
    assert container.attrs["RestartCount"] == 1
    container.start()  # a user's start counts anew
    container.reload()
    assert container.attrs["RestartCount"] == 0


def test_what_waits_for_its_restart(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["false"], restart_policy={"Name": "always"}, detach=True)
    _after(client, container, "die", 4)  # the fourth wait is of 0.8 s
    state = container.attrs["State"]
    assert state["Status"] == "restarting" and state["Restarting"] and state["Running"] and state["Pid"] == 0
    assert "Restarting (1)" in engine.docker("ps", "-a").stdout
    refused = engine.docker("exec", container.id, "true").stderr
    assert f"Container {container.id} is restarting, wait until the container is running" in refused
    assert "restarting container" in engine.docker("attach", container.id).stderr
    assert "is restarting" in engine.docker("rm", container.id).stderr
    assert engine.docker("top", container.id).returncode == 1
    container.stop()
    container.reload()
    assert container.attrs["State"]["Status"] == "exited" and not container.attrs["State"]["Running"]


def test_remove_by_force_while_waiting(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["false"], restart_policy={"Name": "always"}, detach=True)
    _after(client, container, "die", 4)
    container.remove(force=True)
    with pytest.raises(docker.errors.NotFound):
        container.reload()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_a_user_ends_stays_down(client: docker.DockerClient, end: str) -> None:
    container = client.containers.run(
        "busybox", ["sleep", "1000"], restart_policy={"Name": "always"}, detach=True
    )
    container.stop(timeout=0) if end == "stop" else container.kill()
    container.reload()
    assert container.attrs["State"]["Status"] == "exited"
    container.start()
    container.exec_run(["kill", "-9", "-1"])  # its first process may not be killed from inside
    container.reload()
    assert container.attrs["State"]["Status"] == "running"


def test_update_of_a_policy(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["false"], restart_policy={"Name": "always"}, detach=True)
    _after(client, container, "die", 1)
    assert engine.docker("update", "--restart", "no", container.id).returncode == 0
    state = _until(container, lambda state: state["Status"] == "exited")
    assert state["ExitCode"] == 1
    gone = client.containers.run("busybox", ["sleep", "1000"], auto_remove=True, detach=True)
    refused = engine.docker("update", "--restart", "always", gone.id).stderr
    assert "Restart policy cannot be updated because AutoRemove is enabled for the container" in refused


@pytest.mark.parametrize(
    ("policy", "auto_remove", "sentence"),
    [
        ({"Name": "never"}, False, "invalid restart policy: unknown policy 'never'; use one of 'no', "),
        (
            {"Name": "always", "MaximumRetryCount": 1},
            False,
            "maximum retry count can only be used with 'on-failure'",
        ),
        (
            {"Name": "on-failure", "MaximumRetryCount": -1},
            False,
            "maximum retry count cannot be negative",
        ),
        ({"Name": "always"}, True, "can't create 'AutoRemove' container with restart policy"),
    ],
)
def test_refusals(
    client: docker.DockerClient, policy: dict[str, object], auto_remove: bool, sentence: str
) -> None:
    host = {"RestartPolicy": policy, "AutoRemove": auto_remove}
    with pytest.raises(docker.errors.APIError, match=sentence) as refusal:
        client.api.create_container("busybox", ["true"], host_config=host)
    assert refusal.value.status_code == 400


def test_the_next_engine_starts_what_its_policy_says(own_engine: EngineProcess) -> None:
    client = own_engine.start().client()

    def run(policy: str, command: list[str]) -> Container:
        return client.containers.run("busybox", command, restart_policy={"Name": policy}, detach=True)

    sleep = ["sleep", "1000"]
    stopped_always, stopped = run("always", sleep), run("unless-stopped", sleep)
    runs, killed = run("unless-stopped", sleep), run("no", sleep)
    waits = run("always", ["false"])
    for each in (stopped_always, stopped):
        each.stop(timeout=0)
    _after(client, waits, "die", 4)
    runs.reload()
    pid = runs.attrs["State"]["Pid"]
    own_engine.kill()
    client.close()
    client = own_engine.start().client()
    assert _until(client.containers.get(stopped_always.id), lambda state: state["Status"] == "running")
    assert _until(client.containers.get(waits.id), lambda state: state["Status"] == "restarting")
    assert client.containers.get(runs.id).attrs["State"]["Pid"] == pid
    assert client.containers.get(killed.id).attrs["State"]["Status"] == "running"
    assert client.containers.get(stopped.id).attrs["State"]["Status"] == "exited"
    client.close()


def test_what_ended_while_no_engine_was_there_is_started_again(own_engine: EngineProcess) -> None:
    client = own_engine.start().client()
    script = "echo run >> /runs; [ $(wc -l < /runs) = 1 ] && read line; exec sleep 1000"
    container = client.containers.run(
        "busybox", ["sh", "-c", script], stdin_open=True, restart_policy={"Name": "always"}, detach=True
    )
    container.reload()
    first = container.attrs["State"]["Pid"]
    own_engine.kill()
    client.close()
    pidfd = os.pidfd_open(first)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    client = own_engine.start().client()
    state = _until(client.containers.get(container.id), lambda state: state["Pid"] not in (0, first))
    assert state["Status"] == "running"
    client.close()
