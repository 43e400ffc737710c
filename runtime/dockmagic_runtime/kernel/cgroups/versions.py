"""The two versions of control groups, v1 and v2, as answers to the same questions."""

from collections.abc import Callable
from typing import Any, Protocol

from dockmagic_runtime.kernel.cgroups import v1, v2
from dockmagic_runtime.kernel.cgroups.directories import Directories
from dockmagic_runtime.kernel.cgroups.resources import CgroupStats, Resources


class Version(Protocol):
    """What differs. Limits that are not named stay as they are; see `Cgroup.apply` for what is raised."""

    HUGETLB_LIMIT: str
    COUNTERS: dict[str, Callable[[Directories, CgroupStats], None]]

    def frozen(self, group: Directories) -> bool: ...
    def set_frozen(self, group: Directories, wanted: bool) -> None: ...
    def oom_kills(self, group: Directories) -> int: ...
    def oom_watch(self, group: Directories) -> tuple[int, int]: ...
    def memory_usage(self, group: Directories) -> int: ...
    def set_devices(self, group: Directories, rules: list[dict[str, Any]]) -> None: ...
    def set_memory(self, group: Directories, memory: Resources) -> None: ...
    def set_cpu(self, group: Directories, cpu: Resources) -> None: ...
    def set_blkio(self, group: Directories, blkio: Resources) -> None: ...


def version(group: Directories, controller: str) -> Version:
    """The one that a controller is mounted as, on this machine."""
    return v2 if group.on_v2(controller) else v1
