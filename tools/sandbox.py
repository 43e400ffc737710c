"""A throw-away engine for a notebook: own data root, stand-in images as its mirror, nothing left afterwards.

The notebook starts its engine itself, by `%load_ext dockmagic`: it is only told, by environment variables,
where that engine keeps its things and which registry it asks first.
"""

import os
import select
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker

from dockmagic.contexts import own_sockets
from tests.images.registry import Registry


@contextmanager
def sandbox() -> Iterator[dict[str, str]]:
    """Environment variables for a notebook kernel; at the end its engine and containers are gone."""
    with Registry() as registry:
        data_root = Path(tempfile.mkdtemp(prefix="dockmagic-"))
        settings = {"DOCKMAGIC_DATA_ROOT": str(data_root), "DOCKMAGIC_REGISTRY_MIRROR": registry.mirror_url}
        # Only our own engine may answer here, whatever the user's shell points at.
        for other in ("DOCKER_HOST", "DOCKMAGIC_SOCKET"):
            os.environ.pop(other, None)
        os.environ.update(settings)
        try:
            yield {**os.environ}
        finally:
            end_engine(own_sockets()[0])
            shutil.rmtree(data_root)


def end_engine(path: Path) -> None:
    """Remove the containers of the engine that listens on `path`, if one does, then end it and wait."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = struct.unpack("3i", credentials)[0]
    with closing(docker.DockerClient(base_url=f"unix://{path}")) as client:
        for container in client.containers.list(all=True, ignore_removed=True):
            container.remove(force=True)
    engine = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(engine, signal.SIGTERM)
        if not select.select([engine], [], [], 10)[0]:  # readable once the process has ended
            raise TimeoutError(f"the engine (process {pid}) did not end within 10 s of SIGTERM")
    finally:
        os.close(engine)
