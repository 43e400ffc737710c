"""What every HTTP client relies on: versions, errors, streams; and what our own views are told besides."""

import json
import socket
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.conftest import EngineProcess
from tests.web import Connection

pytestmark = pytest.mark.usefixtures("busybox")


def ask(engine: EngineProcess, method: str, path: str, body: object = None) -> tuple[int, Any]:
    connection = Connection(engine.socket)
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, raw, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text.strip().startswith((b"{", b"[")) else text


@pytest.mark.parametrize("version", ["", "/v1.24", "/v1.41", "/v1.47"])
def test_versions_that_are_served(engine: EngineProcess, version: str) -> None:
    status, answer = ask(engine, "GET", f"{version}/version")
    assert status == 200
    assert (answer["ApiVersion"], answer["MinAPIVersion"]) == ("1.47", "1.24")


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (
            "1.23",
            "client version 1.23 is too old. Minimum supported API version is 1.24",
        ),
        ("1.99", "client version 1.99 is too new. Maximum supported API version is 1.47"),
    ],
)
def test_versions_that_are_not(engine: EngineProcess, version: str, sentence: str) -> None:
    status, answer = ask(engine, "GET", f"/v{version}/version")
    assert status == 400
    assert answer["message"].startswith(sentence)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("GET", "/nowhere", None, 404, "page not found"),
        ("PUT", "/containers/json", None, 404, "page not found"),
        ("GET", "/containers/nosuch/json", None, 404, "No such container: nosuch"),
        ("GET", "/images/nosuch/json", None, 404, "No such image: nosuch:latest"),
        ("GET", "/networks/nosuch", None, 404, "network nosuch not found"),
        ("GET", "/volumes/nosuch", None, 404, "get nosuch: no such volume"),
        ("GET", "/exec/nosuch/json", None, 404, "No such exec instance: nosuch"),
        ("POST", "/containers/create", b"{", 400, "invalid JSON"),
        ("POST", "/containers/create", b"[]", 400, "invalid JSON: the body must be an object"),
        ("POST", "/containers/create", {}, 400, "no image specified"),
        ("POST", "/containers/create", {"Image": "nosuch"}, 404, "No such image: nosuch:latest"),
        (
            "POST",
            "/containers/create",
            {"Image": "busybox", "Env": "x"},
            400,
            "cannot use a string as the array",
        ),
        ("POST", "/containers/create", {"Image": "busybox", "Env": [1]}, 400, "must hold strings only"),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Memory": True}}, 400, "boolean"),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Memory": -5}}, 400, "6MB"),
        (
            "POST",
            "/containers/create",
            {"Image": "busybox", "HostConfig": {"Memory": 1 << 70}},
            400,
            "64-bit",
        ),
        ("POST", "/containers/create", {"Image": "busybox", "ExposedPorts": {"x/tcp": {}}}, 400, "port"),
        ("GET", "/containers/json?filters={", None, 400, "invalid filter"),
        ("GET", '/containers/json?filters={"nosuch":["x"]}', None, 400, "invalid filter 'nosuch'"),
        ("GET", "/containers/json?limit=x", None, 400, "invalid syntax"),
        ("POST", "/images/create", None, 400, "invalid reference format"),
        ("GET", "/images/search?term=x", None, 503, "search is not available"),
    ],
)
def test_errors(
    engine: EngineProcess, method: str, path: str, body: object, status: int, sentence: str
) -> None:
    got, answer = ask(engine, method, path.replace("{", "%7B").replace('"', "%22"), body)
    assert got == status, answer
    assert sentence in answer["message"]


def test_filters_in_both_forms(engine: EngineProcess, client: docker.DockerClient) -> None:
    client.containers.create("busybox", "true", labels={"a": "b"})
    for filters in ('{"label":["a=b"]}', '{"label":{"a=b":true}}'):
        status, found = ask(engine, "GET", f"/containers/json?all=1&filters={filters}".replace("{", "%7B"))
        assert status == 200
        assert len(found) == 1


