"""curl on the socket, as a Docker course shows it: what is typed, and what comes back byte by byte."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import docker
import pytest

from tests.conftest import EngineProcess

JSON = ("-H", "Content-Type: application/json")


@dataclass
class Answer:
    """What curl -i printed."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def curl(engine: EngineProcess, path: str, *options: str) -> Answer:
    if shutil.which("curl") is None:
        pytest.fail("curl is missing: apt-get install curl")
    command = ["curl", "-sS", "-i", "--max-time", "30", "--unix-socket", str(engine.socket), *options]
    done = subprocess.run([*command, f"http://localhost{path}"], capture_output=True, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return Answer(int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body)


def create(engine: EngineProcess, body: object, name: str = "") -> Answer:
    query = f"?name={name}" if name else ""
    return curl(engine, f"/containers/create{query}", *JSON, "-d", json.dumps(body))


def test_a_course_s_container(engine: EngineProcess) -> None:
    assert curl(engine, "/containers/json").body == b"[]\n"

    made = create(engine, {"Image": "busybox", "Cmd": ["echo", "hello world"]})
    assert (made.status, sorted(made.json), made.json["Warnings"]) == (201, ["Id", "Warnings"], [])
    identity = made.json["Id"]
    assert re.fullmatch("[0-9a-f]{64}", identity)

    started = curl(engine, f"/v1.47/containers/{identity}/start", "-X", "POST")
    assert (started.status, started.body) == (204, b"")
    waited = curl(engine, f"/v1.47/containers/{identity[:12]}/wait", "-X", "POST")
    assert (waited.status, waited.json) == (200, {"StatusCode": 0})

    logs = curl(engine, f"/v1.47/containers/{identity}/logs?stdout=1")
    assert logs.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    assert logs.body == b"\x01\x00\x00\x00\x00\x00\x00\x0chello world\n"
    older = curl(engine, f"/v1.41/containers/{identity}/logs?stdout=1")
    assert older.headers["Content-Type"] == "application/vnd.docker.raw-stream"

    (listed,) = curl(engine, "/containers/json?all=1").json
    assert (listed["Id"], listed["State"], listed["Command"]) == (identity, "exited", "echo 'hello world'")
    again = curl(engine, f"/containers/{identity}/stop", "-X", "POST")
    assert (again.status, again.body) == (304, b"")
    gone = curl(engine, f"/containers/{identity}", "-X", "DELETE")
    assert (gone.status, gone.body) == (204, b"")
    assert curl(engine, "/containers/json?all=1").json == []


def test_a_running_container(engine: EngineProcess) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": {"AutoRemove": True}}
    assert create(engine, body, name="curled").status == 201
    assert curl(engine, "/containers/curled/start", "-X", "POST").status == 204
    assert curl(engine, "/containers/curled/start", "-X", "POST").status == 304
    (listed,) = curl(engine, "/containers/json").json
    assert (listed["Names"], listed["State"]) == (["/curled"], "running")
    inspected = curl(engine, "/containers/curled/json").json
    assert (inspected["Name"], inspected["State"]["Running"]) == ("/curled", True)

    made = curl(engine, "/containers/curled/exec", *JSON, "-d", '{"AttachStdout":true,"Cmd":["echo","in"]}')
    assert made.status == 201
    run = curl(engine, f"/exec/{made.json['Id']}/start", *JSON, "-d", "{}")
    assert (run.status, run.body) == (200, b"\x01\x00\x00\x00\x00\x00\x00\x03in\n")
    assert curl(engine, f"/exec/{made.json['Id']}/json").json["ExitCode"] == 0

    assert curl(engine, "/containers/curled/kill?signal=KILL", "-X", "POST").status == 204
    curl(engine, "/containers/curled/wait?condition=removed", "-X", "POST")
    assert curl(engine, "/containers/curled/json").status == 404


@pytest.mark.parametrize("path", ["/_ping", "/version", "/containers/json", "/nowhere", "/v1.24/info"])
def test_every_answer_says_what_speaks(engine: EngineProcess, path: str) -> None:
    headers = curl(engine, path).headers
    assert headers["Api-Version"] == "1.47"
    assert headers["Docker-Experimental"] == "true"
    assert headers["Ostype"] == "linux"
    assert re.fullmatch(r"dockmagic/\S+ \(linux\)", headers["Server"])


def test_ping(engine: EngineProcess) -> None:
    got = curl(engine, "/_ping")
    assert (got.status, got.body) == (200, b"OK")
    assert got.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert got.headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
    head = curl(engine, "/_ping", "--head")
    assert (head.status, head.body, head.headers["Api-Version"]) == (200, b"", "1.47")


@pytest.mark.parametrize("options", [(), ("-X", "PUT"), ("-X", "PATCH")])
@pytest.mark.parametrize("path", ["/nowhere", "/v1.47/nowhere", "/"])
def test_no_such_page(engine: EngineProcess, path: str, options: tuple[str, ...]) -> None:
    got = curl(engine, path, *options)
    assert (got.status, got.json) == (404, {"message": "page not found"})
    assert got.headers["Content-Type"] == "application/json"


def test_a_page_with_another_method(engine: EngineProcess) -> None:
    got = curl(engine, "/containers/json", "-X", "PUT")
    assert (got.status, got.json) == (404, {"message": "page not found"})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("-d", '{"Image":"busybox"}'),
            "unsupported Content-Type header (application/x-www-form-urlencoded): must be 'application/json'",
        ),
        (("-H", "Content-Type:", "-d", "{}"), "malformed Content-Type header (): mime: no media type"),
    ],
)
def test_a_body_that_does_not_say_that_it_is_json(
    engine: EngineProcess, options: tuple[str, ...], sentence: str
) -> None:
    got = curl(engine, "/containers/create", *options)
    assert (got.status, got.json) == (400, {"message": sentence})


