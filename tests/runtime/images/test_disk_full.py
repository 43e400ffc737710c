"""A disk that fills up in the middle of a pull or a load: a sentence at the stream's end, and room again."""

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import EngineProcess
from tests.runtime.images.made import Made, digest, layer_tar
from tests.runtime.images.test_pull import put
from tests.runtime.registry.servers import FaultyRegistry, run


@pytest.fixture
def cramped() -> Iterator[EngineProcess]:
    """An engine with twenty megabytes."""
    disk = Path(tempfile.mkdtemp(prefix="dm-"))
    run("mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk))
    engine = EngineProcess(disk / "e").start()
    yield engine
    engine.stop()
    run("umount", str(disk))
    disk.rmdir()


def left(engine: EngineProcess) -> list[Path]:
    folders = ("images/blobs/sha256", "images/ingest", "layers/tmp")
    return [path for name in folders for path in (engine.data_root / name).iterdir()]


async def test_pull(cramped: EngineProcess) -> None:
    made = Made([layer_tar({"random": os.urandom(30_000_000)})])
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        done = await asyncio.to_thread(cramped.docker, "pull", name)
    assert done.returncode == 1
    assert "no space left on device" in done.stderr.lower(), done
    assert "internal" not in done.stderr and "chunk" not in done.stderr
    assert left(cramped) == [cramped.data_root / "images/blobs/sha256" / digest(made.config)[7:]]
    assert cramped.docker("images", "-q").stdout == ""


def test_load(cramped: EngineProcess, tmp_path: Path) -> None:
    made = Made([layer_tar({"random": os.urandom(30_000_000)})])
    manifest = [{"Config": "config.json", "RepoTags": ["x:1"], "Layers": ["layer.tar"]}]
    archive = tmp_path / "archive.tar"
    archive.write_bytes(
        layer_tar(
            {
                "config.json": made.config,
                "layer.tar": made.layers[0],
                "manifest.json": json.dumps(manifest).encode(),
            }
        )
    )
    done = cramped.docker("load", "-i", str(archive))
    assert done.returncode == 1 and "no space left on device" in done.stderr.lower(), done
    assert left(cramped) == []
    assert cramped.docker("images", "-q").stdout == ""
