"""Never a 500, never a hang, never a leak, whatever a client sends.

Always from the same seed, so that a change is judged by what it changes; `DOCKMAGIC_FUZZ_SEED=random` (or a
number) and `DOCKMAGIC_FUZZ_ROUNDS` ask something else, and more.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.fuzz.exchange import Answer, exchange
from tests.clients.fuzz.generator import PATIENT, Generator, Request
from tests.conftest import EngineProcess

_ASKED = os.environ.get("DOCKMAGIC_FUZZ_SEED") or "1"
SEED = random.randrange(1 << 32) if _ASKED == "random" else int(_ASKED)
ROUNDS = int(os.environ.get("DOCKMAGIC_FUZZ_ROUNDS") or 25)


@pytest.fixture
def lone(own_engine: EngineProcess) -> Iterator[EngineProcess]:
    """An engine that nobody else asks anything, with the image busybox."""
    own_engine.start()
    assert own_engine.docker("pull", "-q", "busybox").returncode == 0
    yield own_engine


def names(engine: EngineProcess) -> dict[str, list[str]]:
    """Something of each kind, made anew; the containers end at once when told to."""
    engine.docker("pull", "-q", "busybox")
    engine.docker("rm", "-f", "running", "stopped")
    script = "trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done"
    engine.docker("run", "-d", "--name", "running", "-v", "used:/data", "busybox", "sh", "-c", script)
    engine.docker("create", "--name", "stopped", "-it", "busybox", "sh")
    engine.docker("network", "create", "mynet")
    client = engine.client()
    command = client.api.exec_create("running", ["sleep", "100"])["Id"]
    client.close()
    return {
        "container": ["running", "stopped"],
        "image": ["busybox", "busybox:latest"],
        "network": ["mynet", "bridge", "none"],
        "volume": ["used"],
        "exec": [command],
    }


def wrong(request: Request, answer: Answer) -> str | None:
    """What is wrong with an answer."""
    if answer.status == 0:
        patient = any(part in request.target for part in PATIENT)
        return None if patient else f"no answer in {answer.seconds:.1f} s"
    refused = answer.status in (501, 503)
    if answer.status >= 500 and not refused:
        return f"{answer.status} {answer.body[:700]!r}"
    if answer.status < 400 or request.method == "HEAD":
        return None
    try:
        sentence = answer.sentence
    except (ValueError, LookupError, TypeError):
        return f"{answer.status} without a sentence: {answer.body[:700]!r}"
    if not isinstance(sentence, str) or len(sentence) < 8 or "Traceback" in sentence:
        return f"{answer.status} with the sentence {sentence!r}"
    return None


@pytest.mark.timeout(300)
def test_whatever_is_asked(lone: EngineProcess) -> None:
    generator = Generator(SEED, names(lone))
    lone.clear()
    before = footprint(lone)
    names(lone)
    failures: dict[str, str] = {}
    for number, request in enumerate(generator.requests(ROUNDS)):
        if number % 400 == 399:
            names(lone)  # what has been removed meanwhile
        answer = exchange(lone.socket, request, patience=5 if "/stop" not in request.target else 1)
        if why := wrong(request, answer):
            failures.setdefault(request.endpoint, f"{why}\n    {request}")
    if failures:
        pytest.fail(f"seed {SEED}:\n" + "\n".join(f"{k}: {v}" for k, v in failures.items()), pytrace=False)
    assert lone.process and lone.process.poll() is None
    lone.clear()
    # The kernel takes interfaces away in its own time.
    deadline = time.monotonic() + 10
    while (more := grown(before, footprint(lone))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert more == {}, f"seed {SEED}"
    log = (lone.data_root.parent / f"{lone.data_root.name}.log").read_text()
    if "Traceback" in log:
        place = log.index("Traceback")
        pytest.fail(f"seed {SEED}:\n{log[place - 300 : place + 2500]}", pytrace=False)


def footprint(engine: EngineProcess) -> dict[str, int]:
    """What an engine without containers has."""
    assert engine.process
    pid = engine.process.pid
    root = str(engine.data_root)
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if root in line]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        "descriptors": len([*Path(f"/proc/{pid}/fd").iterdir()]),
        "mounts": len(mounts),
        "processes": len(children),
        "interfaces": len([*Path("/sys/class/net").glob("veth*"), *Path("/sys/class/net").glob("br-*")]),
    }


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, str]:
    """Where there is more than before; a few descriptors are caches (the threads' own sockets)."""
    allowed = {"descriptors": 8}
    return {
        name: f"{before[name]} -> {count}"
        for name, count in after.items()
        if count > before[name] + allowed.get(name, 0)
    }