def test_errors_have_one_shape(engine: EngineProcess, client: docker.DockerClient) -> None:
    client.containers.create("busybox", name="taken")
    identity = client.containers.get("taken").id
    answers = [
        (curl(engine, "/containers/nosuch/json"), 404, "No such container: nosuch"),
        (curl(engine, "/containers/nosuch/start", "-X", "POST"), 404, "No such container: nosuch"),
        (create(engine, {"Image": "nosuch:1"}), 404, "No such image: nosuch:1"),
        (
            create(engine, {"Image": "busybox"}, name="taken"),
            409,
            f'Conflict. The container name "/taken" is already in use by container "{identity}". '
            "You have to remove (or rename) that container to be able to reuse that name.",
        ),
    ]
    for got, status, sentence in answers:
        assert (got.status, got.json) == (status, {"message": sentence})
        assert got.headers["Content-Type"] == "application/json"


def test_a_pull_tells_its_progress_line_by_line(engine: EngineProcess) -> None:
    got = curl(engine, "/images/create?fromImage=busybox&tag=1.35", "-X", "POST")
    lines = [json.loads(line) for line in got.body.splitlines()]
    assert (got.status, got.headers["Content-Type"]) == (200, "application/json")
    assert lines[0] == {"status": "Pulling from library/busybox", "id": "1.35"}
    assert lines[-1]["status"].startswith("Status: ")
    assert curl(engine, "/images/busybox:1.35", "-X", "DELETE").status == 200


def test_a_stream_of_events_begins_at_once(engine: EngineProcess, client: docker.DockerClient) -> None:
    command = ["curl", "-sS", "-N", "--unix-socket", str(engine.socket), "http://localhost/events"]
    watching = subprocess.Popen(
        [*command, "-D", "/dev/stderr"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert watching.stdout and watching.stderr
    with watching:
        # The head comes before anything has happened.
        head = b"".join(iter(watching.stderr.readline, b"\r\n"))
        volume = client.volumes.create("heard")
        event = json.loads(watching.stdout.readline())
        watching.terminate()
    assert head.startswith(b"HTTP/1.1 200 OK") and b"Api-Version: 1.47" in head
    assert (event["Type"], event["Action"], event["Actor"]["ID"]) == ("volume", "create", volume.name)
