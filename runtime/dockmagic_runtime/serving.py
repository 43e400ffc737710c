"""The engine's event loop: from the first client served to SIGTERM or SIGINT."""

import asyncio
import gc
import logging
import os
import signal

from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.engine import Engine
from dockmagic_runtime.errors import SystemFailure
from dockmagic_runtime.process.spawner import Spawner

log = logging.getLogger("dockmagic")


def run(config: EngineConfig, spawner: Spawner, ready_fd: int | None = None) -> int:
    """Serve until a signal. `ready_fd` gets one line when clients are served, and is closed."""
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(_serve(config, spawner, ready_fd))
    return 0


async def _serve(config: EngineConfig, spawner: Spawner, ready_fd: int | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine = Engine(config, spawner)
    try:
        try:
            await engine.start()
        except OSError as error:
            raise SystemFailure(f"cannot take up the data root {config.data_root}: {error}") from error
        # What start-up made stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        log.info("serving on %s", config.socket_path)
        if ready_fd is not None:
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)
        await stop.wait()
    finally:
        await engine.stop()
