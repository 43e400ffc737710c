"""Networks made and joined, names looked up, bytes through a published port, many on one network."""

import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.engines import Engine
from bench.table import Row, interleaved
from bench.workloads import IDLE

_MEGABYTES = 512
_CROWD = 300
# Run in the container's network namespace: the median of many questions to its name server.
_LOOKUP = """
import socket, statistics, struct, time
question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\\x03web\\0" + struct.pack("!2H", 1, 1)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.connect(("127.0.0.11", 53))
taken = []
for _ in range(300):
    began = time.perf_counter()
    server.send(question)
    answer = server.recv(512)
    taken.append(time.perf_counter() - began)
assert answer[6:8] == b"\\0\\1", answer
print(statistics.median(taken))
"""
# Run where the client is: seconds from the connection to the last byte, and how many bytes came.
_FETCH = """
import socket, sys, time
began = time.perf_counter()
server = socket.create_connection((sys.argv[1], int(sys.argv[2])))
server.sendall(b"GET /zeros HTTP/1.0\\r\\n\\r\\n")
buffer, size = bytearray(1 << 20), 0
while count := server.recv_into(buffer):
    size += count
print(time.perf_counter() - began, size)
"""


def rows(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    return [
        _making(engines, times),
        _joining(engines, image, times),
        _names(engines, image),
        *_bytes(engines, image, max(3, times // 5)),
        _crowding(engines[0], image),
    ]


def _making(engines: tuple[Engine, Engine], times: int) -> Row:
    def once(engine: Engine) -> float:
        began = time.perf_counter()
        network = engine.api.create_network(f"bench-{secrets.token_hex(4)}")["Id"]
        engine.api.remove_network(network)
        return time.perf_counter() - began

    ours, dockers = interleaved(engines, times, once)
    return Row("create and remove a network", ours, dockers, "ms", 1 / 5, "<= 1/5")


def _joining(engines: tuple[Engine, Engine], image: str, times: int) -> Row:
    with _web(engines[0], image) as mine, _web(engines[1], image) as theirs:
        others = {
            engine.name: engine.api.create_network(f"bench-{secrets.token_hex(4)}")["Id"]
            for engine in engines
        }
        containers = {engines[0].name: mine, engines[1].name: theirs}

        def once(engine: Engine) -> float:
            began = time.perf_counter()
            engine.api.connect_container_to_network(containers[engine.name], others[engine.name])
            took = time.perf_counter() - began
            engine.api.disconnect_container_from_network(containers[engine.name], others[engine.name])
            return took

        try:
            ours, dockers = interleaved(engines, times, once)
        finally:
            for engine in engines:
                engine.api.remove_network(others[engine.name])
    return Row("connect a running container to a network", ours, dockers, "ms", 1 / 5, "<= 1/5")


def _names(engines: tuple[Engine, Engine], image: str) -> Row:
    found = []
    for engine in engines:
        with _web(engine, image) as container:
            pid = engine.api.inspect_container(container)["State"]["Pid"]
            command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", _LOOKUP]
            found.append(float(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    # The target is a time: the ratio is only told.
    return Row("look up a container's name", found[0], None, "ms", 1e-3, "<= 1 ms")


def _bytes(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    """From this host by 127.0.0.1, and from another host: a network namespace with a wire to this one."""
    script = f"dd if=/dev/zero of=/tmp/zeros bs=1M count={_MEGABYTES} 2>&1 && httpd -f -p 80 -h /tmp"
    with (
        _web(engines[0], image, script) as mine,
        _web(engines[1], image, script) as theirs,
        _other_host() as (outside, here),
    ):
        containers = {engines[0].name: mine, engines[1].name: theirs}
        ports = {engine.name: _port(engine, containers[engine.name]) for engine in engines}

        def fetch(where: list[str], address: str, engine: Engine) -> float:
            command = [*where, sys.executable, "-c", _FETCH, address, ports[engine.name]]
            seconds, size = subprocess.run(command, capture_output=True, check=True).stdout.split()
            if int(size) < _MEGABYTES << 20:
                raise AssertionError(f"{engine.name} sent {int(size)} bytes")
            return float(seconds)

        near = interleaved(engines, times, lambda engine: fetch([], "127.0.0.1", engine))
        far = interleaved(engines, times, lambda engine: fetch(outside, here, engine))
    what = f"{_MEGABYTES} MB through a published port"
    return [
        Row(f"{what}, 127.0.0.1", near[0], near[1], "ms", 0.6, "<= 0.6"),
        Row(f"{what}, another host", far[0], far[1], "ms", 1.0, "<= 1"),
    ]


def _crowding(engine: Engine, image: str) -> Row:
    """Ours alone: does the last of many containers on a network start as fast as one of the first?"""
    network = f"bench-{secrets.token_hex(4)}"
    engine.api.create_network(network)
    made, taken = [], []
    try:
        for _ in range(_CROWD):
            container = engine.api.create_container(image, IDLE, host_config={"NetworkMode": network})["Id"]
            made.append(container)
            began = time.perf_counter()
            engine.api.start(container)
            taken.append(time.perf_counter() - began)
    finally:
        for container in made:
            engine.api.remove_container(container, force=True)
        engine.api.remove_network(network)
    first, last = statistics.median(taken[:10]), statistics.median(taken[-10:])
    print(
        f"start on one network: first ten {first * 1e3:.1f} ms, of {_CROWD} {last * 1e3:.1f} ms",
        file=sys.stderr,
    )
    return Row(
        f"start container {_CROWD} of a network, against the 10th",
        last / first / 1e3,
        None,
        "ms",
        1.5e-3,
        "<= 1.5 x",
    )


@contextmanager
def _web(engine: Engine, image: str, script: str = "") -> Iterator[str]:
    """A running container called `web` in a network of its own, its port 80 published."""
    name = f"bench-{secrets.token_hex(4)}"
    network = engine.api.create_network(name)["Id"]
    command = ["sh", "-c", script] if script else IDLE
    host = engine.api.create_host_config(network_mode=name, port_bindings={80: None})
    container = engine.api.create_container(image, command, name="web", ports=[80], host_config=host)["Id"]
    try:
        engine.api.start(container)
        yield container
    finally:
        engine.api.remove_container(container, force=True)
        engine.api.remove_network(network)


def _port(engine: Engine, container: str) -> str:
    """The port of this host, once the server behind it answers."""
    port: str = engine.api.port(container, 80)[0]["HostPort"]
    patiently = ["--retry", "60", "--retry-all-errors", "--retry-delay", "1", "--range", "0-0"]
    url = f"http://127.0.0.1:{port}/zeros"
    subprocess.run(["curl", "-sf", "-o", "/dev/null", *patiently, url], check=True)
    return port


@contextmanager
def _other_host() -> Iterator[tuple[list[str], str]]:
    """How to run a command there, and this host's address on the wire."""
    name = f"bench{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for line in (
            f"link add {name} type veth peer name eth0 netns {name}",
            f"addr add 198.18.79.1/30 dev {name}",
            f"link set {name} up",
            f"-n {name} addr add 198.18.79.2/30 dev eth0",
            f"-n {name} link set eth0 up",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        yield ["ip", "netns", "exec", name], "198.18.79.1"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
