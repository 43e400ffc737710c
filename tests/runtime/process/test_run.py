"""A container from its request to its exit code."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.process.client import Attachment, Shim, read_exit
from dockmagic_runtime.process.messages import StartFailed

from .conftest import Bench, output, pair, read_all


async def test_exit_code_and_both_streams(bench: Bench) -> None:
    request = bench.request("sh", "-c", "echo out; echo err >&2; exit 7")
    shim = await bench.spawner.run(request)
    ended = await shim.exited
    assert (ended.code, ended.oom_killed) == (7, False)
    assert output(request, "stdout") == "out\n"
    assert output(request, "stderr") == "err\n"
    assert read_exit(request.bundle) == ended


async def test_signalled_program_ends_with_128_plus_n(bench: Bench) -> None:
    shim = await bench.spawner.run(bench.request("sleep", "100"))
    await shim.signal(9)
    assert (await shim.exited).code == 137


@pytest.mark.parametrize(
    ("program", "message", "code"),
    [
        ("foo", 'exec: "foo": executable file not found in $PATH', 127),
        ("/foo", 'exec: "/foo": stat /foo: no such file or directory', 127),
        ("/etc", 'exec: "/etc": is a directory', 126),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied', 126),
        ("/bin/text", "exec /bin/text: exec format error", 126),
        ("/bin/script", "exec /bin/script: no such file or directory", 127),
    ],
)
async def test_start_failures_in_docker_s_words(
    bench: Bench, hostile: Path, program: str, message: str, code: int
) -> None:
    for name, text in (("text", "nonsense"), ("script", "#!/no/such/shell\n")):
        (hostile / "bin" / name).write_text(text)
        (hostile / "bin" / name).chmod(0o755)
    with pytest.raises(StartFailed) as failed:
        await bench.spawner.run(bench.request(program, image=hostile))
    assert (str(failed.value), failed.value.exit_code) == (message, code)


async def test_stdin_once_ends_with_its_client(bench: Bench) -> None:
    ours, theirs = pair()
    request = bench.request("cat", open_stdin=True, stdin_once=True, streams=[Attachment(theirs, stdin=True)])
    shim = await bench.spawner.run(request)
    await asyncio.get_running_loop().sock_sendall(ours, b"x" * 300_000)
    ours.shutdown(socket.SHUT_WR)
    frames = await read_all(ours)
    assert (await shim.exited).code == 0
    assert _unframe(frames) == {1: b"x" * 300_000}
    assert output(request) == "x" * 300_000


async def test_stdin_stays_open_without_stdin_once(bench: Bench) -> None:
    shim = await bench.spawner.run(bench.request("cat", open_stdin=True))
    for word in (b"one\n", b"two\n"):
        ours, theirs = pair()
        await shim.attach(Attachment(theirs, stdin=True))
        await asyncio.get_running_loop().sock_sendall(ours, word)
        assert (await asyncio.get_running_loop().sock_recv(ours, 100))[8:] == word
        ours.close()
    assert not shim.exited.done()
    await shim.signal(9)
    await shim.exited


async def test_without_stdin_it_is_the_null_device(bench: Bench) -> None:
    ended, text = await bench.run("sh", "-c", "cat; readlink /proc/self/fd/0")
    assert ended.code == 0
    assert "null" in text


async def test_terminal(bench: Bench) -> None:
    ours, theirs = pair()
    request = bench.request("sh", "-c", "tty; stty size; read x; echo got $x", terminal=True, open_stdin=True,
                            change=lambda c: c["process"].update(consoleSize={"height": 33, "width": 99}),
                            streams=[Attachment(theirs, stdin=True)])  # fmt: skip
    shim = await bench.spawner.run(request)
    data = b""
    while b"99\r\n" not in data:
        data += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, 100), 5)
    await asyncio.get_running_loop().sock_sendall(ours, b"word\n")
    data += await read_all(ours)
    assert (await shim.exited).code == 0
    assert data.startswith(b"/dev/pts/0\r\n33 99\r\n")
    assert b"got word" in data
    assert output(request).encode() == data


async def test_resize_reaches_the_program(bench: Bench) -> None:
    shim = await bench.spawner.run(
        request := bench.request(
            "sh", "-c", "trap 'stty size; exit' WINCH; echo on; while :; do sleep 0.1; done", terminal=True
        )
    )
    while "on" not in output(request):
        await asyncio.sleep(0.01)
    await shim.resize(12, 34)
    assert (await asyncio.wait_for(shim.exited, 5)).code == 0
    assert "12 34" in output(request)


async def test_init_reaps_and_passes_signals_on(bench: Bench) -> None:
    ended, text = await bench.run("sh", "-c", "echo $$; (sleep 0 &) ; exit 3", init=True)
    assert (ended.code, text) == (3, "2\n")
    shim = await bench.spawner.run(
        bench.request("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done", init=True)
    )
    await asyncio.sleep(0.1)
    await shim.signal(15)
    assert (await asyncio.wait_for(shim.exited, 5)).code == 5


async def test_a_stuck_client_stops_neither_container_nor_log(bench: Bench) -> None:
    stuck, theirs = pair()
    request = bench.request("sh", "-c", "yes | head -c 20000000", streams=[Attachment(theirs)])
    shim = await bench.spawner.run(request)
    assert (await asyncio.wait_for(shim.exited, 30)).code == 0
    assert request.log.path.read_bytes().count(b'"y\\n"') == 10_000_000
    stuck.close()


async def test_a_slow_client_misses_nothing(bench: Bench) -> None:
    ours, theirs = pair()
    shim = await bench.spawner.run(
        bench.request("sh", "-c", "yes | head -c 5000000", streams=[Attachment(theirs)])
    )
    await asyncio.sleep(0.5)
    assert len(_unframe(await read_all(ours))[1]) == 5_000_000
    assert (await shim.exited).code == 0


async def test_log_rotation(bench: Bench) -> None:
    _, _ = await bench.run(
        "sh", "-c", "for i in $(seq 1000); do echo line $i; done", max_size=20_000, max_file=3
    )
    (bundle,) = bench.directory.glob("c*")
    files = sorted(bundle.glob("log*"))
    assert [f.name for f in files] == ["log", "log.1", "log.2"]
    # As with Docker, the entry that reaches the limit is the last one of its file.
    assert all(f.stat().st_size < 20_100 for f in files)
    last = (bundle / "log").read_text().splitlines()[-1]
    assert json.loads(last)["log"] == "line 1000\n"


def _memory_limit(config: dict[str, Any]) -> None:
    config["linux"]["resources"]["memory"] = {"limit": 20 << 20, "swap": 20 << 20}


async def test_out_of_memory_is_noticed(bench: Bench) -> None:
    told = asyncio.Event()
    shim = await bench.spawner.run(
        bench.request("sh", "-c", "sleep 0.2; x=x; while :; do x=$x$x; done", change=_memory_limit)
    )
    shim.on_oom = told.set
    ended = await asyncio.wait_for(shim.exited, 20)
    assert ended.oom_killed
    assert ended.code == 137
    await asyncio.wait_for(told.wait(), 1)


async def test_rlimit_that_may_not_be_raised_is_a_warning(bench: Bench) -> None:
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 1 << 20, "hard": 1 << 20},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    request = bench.request(
        "sh", "-c", "ulimit -Hn; ulimit -c", change=lambda c: c["process"].update(rlimits=limits)
    )
    shim = await bench.spawner.run(request)
    assert (await shim.exited).code == 0
    hard, core = output(request).split()
    assert core == "0"
    # Either we may (a full root) and it is so, or we may not and were told.
    assert (int(hard) == 1 << 20) != bool(shim.warnings)


async def test_exec(bench: Bench) -> None:
    shim = await bench.spawner.run(bench.request("sleep", "100"))
    process = {
        "args": ["sh", "-c", "cat; echo err >&2; pwd; exit 4"],
        "cwd": "/etc",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    }
    ours, theirs = pair()
    pid = await shim.exec("one", process, Attachment(theirs, stdin=True), open_stdin=True)
    assert Path(f"/proc/{pid}/ns/pid").readlink() == Path(f"/proc/{shim.pid}/ns/pid").readlink()
    await asyncio.get_running_loop().sock_sendall(ours, b"in\n")
    ours.shutdown(socket.SHUT_WR)
    streams = _unframe(await read_all(ours))
    assert streams == {1: b"in\n/etc\n", 2: b"err\n"}
    assert await shim.exec_exited("one") == 4
    for program, code in (("nope", 127), ("/etc", 126)):
        with pytest.raises(StartFailed) as failed:
            await shim.exec("bad", {**process, "args": [program]})
        assert failed.value.exit_code == code
    terminal = {**process, "terminal": True, "args": ["sh", "-c", "tty; read x; echo $x"]}
    ours, theirs = pair()
    await shim.exec("tty", terminal, Attachment(theirs, stdin=True), open_stdin=True)
    await asyncio.get_running_loop().sock_sendall(ours, b"typed\n")
    assert (await read_all(ours)).endswith(b"typed\r\n")
    assert await shim.exec_exited("tty") == 0
    await shim.exec("detached", {**process, "args": ["sh", "-c", "yes | head -c 1000000"]})
    assert await asyncio.wait_for(shim.exec_exited("detached"), 5) == 0
    await shim.signal(9)
    assert (await shim.exited).code == 137


async def test_an_exec_still_running_ends_with_its_container(bench: Bench) -> None:
    shim = await bench.spawner.run(bench.request("sleep", "100"))
    await shim.exec("long", {"args": ["sleep", "100"], "env": ["PATH=/bin"]})
    await shim.signal(9)
    assert (await shim.exited).code == 137
    assert await asyncio.wait_for(shim.exec_exited("long"), 5) == 137


async def test_forty_containers_eight_at_a_time(bench: Bench) -> None:
    places = asyncio.Semaphore(8)

    async def one(number: int) -> tuple[int, str]:
        async with places:
            ended, text = await bench.run("echo", str(number))
            return ended.code, text

    assert await asyncio.gather(*map(one, range(40))) == [(0, f"{n}\n") for n in range(40)]


async def test_reconnecting_tells_the_same_container(bench: Bench) -> None:
    request = bench.request("sleep", "100")
    first = await bench.spawner.run(request)
    second = await Shim.connect(request.socket)
    assert second.pid == first.pid
    await second.signal(9)
    assert await first.exited == await second.exited


def _unframe(data: bytes) -> dict[int, bytes]:
    streams: dict[int, bytes] = {}
    while data:
        number, size = data[0], int.from_bytes(data[4:8], "big")
        streams[number] = streams.get(number, b"") + data[8 : 8 + size]
        data = data[8 + size :]
    return streams
