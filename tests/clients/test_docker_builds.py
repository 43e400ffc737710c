"""Builds by the docker command, and what ends them: a client that goes, a killed engine, a full disk."""

import io
import json
import os
import re
import select
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import docker
import pytest
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.oci.image import Platform

from tests.conftest import EngineProcess
from tests.runtime.registry.servers import PASSWORD, USER, registry
from tests.web import served

HOST = Platform.host().architecture
DOCKERFILE = "FROM busybox\nRUN echo one > /one\nRUN echo go; sleep 1000; true\n"


def made(dockerfile: str, **files: str) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in {"Dockerfile": dockerfile, **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    out.seek(0)
    return out


def building(client: docker.DockerClient, dockerfile: str, word: str, **options: Any) -> Any:
    """The stream of a build that has said `word`."""
    said = client.api.build(
        fileobj=made(dockerfile), custom_context=True, decode=True, rm=True, timeout=60, **options
    )
    for message in said:
        assert "error" not in message, message
        if message.get("stream") == f"{word}\n":
            return said
    raise AssertionError(f"the build ended without saying {word}")


def leftovers(engine: EngineProcess) -> list[str]:
    """What a build that is over must not have left."""
    config = EngineConfig(data_root=engine.data_root)
    found = [str(path) for path in (engine.data_root / "build").iterdir()]
    found += [str(path) for path in (engine.data_root / "layers/tmp").iterdir()]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/build/" in line]
    found += [
        str(path) for name in ("build", "shims", "netns") for path in (config.run_root / name).glob("*")
    ]
    return found


def processes(engine: EngineProcess) -> list[int]:
    """Of steps: they sleep, in groups of this engine."""
    group = EngineConfig(data_root=engine.data_root).cgroup_parent
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if f"{group}/" in path.read_text() and "sleep" in (path.parent / "cmdline").read_text():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def events(client: docker.DockerClient) -> Any:
    return client.events(decode=True)


def test_a_client_that_goes_ends_its_build(own_engine: EngineProcess) -> None:
    client = own_engine.start().client()
    said = building(client, DOCKERFILE, "go")
    steps = [os.pidfd_open(pid) for pid in processes(own_engine)]
    assert steps
    said.close()
    client.close()
    for step in steps:
        assert select.select([step], [], [], 10)[0], "it says nothing, and ends all the same"
        os.close(step)
    again = own_engine.client()
    # The next build waits for nothing of it; and the first step is known.
    text = "".join(
        message.get("stream", "")
        for message in again.api.build(
            fileobj=made(DOCKERFILE.rpartition("RUN")[0]), custom_context=True, decode=True, rm=True
        )
    )
    assert "Using cache" in text
    own_engine.stop()
    assert not processes(own_engine) and not leftovers(own_engine)


def test_an_engine_that_ends_while_it_builds(own_engine: EngineProcess) -> None:
    """The server interrupts the request and the engine its builds: whichever comes second changes nothing."""
    for _ in range(3):
        client = own_engine.start().client()
        said = building(client, DOCKERFILE, "go", nocache=True)
        own_engine.stop()
        said.close()
        client.close()
        assert not processes(own_engine) and not leftovers(own_engine)


def test_a_killed_engine(own_engine: EngineProcess) -> None:
    client = own_engine.start().client()
    secret = client.api._result(
        client.api._post_json(f"{client.api.base_url}/dockmagic/build-sessions", {"Secrets": {"k": "cw=="}}),
        json=True,
    )["Id"]
    dockerfile = DOCKERFILE.replace(
        "RUN echo go", "RUN --mount=type=secret,id=k --mount=type=cache,target=/c echo go"
    )
    url = client.api._url("/build")
    answer = client.api._post(url, params={"session": secret}, data=made(dockerfile), stream=True)
    lines = answer.iter_lines()  # kept: without it requests closes the connection, which ends the build
    assert any(json.loads(line).get("stream") == "go\n" for line in lines)
    assert processes(own_engine) and leftovers(own_engine)
    own_engine.kill()
    answer.close()
    client.close()
    client = own_engine.start().client()
    assert not processes(own_engine) and not leftovers(own_engine)
    assert [image.tags for image in client.images.list()] == [["busybox:latest"]]
    image, said = client.images.build(
        fileobj=made("FROM busybox\nRUN echo one > /one\n"), custom_context=True
    )
    assert any("Using cache" in message.get("stream", "") for message in said), "what was done is still known"
    assert client.containers.run(image.id, "cat /one", remove=True) == b"one\n"
    client.close()


@contextmanager
def small_disk(engine: EngineProcess, megabytes: int) -> Iterator[None]:
    engine.data_root.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "dm-small", str(engine.data_root)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        engine.clear()
        engine.stop()
        engine.process = None
        subprocess.run(["umount", str(engine.data_root)], check=True)


def test_a_full_disk(own_engine: EngineProcess) -> None:
    with small_disk(own_engine, 40):
        client = own_engine.start().client()
        client.images.pull("busybox")
        fill = "FROM busybox\nRUN echo kept > /kept\nRUN dd if=/dev/zero of=/big bs=1M count=100\n"
        with pytest.raises(docker.errors.BuildError) as caught:
            client.images.build(fileobj=made(fill), custom_context=True)
        assert "returned a non-zero code: 1" in str(caught.value)
        assert any("No space left on device" in str(line) for line in caught.value.build_log)
        with pytest.raises(docker.errors.APIError, match=r"(?i)no space left on device"):
            client.images.build(
                fileobj=made("FROM busybox\nCOPY big /\n", big="x" * 60_000_000), custom_context=True
            )
        with pytest.raises((docker.errors.BuildError, docker.errors.APIError), match=r"(?i)no space left"):
            copy = "FROM busybox\nCOPY --chmod=600 big /\nCOPY --chmod=600 big /2\nCOPY --chmod=600 big /3\n"
            client.images.build(fileobj=made(copy, big="x" * 11_500_000), custom_context=True)
        assert not leftovers(own_engine)
        client.api._post(client.api._url("/build/prune"))
        image, _ = client.images.build(fileobj=made("FROM busybox\nRUN echo x > /x\n"), custom_context=True)
        assert client.containers.run(image.id, "cat /x", remove=True) == b"x\n"
        client.close()


class Served(BaseHTTPRequestHandler):
    """A context, a Dockerfile, and a page that is neither."""

    pages = {
        "/context.tar": made("FROM busybox\nCOPY f /f\n", f="from the tar").getvalue(),
        "/Dockerfile": b"FROM busybox\nRUN echo text > /f\n",
    }

    def do_GET(self) -> None:
        body = self.pages.get(self.path)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def website() -> Iterator[str]:
    with served(Served) as address:
        yield address


def test_a_context_from_a_url(engine: EngineProcess, website: str) -> None:
    for path, content in (("context.tar", "from the tar"), ("Dockerfile", "text\n")):
        built = engine.docker("build", "-q", f"{website}/{path}")
        assert built.returncode == 0, built.stderr
        assert engine.docker("run", "--rm", built.stdout.strip(), "cat", "/f").stdout == content
    missing = engine.docker("build", f"{website}/nothing")
    assert missing.returncode == 1 and "404" in missing.stderr
    # The docker command itself clones what looks like a repository; docker-py leaves it to the engine.
    client = engine.client()
    with pytest.raises(docker.errors.APIError, match="clone it, and build the directory"):
        client.images.build(path="git://127.0.0.1/repository.git")
    client.close()


def test_the_options(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE=nothing\nFROM $BASE AS first\nRUN ulimit -n > /n\nFROM first\nRUN echo > /second\n"
    )
    file = tmp_path / "id"
    built = engine.docker(
        *("build", "--build-arg", "BASE=busybox", "--target", "first", "--ulimit", "nofile=88"),
        *("--iidfile", str(file), "--cache-from", "busybox,absent", "--shm-size", "1m", str(tmp_path)),
    )
    assert built.returncode == 0, built.stderr
    identity = file.read_text()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", identity)
    assert engine.docker("run", "--rm", identity, "cat", "/n").stdout == "88\n"
    assert "Step 2/2" in built.stdout
    base = engine.docker("images", "-q", "busybox").stdout.strip()
    assert f" ---> {base}\n" in built.stdout, "the step of the FROM shows the image's own ID"


def test_a_ctrl_c(own_engine: EngineProcess, tmp_path: Path) -> None:
    """The docker command gets a SIGINT: the step is over, and what was done before is known."""
    own_engine.start()
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    environment = {**os.environ, "DOCKER_HOST": own_engine.address, "DOCKER_BUILDKIT": "0"}
    with subprocess.Popen(
        ["docker", "build", str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as building:
        assert building.stdout and any(line == "go\n" for line in building.stdout)
        assert processes(own_engine)
        building.send_signal(signal.SIGINT)
        assert building.wait(30) != 0
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.rpartition("RUN")[0])
    assert "Using cache" in own_engine.docker("build", str(tmp_path)).stdout
    assert own_engine.docker("images", "-qa", "-f", "dangling=false").stdout.count("\n") == 1
    own_engine.stop()
    assert not processes(own_engine) and not leftovers(own_engine)


def links(engine: EngineProcess, *options: str) -> str:
    """What a RUN sees of the network: "the host's", or its links; or why it sees nothing."""
    dockerfile = "FROM busybox\nRUN readlink /proc/self/ns/net; ls -d /sys/class/net/*\n"
    built = engine.docker("build", "--no-cache", *options, "-", input=dockerfile)
    if built.returncode:
        return built.stderr
    if f"\n{Path('/proc/self/ns/net').readlink()}\n" in built.stdout:
        return "the host's"
    return " ".join(re.findall(r"(?m)^/sys/class/net/(.*)", built.stdout))


def test_the_network_of_a_build(engine: EngineProcess) -> None:
    assert links(engine) == "eth0 lo"
    assert links(engine, "--network", "none") == "lo"
    assert links(engine, "--network", "host") == "the host's"
    engine.docker("network", "create", "for-builds")
    assert links(engine, "--network", "for-builds") == "eth0 lo"
    assert "network nosuch not found" in links(engine, "--network", "nosuch")
    assert "is not supported by this builder" in links(engine, "--network", "container:x")


def test_pull_asks_the_registry(engine: EngineProcess) -> None:
    """A name that means another image here than there."""
    engine.docker("build", "-q", "-t", "alpine", "-", input="FROM busybox\nRUN echo > /of-here\n")
    look = "FROM alpine\nRUN [ -e /of-here ] && echo here || echo there\n"
    try:
        assert "\nhere\n" in engine.docker("build", "--no-cache", "-", input=look).stdout
        assert "\nthere\n" in engine.docker("build", "--no-cache", "--pull", "-", input=look).stdout
    finally:
        engine.docker("rmi", "-f", "alpine")


def test_squash_label_and_platform(engine: EngineProcess) -> None:
    steps = "FROM busybox\nLABEL a=1\nRUN echo 1 > /1\nRUN rm /1; echo 2 > /2\n"
    built = engine.docker(
        *("build", "-q", "--squash", "--label", "a=2", "--label", "b", "--platform", f"linux/{HOST}", "-"),
        input=steps,
    )
    assert built.returncode == 0, built.stderr
    image = json.loads(engine.docker("inspect", built.stdout.strip()).stdout)[0]
    below = json.loads(engine.docker("inspect", "busybox").stdout)[0]
    assert len(image["RootFS"]["Layers"]) == len(below["RootFS"]["Layers"]) + 1
    assert image["Config"]["Labels"] == {**below["Config"]["Labels"], "a": "2", "b": ""}
    assert engine.docker("run", "--rm", image["Id"], "ls", "/1", "/2").stdout == "/2\n"
    empty = "FROM scratch\nENV A=1\n"
    other = engine.docker("build", "-q", "--platform", "linux/s390x", "-", input=empty).stdout.strip()
    shown = engine.docker("inspect", "-f", "{{.Os}}/{{.Architecture}}", other)
    assert shown.stdout == "linux/s390x\n"
    refused = engine.docker("build", "--platform", "foo", "-", input=empty)
    assert refused.returncode == 1 and "unknown operating system or architecture" in refused.stderr


NODE = """FROM node:18-alpine
WORKDIR /app
COPY package.json ./
RUN npm install
COPY . .
EXPOSE 3000
USER node
CMD ["node", "server.js"]
"""
JAVA = """ARG REGISTRY
FROM ${REGISTRY}/team/jdk:17 AS build
WORKDIR /src
COPY Main.java .
RUN javac Main.java
FROM ${REGISTRY}/team/jdk:17
COPY --from=build /src/Main.class /app/
WORKDIR /app
ENTRYPOINT ["java", "Main"]
"""
# What stands in for the tools: they leave what the Dockerfile's next lines need.
NODE_BASE = r"""FROM busybox
RUN mkdir -p /etc && echo node:x:1000:1000::/:/bin/sh >> /etc/passwd
RUN printf '#!/bin/sh\nmkdir node_modules && echo added 1 package\n' > /bin/npm
RUN printf '#!/bin/sh\necho node runs $1 as $(id -un) in $PWD\n' > /bin/node; chmod +x /bin/npm /bin/node
"""
JAVA_BASE = r"""FROM busybox
RUN printf '#!/bin/sh\ncp $1 ${1%%.java}.class\n' > /bin/javac
RUN printf '#!/bin/sh\necho java runs $1; cat $1.class\n' > /bin/java; chmod +x /bin/javac /bin/java
"""


def told(engine: EngineProcess, dockerfile: str) -> list[str]:
    client = engine.client()
    answer = client.api._post_json(
        f"{client.api.base_url}/dockmagic/explain", {"Dockerfile": dockerfile, "Ignores": True}
    )
    steps = client.api._result(answer, json=True)["steps"]
    client.close()
    return [step["does"] for step in steps]


def test_the_courses_node_app(engine: EngineProcess, tmp_path: Path) -> None:
    made_base = engine.docker("build", "-q", "-t", "node:18-alpine", "-", input=NODE_BASE)
    assert made_base.returncode == 0, made_base.stderr
    (tmp_path / "Dockerfile").write_text(NODE)
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "server.js").write_text("listen")
    (tmp_path / ".dockerignore").write_text("node_modules\n")
    built = engine.docker("build", "-t", "test/my-app", str(tmp_path))
    assert built.returncode == 0, built.stderr
    assert "added 1 package\n" in built.stdout
    ran = engine.docker("run", "--rm", "test/my-app")
    assert ran.stdout == "node runs server.js as node in /app\n", ran.stderr
    (tmp_path / "server.js").write_text("listen more")
    again = engine.docker("build", "-t", "test/my-app", str(tmp_path))
    assert again.stdout.count("Using cache") == 3, "the dependencies are not installed again"
    assert "In a container runs `npm install` with /bin/sh -c in /app" in told(engine, NODE)[3]
    engine.docker("rmi", "-f", "test/my-app", "node:18-alpine")


def test_the_courses_java_app_on_a_private_base(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Dockerfile").write_text(JAVA)
    (tmp_path / "app/Main.java").write_text("class Main {}\n")
    with registry(tmp_path, password=True) as address:
        base = f"{address}/team/jdk:17"
        engine.docker("build", "-q", "-t", base, "-", input=JAVA_BASE)
        login = engine.docker("login", "-u", USER, "--password-stdin", address, input=PASSWORD)
        assert login.returncode == 0, login.stderr
        assert engine.docker("push", base).returncode == 0
        engine.docker("rmi", "-f", base)
        build = ("build", "-t", "test/java", "--build-arg", f"REGISTRY={address}", str(tmp_path / "app"))
        engine.docker("logout", address)
        refused = engine.docker(*build)
        assert refused.returncode == 1 and "no basic auth credentials" in refused.stderr
        engine.docker("login", "-u", USER, "--password-stdin", address, input=PASSWORD)
        built = engine.docker(*build)
        assert built.returncode == 0, built.stderr
    assert engine.docker("run", "--rm", "test/java").stdout == "java runs Main\nclass Main {}\n"
    assert "Copies /src/Main.class of the stage build to /app/, as a layer." in told(engine, JAVA)
    engine.docker("rmi", "-f", "test/java", base)
