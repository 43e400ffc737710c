"""What a container wrote is given back as it was written, whatever the log driver did with it."""

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import docker
import pytest
from docker.models.containers import Container

from tests.conftest import EngineProcess
from tests.runtime.api.test_http import Connection, ask


def _run(client: docker.DockerClient, script: str, **options: Any) -> Container:
    """A container that has run the script to its end."""
    container = client.containers.create("busybox", ["sh", "-c", script], network_mode="none", **options)
    container.start()
    container.wait()
    return container


def _logs(engine: EngineProcess, container: Container, **query: object) -> tuple[int, Any]:
    given = urlencode({"stdout": 1, "stderr": 1, **query})
    return ask(engine, "GET", f"/containers/{container.id}/logs?{given}")


def _text(engine: EngineProcess, container: Container, **query: object) -> bytes:
    """The log without its frames."""
    status, answer = _logs(engine, container, **query)
    assert status == 200, answer
    text = b""
    while answer:
        length = int.from_bytes(answer[4:8], "big")
        text += answer[8 : 8 + length]
        answer = answer[8 + length :]
    return text


# Times


@pytest.fixture
def twice(client: docker.DockerClient) -> tuple[Container, int]:
    """A container that has run twice, and a moment between."""
    container = _run(client, "echo line")
    between = time.time_ns()
    container.start()
    container.wait()
    return container, between


def _shapes(moment: int) -> dict[str, str]:
    seconds, rest = divmod(moment, 10**9)
    utc = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    east = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds + 5400))
    return {
        "unix": f"{seconds}.{rest:09}",
        "RFC 3339": f"{utc}.{rest:09}Z",
        "no zone": f"{utc}.{rest:09}",
        "another zone": f"{east}.{rest:09}+01:30",
    }


@pytest.mark.parametrize("shape", ["unix", "RFC 3339", "no zone", "another zone"])
def test_since_and_until_part_the_lines(
    engine: EngineProcess, twice: tuple[Container, int], shape: str
) -> None:
    container, between = twice
    first = _text(engine, container, timestamps=1).splitlines(keepends=True)[0]
    moment = _shapes(between)[shape]
    assert _text(engine, container, timestamps=1, until=moment) == first
    assert _text(engine, container, since=moment) == b"line\n"
    assert _text(engine, container, since=moment, until=moment) == b""


def test_whole_seconds_and_durations(engine: EngineProcess, twice: tuple[Container, int]) -> None:
    container, between = twice
    seconds = between // 10**9
    for early, late in (
        (seconds - 60, seconds + 60),
        (_shapes((seconds - 60) * 10**9)["RFC 3339"][:19], _shapes((seconds + 60) * 10**9)["RFC 3339"][:19]),
        ("1h", "-1h"),
        ("1h30m", "-1.5h"),
        ("90000ms", "-1m0.5s"),
    ):
        assert _text(engine, container, since=early) == b"line\nline\n", early
        assert _text(engine, container, since=late) == b"", late
        assert _text(engine, container, until=early) == b"", early
        assert _text(engine, container, until=late) == b"line\nline\n", late


@pytest.mark.parametrize("text", ["abc", "5x", "2020-13-01T00:00:00Z", "1_0", "1e9", "9" * 400])
@pytest.mark.parametrize("name", ["since", "until"])
def test_a_time_that_is_none(
    engine: EngineProcess, client: docker.DockerClient, name: str, text: str
) -> None:
    container = client.containers.create("busybox", "true")
    status, answer = _logs(engine, container, **{name: text})
    assert status == 400
    assert answer["message"].startswith(f'invalid value for "{name}": failed to parse value as time')


def test_far_times_are_no_error(engine: EngineProcess, twice: tuple[Container, int]) -> None:
    for far in (99999999999999, "9999-12-31T23:59:59Z"):
        assert _text(engine, twice[0], since=far) == b""
        assert _text(engine, twice[0], until=far) == b"line\nline\n"
    assert _text(engine, twice[0], since=-5) == b"line\nline\n"


# What is read


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(0, ""), (1, "9\n"), (3, "7\n8\n9\n"), (99, None), ("all", None), (-1, None), ("x", None)],
)
def test_tail(engine: EngineProcess, client: docker.DockerClient, tail: object, expected: str | None) -> None:
    container = _run(client, "seq 0 9")
    whole = "".join(f"{number}\n" for number in range(10))
    assert _text(engine, container, tail=tail) == (whole if expected is None else expected).encode()


