"""The containers that the OCI runtime command knows: one directory each below its `--root`.

    <root>/<id>/state.json    what was made: bundle, pid and the pid's start time, cgroup, when
    <root>/<id>/config.json   the configuration as it was at `create`; the bundle's may change
    <root>/<id>/gate          a FIFO at which a created container waits; gone once it was started

Nothing here says how a container *is*: `status` asks the kernel each time. A pid alone may by now be another
process, so it counts only together with its start time.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound
from dockmagic_runtime.kernel import pidfd, trees
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.kernel.libc import NR, syscall

DEFAULT_ROOT = Path("/run/dockmagic-runtime")
_VALID_ID = re.compile(r"[\w+.-]+", re.ASCII)


@dataclass
class Container:
    """One container's record; `pid` is 0 while it is being created."""

    id: str
    bundle: str
    rootfs: str
    created: str
    owner: str
    oci_version: str
    cgroup: str
    pid: int = 0
    start_time: int = 0
    annotations: dict[str, str] = field(default_factory=dict)
    directory: Path = field(default=Path(), repr=False)

    @property
    def gate(self) -> Path:
        return self.directory / "gate"

    @property
    def config_path(self) -> Path:
        return self.directory / "config.json"

    @property
    def config(self) -> dict[str, Any]:
        """The OCI configuration it was created with."""
        content: dict[str, Any] = json.loads(self.config_path.read_text())
        return content

    @property
    def group(self) -> Cgroup:
        return Cgroup.open(self.cgroup)

    def status(self) -> str:
        """`creating`, `created`, `running`, `paused` or `stopped`, from what the kernel says now."""
        if not self.pid:
            return "creating"
        if not self.alive():
            return "stopped"
        if self._frozen():
            return "paused"
        return "created" if self.gate.exists() else "running"

    def alive(self) -> bool:
        """Whether its first process is there and not yet a zombie."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as stat:  # noqa: PTH123
                fields = stat.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return int(fields[19]) == self.start_time and fields[0] not in (b"Z", b"X")

    def open_process(self) -> int:
        """A pidfd of its first process. Raises Conflict when that is gone."""
        try:
            descriptor = syscall(NR["pidfd_open"], self.pid, 0)
        except ProcessLookupError:
            raise Conflict("container not running") from None
        if not self.alive():
            os.close(descriptor)
            raise Conflict("container not running")
        return descriptor

    def document(self, status: str | None = None, pid: int | None = None) -> dict[str, Any]:
        """The OCI state document, as hooks get it."""
        status = status or self.status()
        found: dict[str, Any] = {"ociVersion": self.oci_version, "id": self.id, "status": status}
        if status != "stopped":
            found["pid"] = self.pid if pid is None else pid
        found["bundle"] = self.bundle
        if self.annotations:
            found["annotations"] = self.annotations
        return found

    def save(self) -> None:
        """Write the record: beside, flushed, renamed."""
        record = {key: value for key, value in asdict(self).items() if key != "directory"}
        _replace(self.directory / "state.json", json.dumps(record))

    def save_config(self, config: dict[str, Any]) -> None:
        _replace(self.config_path, json.dumps(config))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No other command changes this container meanwhile; the lock dies with its holder."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Remove the record. Renamed first, so that the id is free or taken, never half there."""
        grave = self.directory.with_name(f".{self.id}.{os.getpid()}")
        self.directory.rename(grave)
        trees.remove(grave)
        if self.directory.parent == DEFAULT_ROOT:  # another one is its user's
            with contextlib.suppress(OSError):  # somebody else's containers are in it
                DEFAULT_ROOT.rmdir()

    def _frozen(self) -> bool:
        try:
            return self.group.frozen()
        except (FileNotFoundError, InvalidParameter):
            return False


def register(container: Container, root: Path) -> Container:
    """Take the id, for good. Raises Conflict if it's taken already."""
    check_id(container.id)
    container.directory = root / container.id
    while True:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            container.directory.mkdir(mode=0o711)
        except FileExistsError:
            raise Conflict("container with given ID already exists") from None
        except FileNotFoundError:
            continue  # another command has just removed the last container, and the root with it
        container.save()
        return container


def load(root: Path, container_id: str) -> Container:
    """The container of this id. Raises NotFound."""
    check_id(container_id)
    directory = root / container_id
    try:
        record = json.loads((directory / "state.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("container does not exist") from None
    return Container(**record, directory=directory)


def every(root: Path) -> list[Container]:
    """All that are registered, by id."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(root)):  # noqa: PTH208
            if not name.startswith("."):
                # One may be deleted while we look.
                with contextlib.suppress(NotFound):
                    found.append(load(root, name))
    return found


def check_id(container_id: str) -> None:
    if not _VALID_ID.fullmatch(container_id) or container_id.startswith("."):
        raise InvalidParameter(f"invalid container ID format: {container_id!r}")


def start_time(pid: int) -> int:
    return pidfd.start_time(pid)


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
