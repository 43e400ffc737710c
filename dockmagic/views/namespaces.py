"""Which namespaces a container has of its own, and which it shares with the host.

A namespace is told apart by its inode in `/proc/<pid>/ns` (namespaces(7)): the same number is the same
namespace.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockmagic.views.engine import extension
from dockmagic.views.parts import Cell, Column, Note, Part, Table
from dockmagic.views.units import short
from dockmagic.views.view import View

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

    from dockmagic.views.panel import Panel

ISOLATES = {
    "mnt": "mounts and files",
    "pid": "process ids",
    "net": "network devices, addresses, ports",
    "uts": "host name",
    "ipc": "shared memory, message queues",
    "cgroup": "view of the cgroups",
    "user": "user and group ids",
    "time": "clock offsets",
}

_PLACES = {kind: place for place, kind in enumerate(ISOLATES)}

# Where `inspect` records that a namespace is the host's.
MODES = {
    "pid": "PidMode",
    "net": "NetworkMode",
    "uts": "UTSMode",
    "ipc": "IpcMode",
    "cgroup": "CgroupnsMode",
    "user": "UsernsMode",
}


class Namespaces(View):
    """A container's namespaces beside the host's, kind by kind."""

    def __init__(self, client: docker.DockerClient, container: Container | str) -> None:
        if isinstance(container, str):
            container = client.containers.get(container)
        else:
            container.reload()
        self.data = read(client, container)
        super().__init__(*parts(container.name or short(container.id or ""), self.data))
        self._again = lambda: Namespaces(client, container)

    def panel(self) -> Panel:
        """The picture as a widget with a button that reads it again."""
        from dockmagic.views.panel import Panel

        return Panel(self._again)


def parts(name: str, data: dict[str, Any]) -> list[Part]:
    """The picture of `{"pid", "kinds": [{"kind", "inode", "host_inode", "shared"}], "beside", "note"}`.

    `pid` 0 means not running; an inode of None means not known.
    """
    if not data["pid"]:
        return [Note(f"{name} is not running: it has no namespaces now.")]
    beside = data.get("beside", "Host")
    rows = [
        [
            kind["kind"],
            ISOLATES.get(kind["kind"], ""),
            _inode(kind["inode"]),
            _inode(kind["host_inode"]),
            _relation(kind["shared"], beside),
        ]
        for kind in sorted(data["kinds"], key=lambda kind: _PLACES.get(kind["kind"], len(_PLACES)))
    ]
    columns = [
        Column("Namespace", code=True),
        Column("Isolates"),
        Column(name, numeric=True, code=True),
        Column(beside, numeric=True, code=True),
        Column("Relation"),
    ]
    caption = f"Namespaces of {name}, process {data['pid']} on the host"
    picture: list[Part] = [Table(caption, columns, rows)]
    if data.get("note"):
        picture.append(Note(data["note"]))
    return picture


def read(client: docker.DockerClient, container: Container) -> dict[str, Any]:
    """What the engine reads from the kernel; else what we read from it; else what `inspect` says."""
    state = container.attrs["State"]
    if not state.get("Running"):
        return {"pid": 0, "kinds": []}
    told = extension(client, f"containers/{container.id}/namespaces")
    if told is not None:
        return told
    return _from_proc(str(container.id), state["Pid"]) or _from_inspect(container.attrs)


def _from_proc(identity: str, pid: int) -> dict[str, Any] | None:
    """The inodes themselves, when the container runs under this kernel and we may look."""
    process = Path("/proc", str(pid))
    try:
        if identity not in (process / "cgroup").read_text():
            return None
        own = _inodes(process / "ns")
    except OSError:
        return None
    beside, host = _host()
    kinds = [
        {"kind": kind, "inode": own[kind], "host_inode": host[kind], "shared": own[kind] == host[kind]}
        for kind in ISOLATES
        if kind in own and kind in host
    ]
    return {"pid": pid, "kinds": kinds, "beside": beside}


def _host() -> tuple[str, dict[str, int]]:
    """The namespaces of the machine's first process; where we may not look at those, the notebook's own."""
    try:
        return "Host", _inodes(Path("/proc/1/ns"))
    except PermissionError:
        return "Notebook", _inodes(Path("/proc/self/ns"))


def _inodes(folder: Path) -> dict[str, int]:
    return {link.name: link.stat().st_ino for link in folder.iterdir()}


def _from_inspect(attrs: dict[str, Any]) -> dict[str, Any]:
    settings = attrs["HostConfig"]
    kinds = [{"kind": "mnt", "inode": None, "host_inode": None, "shared": False}]
    for kind, field in MODES.items():
        mode = settings.get(field) or ""
        # Without user namespace remapping, an empty UsernsMode may be either: only "host" is certain.
        shared = (
            True if mode == "host" else None if mode.startswith("container:") or kind == "user" else False
        )
        kinds.append({"kind": kind, "inode": None, "host_inode": None, "shared": shared})
    return {
        "pid": attrs["State"]["Pid"],
        "kinds": kinds,
        "note": "This engine does not tell the inodes; the relation is what docker inspect records.",
    }


def _inode(value: int | None) -> Cell:
    return Cell("not known", "muted") if value is None else Cell(str(value))


def _relation(shared: bool | None, beside: str) -> Cell:
    if shared is None:
        return Cell("not known", "muted")
    return Cell(f"= shared with the {beside.lower()}", "warn") if shared else Cell("≠ its own", "good")
