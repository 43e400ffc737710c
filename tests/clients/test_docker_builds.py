"""Builds by the docker command, and what ends them: a client that goes, a killed engine, a full disk."""

import io
import json
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest
from dockmagic_runtime.config import EngineConfig

from tests.conftest import EngineProcess

DOCKERFILE = "FROM busybox\nRUN echo one > /one\nRUN echo go; exec sleep 1000\n"


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
    found += [str(path) for path in (config.run_root / "build").glob("*")]
    return found


def processes(engine: EngineProcess) -> list[str]:
    """Of steps: they sleep, in groups of this engine."""
    group = EngineConfig(data_root=engine.data_root).cgroup_parent
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if f"{group}/" in path.read_text():
                found.append((path.parent / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [line for line in found if "sleep" in line]


def events(client: docker.DockerClient) -> Any:
    return client.events(decode=True)


def test_a_client_that_goes_ends_its_build(own_engine: EngineProcess) -> None:
    client = own_engine.start().client()
    said = building(client, DOCKERFILE, "go")
    assert processes(own_engine)
    said.close()
    client.close()
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
    for line in answer.iter_lines():
        if json.loads(line).get("stream") == "go\n":
            break
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
    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


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
