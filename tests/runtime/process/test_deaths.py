"""kill -9 of each process of ours: what survives, what goes, and what the next engine finds."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from dockmagic_runtime.process.client import Shim, read_exit

from .conftest import Bench, output

_COUNT = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 9"


async def test_spawner_killed(bench: Bench) -> None:
    request = bench.request("sh", "-c", _COUNT)
    shim = await bench.spawner.run(request)
    os.kill(bench.spawner.pid, signal.SIGKILL)
    # The next start simply makes a new spawner.
    ended, text = await bench.run("echo", "again")
    assert (ended.code, text) == (0, "again\n")
    assert (await asyncio.wait_for(shim.exited, 10)).code == 9
    assert output(request).split("\n")[:-1] == [f"line {n}" for n in range(1, 61)]


_ENGINE = """
import asyncio, pickle, sys
from dockmagic_runtime.process.spawner import Spawner
async def main():
    shim = await Spawner.fork().run(pickle.load(sys.stdin.buffer))
    print(shim.pid, flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""


def _engine(request: object) -> subprocess.Popen[bytes]:
    """Another process that plays the engine, up to the start of one container."""
    import pickle

    engine = subprocess.Popen([sys.executable, "-c", _ENGINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert engine.stdin
    assert engine.stdout
    engine.stdin.write(pickle.dumps(request))
    engine.stdin.close()
    assert engine.stdout.readline().strip().isdigit()
    return engine


async def test_engine_killed_while_the_container_writes(bench: Bench) -> None:
    request = bench.request("sh", "-c", _COUNT)
    engine = _engine(request)
    engine.kill()
    engine.wait()
    shim = await Shim.connect(request.socket)
    assert (await asyncio.wait_for(shim.exited, 10)).code == 9
    assert output(request).split("\n")[:-1] == [f"line {n}" for n in range(1, 61)]


async def test_container_ends_while_no_engine_is_there(bench: Bench) -> None:
    request = bench.request("sh", "-c", "sleep 0.3; echo last; exit 6")
    engine = _engine(request)
    engine.kill()
    engine.wait()
    while not (ended := read_exit(request.bundle)):
        await asyncio.sleep(0.02)
    assert ended.code == 6
    assert output(request) == "last\n"


async def test_shim_killed_takes_its_container_with_it(bench: Bench) -> None:
    request = bench.request("sh", "-c", "sleep 100 & sleep 100")
    shim = await bench.spawner.run(request)
    note = json.loads((request.bundle / "shim.json").read_text())
    os.kill(note["shim"], signal.SIGKILL)
    ended = await asyncio.wait_for(shim.exited, 5)
    assert ended.code == 137
    stat = Path(f"/proc/{shim.pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    request.socket.unlink()  # what the engine sweeps
