"""Real networks with a data root of their own; every test ends by checking that nothing of them is left."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.storage.database import Database

from .lab import Lab


@pytest.fixture
def config(tmp_path: Path) -> Iterator[EngineConfig]:
    for program in ("busybox", "curl", "nft", "nsenter"):
        assert shutil.which(program), (
            f"missing: apt-get install busybox-static curl nftables util-linux ({program})"
        )
    settings = EngineConfig(data_root=tmp_path)
    yield settings
    shutil.rmtree(settings.run_root, ignore_errors=True)


@pytest.fixture
async def lab(config: EngineConfig, tmp_path: Path) -> AsyncIterator[Lab]:
    database = Database(tmp_path / "engine.db")
    events: list[Any] = []
    networks = Networks(database, config, lambda *event: events.append(event))
    await networks.start()
    bench = Lab(networks, config, events, tmp_path)
    yield bench
    for program in bench.programs:
        program.kill()
        program.wait()
    for sandbox in list(networks.sandboxes):
        await networks.sandboxes.release(sandbox.container_id)
    interfaces = {network.interface for network in networks.list()}
    await networks.stop()
    database.close()
    await settle(config, interfaces)
    assert not (config.run_root / "netns").exists()


async def settle(config: EngineConfig, ours: set[str]) -> None:
    """The kernel takes veth pairs away some time after their namespace."""
    for _ in range(200):
        present = {path.name for path in Path("/sys/class/net").iterdir()}
        if not ours & present:
            break
        await asyncio.sleep(0.01)
    assert not ours & {path.name for path in Path("/sys/class/net").iterdir()}
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    assert config.nft_table not in rules
    assert str(config.run_root) not in Path("/proc/mounts").read_text()
