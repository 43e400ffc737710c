"""What a group has used, read from the controllers that this machine has."""

import contextlib

from dockmagic_runtime.kernel.cgroups.directories import Directories
from dockmagic_runtime.kernel.cgroups.files import read, read_limit
from dockmagic_runtime.kernel.cgroups.resources import CgroupStats
from dockmagic_runtime.kernel.cgroups.versions import version


def count(group: Directories) -> CgroupStats:
    """Of the group and those below it, until now."""
    found = CgroupStats()
    for controller in group.layout.controllers:
        counters = {"pids": _count_pids, **version(group, controller).COUNTERS}
        if controller in counters:
            with contextlib.suppress(FileNotFoundError):
                counters[controller](group, found)
    return found


def _count_pids(group: Directories, found: CgroupStats) -> None:
    directory = group.directory("pids")
    found.pids_current = int(read(f"{directory}/pids.current"))
    found.pids_limit = read_limit(f"{directory}/pids.max")
