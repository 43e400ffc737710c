"""`--format` of the lists beside the docker command's: the same fields with the same words."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from dockmagic.grammar.rows import natural, published

from .conftest import IMAGE, LABEL, Run


@pytest.fixture
def things(docker_host: str, name: str) -> Iterator[str]:
    """Containers with most of what a list can tell, one of them running; the prefix of their names."""
    client = docker.DockerClient(base_url=docker_host)
    client.networks.create(name, labels={LABEL: "1", "a": "b"})
    client.containers.run(
        IMAGE,
        ["sleep", "100000"],
        name=name,
        detach=True,
        network=name,
        labels={"app": "shop", "a.b": "c=d"},
        ports={"80/tcp": None, "33/udp": ("127.0.0.1", None), "7000/tcp": None},
        volumes={name: {"bind": "/data"}, "/tmp": {"bind": "/outside", "mode": "ro"}},
    )
    client.containers.create(IMAGE, ["echo", "a rather long command"], name=f"{name}-2", network_mode="none")
    yield name
    for suffix in ("", "-2"):
        client.containers.get(f"{name}{suffix}").remove(force=True, v=True)
    client.close()


def theirs(line: str, docker_host: str) -> str:
    done = subprocess.run(
        ["docker", *shlex.split(line)],
        env={**os.environ, "DOCKER_HOST": docker_host},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.rstrip("\n")


def steady(field: str, value: Any) -> Any:
    """`value` without ages, which may be a second more by the time that the second command asks."""
    if field in ("Labels", "Mounts"):  # maps of Go's: in any order
        return sorted(value.split(","))
    if isinstance(value, str):
        return re.sub(r"(Less than a second|About a minute|\d+ (seconds?|minutes))( ago)?", "AGE", value)
    return value


@pytest.mark.parametrize(
    "line",
    [
        "ps -a",
        "ps -a --no-trunc -s",
        "ps --filter NAME",
        "images",
        "images --digests --no-trunc",
        "volume ls",
        "network ls",
        "network ls --no-trunc",
        "history IMAGE",
        "history --no-trunc --human=false IMAGE",
        "system df",
    ],
)
def test_the_fields_are_dockers(run: Run, things: str, docker_host: str, line: str) -> None:
    line = line.replace("NAME", f"name={things}").replace("IMAGE", IMAGE)

    def ask() -> list[dict[str, Any]]:
        return [json.loads(row) for row in run(f"%docker {line} --format json").value.splitlines()]

    before = None
    while (our_rows := ask()) != before:  # containers of other tests may still be ending
        before = our_rows
        their_rows = [json.loads(row) for row in theirs(f"{line} --format json", docker_host).splitlines()]
    assert len(our_rows) == len(their_rows) > 0
    for ours, other in zip(our_rows, their_rows, strict=True):
        for field, value in other.items():
            assert steady(field, ours[field]) == steady(field, value)


@pytest.mark.parametrize(
    "line",
    [
        "ps -a --format '{{.ID}}: {{.Command}} {{.Ports}} {{.Label \"app\"}}'",
        "ps -l --format '{{.Names}} {{.Networks}} {{.LocalVolumes}}'",
        "ps -n 2 -q",
        "images -q --no-trunc",
        "volume ls -q",
        "network ls -q --filter label=a",
        "port NAME",
        "inspect NAME --format '{{.Name}} {{range .Mounts}}{{.Type}} {{end}}{{json .State.Running}}'",
        "inspect NAME --format '{{index .Config.Labels \"a.b\"}} {{len .Config.Cmd}} {{.Config.Cmd}}'",
        "network inspect NAME --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}'",
        "volume inspect NAME -f '{{.Mountpoint}}'",
        "version --format '{{.Server.Version}} {{.Server.Os}}'",
        "info --format '{{.ServerVersion}} {{.Driver}} {{.NCPU}}'",
    ],
)
def test_lines_are_dockers(run: Run, things: str, docker_host: str, line: str) -> None:
    line = line.replace("NAME", things)
    ran = run(f"%docker {line}")
    assert ran.error is None
    ours = "\n".join(ran.value) if isinstance(ran.value, list) else ran.value
    assert ours.rstrip("\n") == theirs(line, docker_host) != ""


def port(private: int, public: int = 0, host: str = "", protocol: str = "tcp") -> dict[str, Any]:
    return {"PrivatePort": private, "Type": protocol} | ({"PublicPort": public, "IP": host} if public else {})


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(80), port(81), port(443), port(53, protocol="udp")], "80-81/tcp, 53/udp, 443/tcp"),
        ([port(80, 8080, "0.0.0.0"), port(80, 8080, "::")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        (
            [port(number, number, "0.0.0.0") for number in (9000, 9002, 9001)],
            "0.0.0.0:9000-9002->9000-9002/tcp",
        ),
        (
            [port(22), port(80, 80, "0.0.0.0"), port(90, 91, "127.0.0.1")],
            "22/tcp, 0.0.0.0:80->80/tcp, 127.0.0.1:91->90/tcp",
        ),
    ],
)
def test_ports_in_a_list(ports: list[dict[str, Any]], words: str) -> None:
    assert published(ports) == words


def test_names_are_listed_in_dockers_order() -> None:
    names = ["a", "a-1", "a1", "a02", "a10", "a:", "b"]
    assert sorted(set(names), key=natural) == names
