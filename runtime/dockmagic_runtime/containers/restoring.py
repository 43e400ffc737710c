"""The containers that an engine finds when it starts: those that ran on without one, and those that ended.

A running one is known by its shim's socket, how another ended by its exit file. Last come those that are to
run again: the last engine's restarts that were cut off, and those whose policy asks for it at every start.
"""

import asyncio
import logging
import os
from pathlib import Path

from dockmagic_runtime import timestamps
from dockmagic_runtime.containers import restarts
from dockmagic_runtime.containers.places import Places
from dockmagic_runtime.containers.record import Container, Records, State
from dockmagic_runtime.containers.runs import Runs
from dockmagic_runtime.containers.volumeuse import VolumeUse
from dockmagic_runtime.errors import EngineError, NotFound, NotModified
from dockmagic_runtime.kernel import trees
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.process.client import Shim, read_exit
from dockmagic_runtime.process.messages import Exit

log = logging.getLogger(__name__)

_LOST = 255  # exit code of a container whose shim was killed: nobody saw how it ended


async def restore(
    places: Places, records: Records, runs: Runs, networks: Networks, volumes: VolumeUse
) -> None:
    """Find the last engine's containers, and sweep what a crash of it left half-made.

    The networks come up in between: they need to know who runs, and the ends of the others release theirs.
    """
    places.root.mkdir(mode=0o710, parents=True, exist_ok=True)
    places.shims.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(places.root, {container.id for container in records.all()})
    lost: list[tuple[Container, Exit]] = []
    for container in records.all():
        if ended := await _take_up(container, places, records, runs):
            lost.append((container, ended))
    gone = {container.id for container, _ in lost}
    running = records.running()
    await networks.start([each.id for each in running if each.id not in gone])
    volumes.take_up(running)
    for container, ended in lost:
        runs.note_end(container, ended)


def _sweep(root: Path, known: set[str]) -> None:
    """Directories that no record knows: half-made or half-removed when the last engine died."""
    for entry in os.scandir(root):
        if entry.name not in known:
            log.info("sweeping %s, which no container owns", entry.name)
            trees.remove(Path(entry.path))


async def _take_up(container: Container, places: Places, records: Records, runs: Runs) -> Exit | None:
    """Watch a container that runs; say how it ended if it does no more and its record doesn't know.

    The record may also not know that it began: the last engine died between its start and the note of it.
    """
    directory = places.directory(container)
    try:
        shim = await Shim.connect(places.shim_socket(container))
    except OSError:
        if container.state.status == "restarting":
            container.state.status = "exited"  # until its policy is asked again
            return None
        if container.state.running:
            return await _how_it_ended(container, directory, runs)
        left = read_exit(directory)
        known = timestamps.parse(container.state.finished_at)
        return left if left and timestamps.parse(left.finished_at) > known else None
    if container.state.status not in ("running", "paused"):
        container.state = State("running", shim.pid, started_at=timestamps.now())
        records.save(container)
    runs.watch(container, shim)
    return None


async def _how_it_ended(container: Container, directory: Path, runs: Runs) -> Exit:
    """From its exit file; a shim that was killed has written none, and took the container with it."""
    group = runs.cgroup(container)
    if group.exists():
        await asyncio.to_thread(group.remove, kill=True)
    return read_exit(directory) or Exit(_LOST, False, timestamps.now())


async def start_by_policy(records: Records, runs: Runs) -> None:
    """Start the containers whose policy says so; those that join the network of another one come after it."""
    due = [each for each in records.all() if not each.state.running and restarts.wanted(each)]
    joined = [each for each in due if each.network_mode.startswith("container:")]
    for group in ([each for each in due if each not in joined], joined):
        await asyncio.gather(*(_start_again(container, runs) for container in group))


async def _start_again(container: Container, runs: Runs) -> None:
    try:
        await runs.start(container)
    except (NotModified, NotFound):
        log.debug("container %s: somebody was faster", container.short_id)
    except (EngineError, OSError) as error:
        log.warning("container %s could not be started: %s", container.short_id, error)
