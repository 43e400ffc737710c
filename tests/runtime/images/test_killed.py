"""A pull whose process is killed leaves what the next one takes up, and nothing else."""

import asyncio
import os
import signal
import sys

from tests.runtime.images.conftest import Bench
from tests.runtime.images.made import Made, digest, layer_tar
from tests.runtime.images.test_pull import put
from tests.runtime.registry.servers import FaultyRegistry

_PULL = """
import asyncio, sys
from pathlib import Path
from tests.runtime.images.conftest import Bench

asyncio.run(Bench.at(Path(sys.argv[1])).pull(sys.argv[2]))
"""


async def test_a_killed_pull(bench: Bench) -> None:
    made = Made([layer_tar({"random": os.urandom(4_000_000)})])
    part = bench.root / "images/ingest" / digest(made.blobs[0]).removeprefix("sha256:")
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        server.faults.stall = asyncio.Event()
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PULL, str(bench.root), name)
        while not part.exists() or part.stat().st_size < 1_000_000:
            assert process.returncode is None
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        server.faults.stall.set()
        server.faults.stall = None

        again = Bench.at(bench.root)
        again.images.content.sweep()
        again.images.layers.sweep()
        await again.images.collect()
        assert again.images.list() == []
        assert again.images.content.digests() == []
        assert again.images.layers.diff_ids() == []
        assert list((bench.root / "layers/tmp").iterdir()) == []
        assert [path.name for path in part.parent.iterdir()] == [part.name]

        server.requests.clear()
        assert (await again.pull(name)).id == made.id
        await again.registry.close()
    (wanted,) = [wanted for _, path, wanted in server.requests if path.endswith(digest(made.blobs[0]))]
    assert wanted and int(wanted[6:-1]) >= 1_000_000
