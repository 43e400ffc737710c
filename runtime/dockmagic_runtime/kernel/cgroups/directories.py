"""The directories of one group: the same path in every hierarchy, whatever the machine's layout.

In the hybrid layout a group gets a v2 directory only when a limit asks for a controller that lives there: an
attach costs more than a directory.
"""

# pathlib would cost more per file than the kernel does.
# ruff: noqa: PTH112

import contextlib
import os

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel.cgroups.files import make, read, tree, write
from dockmagic_runtime.kernel.cgroups.hierarchies import Layout


class Directories:
    """One group's, by its path from the root of each hierarchy: `/dockmagic/<id>`."""

    def __init__(self, path: str, layout: Layout):
        self.path = clean(path)
        self.layout = layout

    @property
    def directories(self) -> list[str]:
        found = [mount + self.path for mount in self.layout.v1_mounts]
        if self.layout.v2:
            found.append(self.layout.v2 + self.path)
        return found

    @property
    def optional(self) -> str | None:
        """The v2 directory of a hybrid layout, which may or may not have been made."""
        return None if self.layout.unified or not self.layout.v2 else self.layout.v2 + self.path

    @property
    def principal(self) -> str:
        """The directory that is asked who belongs to the group."""
        if self.layout.unified:
            return f"{self.layout.v2}{self.path}"
        mounts = (self.layout.v1[name] for name in ("freezer", "pids", "memory") if name in self.layout.v1)
        return next(mounts, "") + self.path

    def on_v2(self, controller: str) -> bool:
        return controller not in self.layout.v1

    def directory(self, controller: str) -> str:
        """The one in a controller's hierarchy; made now if that is v2's of a hybrid layout."""
        if mount := self.layout.v1.get(controller):
            return mount + self.path
        if not self.layout.v2 or controller not in self.layout.v2_controllers | {"freezer", "devices"}:
            raise InvalidParameter(f"the kernel has no {controller} cgroup controller here")
        directory = self.layout.v2 + self.path
        if not self.layout.unified and not os.path.isdir(directory):
            self.make_v2()
            for pid in self.pids():
                write(f"{directory}/cgroup.procs", str(pid))
        return directory

    def set(self, controller: str, name: str, value: object) -> None:
        """Write a controller's file. Raises InvalidParameter if there is none of that name."""
        path = f"{self.directory(controller)}/{name}"
        try:
            write(path, str(value))
        except FileNotFoundError:
            raise InvalidParameter(f"this kernel's {controller} cgroup controller has no {name}") from None

    def pids(self, recursive: bool = True) -> list[int]:
        """The processes of the group, and of groups made below it (by a nested engine, by systemd)."""
        root = self.principal
        found: list[int] = []
        for directory in tree(root) if recursive else [root]:
            with contextlib.suppress(FileNotFoundError):
                found += map(int, read(f"{directory}/cgroup.procs").split())
        return found

    def make_v2(self) -> None:
        """The v2 directory, with every controller that its parents can hand down."""
        assert self.layout.v2
        directory = self.layout.v2 + self.path
        make(directory)
        if self.layout.v2_controllers <= set(read(f"{directory}/cgroup.controllers").split()):
            return
        parent = self.layout.v2
        for part in self.path.split("/")[1:]:
            has = set(read(f"{parent}/cgroup.controllers").split())
            missing = has - set(read(f"{parent}/cgroup.subtree_control").split())
            for name in sorted(missing):
                # One at a time: a controller that may not be delegated must not take the others with it.
                with contextlib.suppress(OSError):
                    write(f"{parent}/cgroup.subtree_control", f"+{name}")
            parent += f"/{part}"


def clean(path: str) -> str:
    """Raises InvalidParameter for a path that names no group, or leads out of one."""
    parts = [part for part in path.split("/") if part]
    if not parts or any(part in (".", "..") for part in parts):
        raise InvalidParameter(f"invalid cgroup path: {path!r}")
    return "/" + "/".join(parts)
