"""docker-compose 1.29, which speaks the API through an old docker-py: two services up, used, and down."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import EngineProcess

FILE = """
version: "3.7"
services:
  web:
    image: busybox
    command: sh -c 'echo up; httpd -f -p 80 -h /data'
    depends_on: [store]
    ports: ["80"]
    volumes: ["pages:/data", "./here:/here:ro"]
    environment: {WORD: said}
    networks: [front, back]
    restart: unless-stopped
    init: true
  store:
    build: {context: ., args: {WORD: built}}
    image: store:made
    command: sleep 1000
    stop_signal: SIGKILL
    healthcheck: {test: ["CMD", "true"], interval: 1s}
    networks: {back: {aliases: [database]}}
volumes: {pages: {labels: {of: test}}}
networks: {front: {}, back: {internal: true}}
"""
DOCKERFILE = "FROM busybox\nARG WORD\nRUN echo $WORD > /word\n"


class Project:
    """A directory with a compose file; called, it runs docker-compose there."""

    def __init__(self, directory: Path, address: str) -> None:
        self.directory, self.address = directory, address
        (directory / "docker-compose.yml").write_text(FILE)
        (directory / "Dockerfile").write_text(DOCKERFILE)
        (directory / "here").mkdir()
        (directory / "here" / "index.html").write_text("page")

    def __call__(self, *words: str, expect: int = 0) -> str:
        done = subprocess.run(
            ["docker-compose", "--ansi", "never", "-p", "project", *words],
            cwd=self.directory,
            env={**os.environ, "DOCKER_HOST": self.address},
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def compose(engine: EngineProcess, tmp_path: Path) -> Project:
    if shutil.which("docker-compose") is None:
        pytest.fail("docker-compose is missing: apt-get install docker-compose")
    return Project(tmp_path, engine.address)


def test_up_and_down(engine: EngineProcess, compose: Project) -> None:
    up = compose("up", "-d")
    assert "Creating project_store_1" in up and "Creating project_web_1" in up
    assert up.index("Creating project_store_1") < up.index("Creating project_web_1"), "it depends on it"
    assert set(compose("ps", "-q").split()) == set(engine.docker("ps", "-q", "--no-trunc").stdout.split())
    assert "up" in compose("logs", "web")
    assert compose("exec", "-T", "store", "cat", "/word") == "built\n"
    assert compose("exec", "-T", "web", "ping", "-c1", "-w5", "database").count("64 bytes") == 1
    compose("exec", "-T", "web", "cp", "/here/index.html", "/data")
    port = compose("port", "web", "80").strip().rpartition(":")[2]
    page = subprocess.run(
        ["curl", "-sf", f"http://127.0.0.1:{port}/index.html"], capture_output=True, check=True
    )
    assert page.stdout == b"page"
    networks = json.loads(
        engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "project_web_1").stdout
    )
    assert set(networks) == {"project_front", "project_back"}
    assert "is up-to-date" in compose("up", "-d"), "what is there is left alone"
    assert "PID" in compose("top", "store") and "80/tcp" in compose("ps")
    assert compose("run", "--rm", "-T", "--no-deps", "web", "sh", "-c", "echo $WORD").startswith("said\n")
    compose("up", "-d", "--scale", "store=2", "--no-recreate")
    assert len(compose("ps", "-q", "store").split()) == 2
    compose("pause", "store")
    compose("unpause", "store")
    compose("restart", "-t", "0", "web")
    compose("stop", "-t", "0", "web")
    assert "Exit" in compose("ps", "web")
    compose("start", "web")
    compose("rm", "-fs", "store")
    down = compose("down", "-v", "--rmi", "local", "-t", "0")
    assert "Removing network project_front" in down
    compose("down", "--rmi", "all")
    for kind in ("container", "network", "volume"):
        left = engine.docker(
            kind,
            "ls",
            "-q",
            *(["-a"] if kind == "container" else []),
            "--filter",
            "label=com.docker.compose.project",
        )
        assert left.stdout == ""
    engine.docker("rmi", "-f", "store:made")


def test_a_change_recreates_one_service(engine: EngineProcess, compose: Project) -> None:
    compose("up", "-d")
    store, web = (compose("ps", "-q", name).strip() for name in ("store", "web"))
    compose("exec", "-T", "web", "sh", "-c", "echo kept > /data/file")
    (compose.directory / "docker-compose.yml").write_text(FILE.replace("WORD: said", "WORD: changed"))
    assert "Recreating project_web_1" in compose("up", "-d", "-t", "0")
    assert compose("ps", "-q", "store").strip() == store and compose("ps", "-q", "web").strip() != web
    assert compose("exec", "-T", "web", "sh", "-c", "echo $WORD; cat /data/file") == "changed\nkept\n"
    compose("down", "-v", "-t", "0")
    engine.docker("rmi", "-f", "store:made")


def test_what_cannot_be(compose: Project) -> None:
    (compose.directory / "docker-compose.yml").write_text(
        FILE.replace("image: busybox", "image: nosuch/image")
    )
    assert "nosuch/image" in compose("up", "-d", expect=1)
    compose("down", "-v", "-t", "0")