def test_lookup_by_prefix(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true", name="box")
    for reference in (container.id, container.id[:12], "box"):
        assert ask(engine, "GET", f"/containers/{reference}/json")[1]["Id"] == container.id


def test_attached_client_outlives_the_engine(own_engine: EngineProcess) -> None:
    """The stream is between the client and the container's shim: the engine's death does not touch it."""
    client = own_engine.start().client()
    client.images.pull("busybox:latest")
    container = client.containers.create("busybox", "cat", stdin_open=True)
    stream = client.api.attach_socket(container.id, {"stdin": 1, "stdout": 1, "stream": 1})._sock
    container.start()
    stream.sendall(b"before\n")
    assert _frame(stream) == b"before\n"
    own_engine.kill()
    stream.sendall(b"after\n")
    assert _frame(stream) == b"after\n"
    stream.shutdown(socket.SHUT_WR)
    assert stream.recv(1) == b""
    own_engine.start()
    assert own_engine.client().containers.get(container.id).wait()["StatusCode"] == 0


def _frame(stream: socket.socket) -> bytes:
    header = stream.recv(8, socket.MSG_WAITALL)
    return stream.recv(int.from_bytes(header[4:], "big"), socket.MSG_WAITALL)


def test_namespaces_are_the_kernels(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "sleep 1000", detach=True, pid_mode="host")
    _, answer = ask(engine, "GET", f"/dockmagic/containers/{container.id}/namespaces")
    for kind in answer["kinds"]:
        assert kind["inode"] == _inode(answer["pid"], kind["kind"])
        assert kind["shared"] is (kind["inode"] == _inode("self", kind["kind"]))
    shared = {kind["kind"] for kind in answer["kinds"] if kind["shared"]}
    assert shared == {"pid", "time", "user"}


def _inode(process: int | str, kind: str) -> int:
    return Path(f"/proc/{process}/ns/{kind}").stat().st_ino


def test_layers_of_a_container(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo 12345 > /new; sleep 1000"], detach=True)
    for _ in range(100):
        _, answer = ask(engine, "GET", f"/dockmagic/containers/{container.id}/layers")
        if answer["writable"]["size"]:
            break
    assert answer["writable"] == {"size": 6, "files": 1, "changes": [{"Kind": 1, "Path": "/new"}]}
    assert sum(layer["size"] for layer in answer["layers"]) > 0


def test_port_map_is_read_from_the_kernel(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = client.containers.run(
        "busybox", "sleep 1000", detach=True, name="web", ports={"80/tcp": None}
    )
    container.reload()
    port = int(container.ports["80/tcp"][0]["HostPort"])
    _, answer = ask(engine, "GET", "/dockmagic/ports")
    assert [
        (row["container_name"], row["host_port"], row["container_port"], row["protocol"]) for row in answer
    ] == [("web", port, 80, "tcp")]
    container.remove(force=True)
    assert ask(engine, "GET", "/dockmagic/ports")[1] == []


def test_layers_taken_over_by_a_build_say_how_they_came(
    engine: EngineProcess, client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo x > /x\n")
    client.images.build(path=str(tmp_path), tag="taken:1")
    _, layers = ask(engine, "GET", "/dockmagic/images/taken:1/layers")
    origins = [layer["origin"] for layer in layers if not layer["empty"]]
    assert origins == ["pulled", "built"]
    assert "busybox:latest" in layers[0]["shared_with"]
    client.images.remove("taken:1")


def test_output_waits_until_the_client_has_read_the_head(
    engine: EngineProcess, client: docker.DockerClient
) -> None:
    """A client that reads slowly finds the head alone in its socket, however fast the program is."""
    container = client.containers.run("busybox", "sleep 1000", detach=True)
    session = client.api.exec_create(container.id, ["echo", "fast"])["Id"]
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(engine.socket))
        body = b"{}"
        stream.sendall(
            f"POST /exec/{session}/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n".encode()
            + body
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            # All that is there by now is looked at, and only the first byte of it taken.
            assert b"fast" not in stream.recv(4096, socket.MSG_PEEK)
            head += stream.recv(1)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert _frame(stream) == b"fast\n"
        assert stream.recv(1) == b""
