"""An engine is killed, and the next one finds its networks: running containers never notice."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.errors import Conflict
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.storage.database import Database

from .conftest import settle
from .lab import Lab

# The former engine: two containers with published ports, of which the second will have ended meanwhile.
FORMER = """
import asyncio, os, signal, sys
from pathlib import Path
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.storage.database import Database

async def main():
    root = Path(sys.argv[1])
    networks = Networks(Database(root / "engine.db"), EngineConfig(data_root=root), lambda *event: None)
    await networks.start()
    await networks.create("mynet")
    for name in ("a", "b"):
        ports = {"80/tcp": [{"HostPort": ""}]}
        box = await networks.sandboxes.allocate(name * 64, name, name, {"mynet": {}}, ports)
        print(box.endpoints[0].address, box.publications[0].host_port, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_killed_engine_is_taken_over(config: EngineConfig, tmp_path: Path) -> None:
    former = subprocess.run(
        [sys.executable, "-c", FORMER, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert former.returncode == -signal.SIGKILL, former.stderr
    (address, port), (ended_address, ended_port) = (line.split() for line in former.stdout.splitlines())

    database = Database(tmp_path / "engine.db")
    networks = Networks(database, config, lambda *event: None)
    await networks.start(["a" * 64])
    lab = Lab(networks, config, [], tmp_path)
    box = networks.sandboxes.find("a" * 64)
    assert box is not None
    try:
        assert networks.sandboxes.find("b" * 64) is None
        assert [path.name for path in (config.run_root / "netns").iterdir()] == ["a" * 16]
        assert [each["host_port"] for each in networks.published_ports()] == [int(port)]

        await lab.serve(box)
        assert await lab.fetch(None, f"127.0.0.1:{port}") == "a"
        assert await lab.resolve(box, "a") == ["NOERROR", address]

        with pytest.raises(Conflict, match="port is already allocated"):
            await lab.run("other", ports={"80/tcp": [{"HostIp": "", "HostPort": port}]})
        heir = await lab.run("heir", "mynet", ports={"80/tcp": [{"HostIp": "", "HostPort": ended_port}]})
        assert str(heir.endpoints[0].address) == ended_address
        assert await lab.resolve(box, "heir") == ["NOERROR", ended_address]
    finally:
        for program in lab.programs:
            program.kill()
            program.wait()
        for each in networks.sandboxes:
            await networks.sandboxes.release(each.container_id)
        interfaces = {network.interface for network in networks.list()}
        await networks.stop()
        database.close()
        await settle(config, interfaces)


async def test_stopped_engine_leaves_running_containers_connected(
    config: EngineConfig, tmp_path: Path
) -> None:
    database = Database(tmp_path / "engine.db")
    first = Networks(database, config, lambda *event: None)
    await first.start()
    lab = Lab(first, config, [], tmp_path)
    web = await lab.run("web", ports={"80/tcp": [{"HostIp": "", "HostPort": ""}]})
    await lab.serve(web)
    port = web.publications[0].host_port
    await first.stop()
    assert await lab.fetch(None, f"127.0.0.1:{port}") == "web"
    second = Networks(database, config, lambda *event: None)
    await second.start([web.container_id])
    assert await lab.fetch(None, f"127.0.0.1:{port}") == "web"
    lab.programs[0].kill()
    lab.programs[0].wait()
    await second.sandboxes.release(web.container_id)
    await second.stop()
    database.close()
    await settle(config, {config.bridge})


async def test_user_defined_networks_survive_a_restart(config: EngineConfig, tmp_path: Path) -> None:
    database = Database(tmp_path / "engine.db")
    first = Networks(database, config, lambda *event: None)
    await first.start()
    made = await first.create("mynet", labels={"a": "b"}, options={"com.docker.network.driver.mtu": "1400"})
    shown = first.inspect(made)
    await first.stop()
    await settle(config, {made.interface})
    second = Networks(database, config, lambda *event: None)
    await second.start()
    assert second.inspect(second.get("mynet")) == shown
    assert (Path("/sys/class/net") / made.interface / "mtu").read_text().strip() == "1400"
    await second.stop()
    database.close()
    await settle(config, {made.interface})