def test_tail_of_many_lines_counts_over_blocks(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = _run(client, "seq 1 20000")
    assert _text(engine, container, tail=15000) == b"".join(b"%d\n" % n for n in range(5001, 20001))


def test_every_byte_comes_back(engine: EngineProcess, client: docker.DockerClient) -> None:
    """Bytes that are no UTF-8, NUL, quotes, backslashes before an n, lines of any length, no newline."""
    script = (
        r"printf 'a\377\376\000\001b\n\\n \"q\" \\\\n\r\n\n'; head -c 70000 /dev/urandom | tr '\n' x >/tmp/r;"
        r"cat /tmp/r; echo; cat /tmp/r; printf end"
    )
    container = _run(client, f"({script}) > /out; cat /out")
    stream, _ = container.get_archive("/out")
    tar = b"".join(stream)
    length = int(tar[124:135], 8)
    assert _text(engine, container) == tar[512 : 512 + length]


def test_streams_are_apart(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = _run(client, "echo out; sleep 0.05; echo err >&2; sleep 0.05; echo out")
    assert _text(engine, container, stdout=1, stderr=0) == b"out\nout\n"
    assert _text(engine, container, stdout=0, stderr=1) == b"err\n"
    assert _logs(engine, container)[1] == (b"\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\4err\n\1\0\0\0\0\0\0\4out\n")
    status, answer = _logs(engine, container, stdout=0, stderr=0)
    assert (status, answer["message"]) == (400, "Bad parameters: you must choose at least one stream")


def test_a_terminals_log_has_no_frames(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = _run(client, "echo out; echo err >&2; printf end", tty=True)
    assert _logs(engine, container) == (200, b"out\r\nerr\r\nend")
    assert _logs(engine, container, tail=1) == (200, b"end")


def test_a_container_that_was_never_started_has_an_empty_log(
    engine: EngineProcess, client: docker.DockerClient
) -> None:
    container = client.containers.create("busybox", "true")
    for follow in (0, 1):
        assert _logs(engine, container, follow=follow) == (200, b"")


def test_a_line_that_a_crash_has_broken_off_is_passed_over(
    engine: EngineProcess, client: docker.DockerClient
) -> None:
    container = _run(client, "echo one")
    container.reload()
    with Path(container.attrs["LogPath"]).open("ab") as log:
        log.write(b'{"log":"broken')
    container.start()
    container.wait()
    assert _text(engine, container) == b"one\none\n"


# Drivers and options


def test_details_tell_what_the_options_ask_for(engine: EngineProcess, client: docker.DockerClient) -> None:
    options = {
        "labels": "a,none",
        "labels-regex": "^x",
        "env": "NAME",
        "env-regex": "^P.*H$",
        "tag": "{{.Name}}/t",
    }
    container = _run(
        client,
        "echo line",
        name="told",
        labels={"a": "1 2", "b": "3", "xy": "é"},
        environment={"NAME": "v=&"},
        log_config={"Type": "json-file", "Config": options},
    )
    path = "%2Fusr%2Flocal%2Fsbin%3A%2Fusr%2Flocal%2Fbin%3A%2Fusr%2Fsbin%3A%2Fusr%2Fbin%3A%2Fsbin%3A%2Fbin"
    told = f"NAME=v%3D%26,PATH={path},a=1+2,tag=told%2Ft,xy=%C3%A9 line\n"
    assert _text(engine, container, details=1) == told.encode()
    assert _text(engine, container) == b"line\n"
    container.reload()
    entry = json.loads(Path(container.attrs["LogPath"]).read_text())
    assert entry["attrs"]["xy"] == "é"
    stamped = _text(engine, container, details=1, timestamps=1)
    assert stamped == f"{entry['time']} {told}".encode()


def test_details_of_nothing_are_a_blank(engine: EngineProcess, client: docker.DockerClient) -> None:
    assert _text(engine, _run(client, "echo line"), details=1) == b" line\n"


def test_driver_none(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = _run(client, "echo line", log_config={"Type": "none", "Config": {"any": "thing"}})
    status, answer = _logs(engine, container)
    assert (status, answer["message"]) == (501, "configured logging driver does not support reading")
    container.reload()
    assert container.attrs["LogPath"] == ""
    assert container.attrs["HostConfig"]["LogConfig"] == {"Type": "none", "Config": {"any": "thing"}}


def test_driver_local(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = _run(client, "seq 1 3000", log_config={"Type": "local", "Config": {"max-size": "10k"}})
    container.reload()
    assert container.attrs["LogPath"] == ""
    folder = engine.data_root / "containers" / container.id / "local-logs"
    kept = ["container.log", *(f"container.log.{number}.gz" for number in range(1, 5))]
    assert sorted(path.name for path in folder.iterdir()) == kept
    whole = b"".join(b"%d\n" % number for number in range(1, 3001))
    text = _text(engine, container)
    assert text.count(b"\n") > 500
    assert whole.endswith(text)
    assert _text(engine, container, tail=400) == b"".join(b"%d\n" % number for number in range(2601, 3001))


@pytest.mark.parametrize(
    ("driver", "options", "sentence"),
    [
        ("nosuch", {}, 'error looking up logging plugin nosuch: plugin "nosuch" not found'),
        ("json-file", {"x": "1"}, "unknown log opt 'x' for json-file log driver"),
        ("local", {"env": "A"}, "unknown log opt 'env' for log driver local"),
        ("json-file", {"mode": "foo"}, "logger: logging mode not supported: foo"),
        (
            "json-file",
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "local",
            {"mode": "non-blocking", "max-buffer-size": "x"},
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
    ],
)
def test_names_are_refused_at_once(
    client: docker.DockerClient, driver: str, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(docker.errors.APIError) as refusal:
        client.containers.create("busybox", "true", log_config={"Type": driver, "Config": options})
    assert (refusal.value.status_code, refusal.value.explanation) == (400, sentence)


@pytest.mark.parametrize(
    ("driver", "options", "sentence"),
    [
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "-3"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "abc"}, 'strconv.Atoi: parsing "abc": invalid syntax'),
        ("json-file", {"max-file": ""}, 'strconv.Atoi: parsing "": invalid syntax'),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-size": "-1"}, "invalid size: '-1'"),
        ("json-file", {"max-size": ""}, "invalid size: ''"),
        ("json-file", {"max-size": "10x"}, "invalid size: '10x'"),
        ("json-file", {"compress": "maybe"}, 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        (
            "json-file",
            {"compress": "true", "max-file": "2"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("json-file", {"env-regex": "["}, "error parsing regexp: "),
        (
            "json-file",
            {"tag": "{{.Foo}}"},
            'template: log-tag:1:2: executing "log-tag" at <.Foo>: can\'t evaluate field Foo in type '
            "*logger.Info",
        ),
        ("json-file", {"tag": "{{"}, "template: log-tag:1: unclosed action"),
        ("local", {"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
        ("local", {"max-size": "abc"}, "invalid value for max-size: abc: invalid size: 'abc'"),
        (
            "local",
            {"max-file": "abc"},
            'invalid value for max-file: abc: strconv.Atoi: parsing "abc": invalid syntax',
        ),
        (
            "local",
            {"compress": "x"},
            'error reading compress log option: strconv.ParseBool: parsing "x": invalid syntax',
        ),
    ],
)
def test_values_are_refused_at_the_start(
    client: docker.DockerClient, driver: str, options: dict[str, str], sentence: str
) -> None:
    container = client.containers.create(
        "busybox", "true", log_config={"Type": driver, "Config": options}, network_mode="none"
    )
    with pytest.raises(docker.errors.APIError) as refusal:
        container.start()
    assert refusal.value.status_code == 400
    assert refusal.value.explanation.startswith(f"failed to initialize logging driver: {sentence}")
    container.reload()
    assert container.status == "created"


# Following


class _Follower:
    """Reads a log as it grows, in a thread of its own."""

    def __init__(self, engine: EngineProcess, container: Container, **query: object) -> None:
        given = urlencode({"stdout": 1, "stderr": 1, "follow": 1, **query})
        self._connection = Connection(engine.socket)
        self._connection.request("GET", f"/containers/{container.id}/logs?{given}")
        self.answer = self._connection.getresponse()

    def line(self) -> bytes:
        """The next frame's text."""
        head = self.answer.read(8)
        return self.answer.read(int.from_bytes(head[4:], "big"))

    def rest(self) -> list[bytes]:
        return list(iter(self.line, b""))

    def close(self) -> None:
        self._connection.close()


def test_following_ends_with_the_run_and_not_with_the_container(
    engine: EngineProcess, client: docker.DockerClient
) -> None:
    container = client.containers.create(
        "busybox", ["sh", "-c", "trap 'echo bye; exit' TERM; echo up; sleep 1000 & wait"]
    )
    container.start()
    follower = _Follower(engine, container)
    assert follower.line() == b"up\n"
    container.restart()
    assert follower.rest() == [b"bye\n"]
    follower.close()
    follower = _Follower(engine, container, tail=1)
    assert follower.line() == b"up\n"
    follower.close()


def test_following_gives_what_was_there_and_what_comes(
    engine: EngineProcess, client: docker.DockerClient
) -> None:
    script = "for i in 1 2 3; do read x; echo $x; done; printf 'no end'"
    container = client.containers.create("busybox", ["sh", "-c", script], stdin_open=True)
    stream = client.api.attach_socket(container.id, {"stdin": 1, "stream": 1})._sock
    container.start()
    stream.sendall(b"one\ntwo\n")
    early = _Follower(engine, container)
    assert [early.line(), early.line()] == [b"one\n", b"two\n"]
    late, none = _Follower(engine, container, tail=1), _Follower(engine, container, tail=0)
    assert late.line() == b"two\n"
    stream.sendall(b"three\n")
    for follower in (early, late, none):
        assert follower.line() == b"three\n"
        assert follower.rest() == [b"no end"]
        follower.close()
    stream.close()


def test_until_ends_the_following(engine: EngineProcess, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo up; sleep 1000"], detach=True)
    until = time.time() + 0.5
    follower = _Follower(engine, container, until=until)
    assert follower.rest() == [b"up\n"]
    assert until <= time.time() < until + 5
    follower.close()
    past = _Follower(engine, container, until=until)
    assert past.rest() == [b"up\n"]
    past.close()


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("json-file", {"max-size": "20k"}),
        ("json-file", {"max-size": "20k", "max-file": "3"}),
        ("json-file", {"max-size": "20k", "max-file": "3", "compress": "true"}),
        ("local", {"max-size": "20k"}),
    ],
)
def test_nothing_is_lost_where_the_log_turns(
    engine: EngineProcess, client: docker.DockerClient, driver: str, options: dict[str, str]
) -> None:
    """Two hundred files are begun and removed while one client reads on."""
    script = "read go; i=0; while [ $i -lt 30 ]; do i=$((i+1)); seq ${i}000 ${i}999; done"
    container = client.containers.create(
        "busybox", ["sh", "-c", script], stdin_open=True, log_config={"Type": driver, "Config": options}
    )
    stream = client.api.attach_socket(container.id, {"stdin": 1, "stream": 1})._sock
    container.start()
    follower = _Follower(engine, container)
    stream.sendall(b"go\n")
    assert follower.rest() == [b"%d\n" % number for number in range(1000, 31000)]
    follower.close()
    stream.close()


def test_a_follower_that_goes_away_leaves_nothing(engine: EngineProcess, client: docker.DockerClient) -> None:
    assert engine.process

    def watches() -> int:
        found = 0
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found += "inotify" in str(descriptor.readlink())
        return found

    pid = engine.process.pid
    container = client.containers.run("busybox", ["sh", "-c", "echo up; sleep 1000"], detach=True)
    before = watches()
    followers = [_Follower(engine, container) for _ in range(3)]
    for follower in followers:
        follower.line()
    assert watches() == before + 3
    for follower in followers:
        follower.answer.close()
        follower.close()
    for _ in range(500):
        if watches() == before:
            return
        client.ping()
    pytest.fail("the engine still watches for clients that have gone")


def test_others_are_served_while_a_long_log_is_read(
    engine: EngineProcess, client: docker.DockerClient
) -> None:
    container = _run(client, "seq 1 300000 | sed 's/^/a line of some length, with its number at its end: /'")
    read = threading.Thread(target=container.logs)
    read.start()
    slowest, asked = 0.0, 0
    while read.is_alive():
        began = time.perf_counter()
        assert ask(engine, "GET", "/_ping") == (200, b"OK")
        slowest, asked = max(slowest, time.perf_counter() - began), asked + 1
    assert asked > 3
    assert slowest < 0.25
