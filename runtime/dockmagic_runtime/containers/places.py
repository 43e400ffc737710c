"""Where the things of a container are: on disk, among the sockets, in the control group hierarchy."""

from dataclasses import dataclass
from pathlib import Path

from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.containers import logoptions
from dockmagic_runtime.containers.record import Container


@dataclass(frozen=True)
class Places:
    """Paths of one engine's containers; nothing here touches them."""

    config: EngineConfig

    @property
    def root(self) -> Path:
        return self.config.data_root / "containers"

    @property
    def shims(self) -> Path:
        return self.config.run_root / "shims"

    def directory(self, container: Container) -> Path:
        """Its layers, log, exit code and files of /etc."""
        return self.root / container.id

    def log(self, container: Container) -> Path | None:
        """None with the log driver `none`."""
        return logoptions.log_path(self.directory(container), container)

    def shared_memory(self, container: Container) -> Path:
        """Its /dev/shm while it runs, if others may join its IPC namespace."""
        return self.directory(container) / "shm"

    def shim_socket(self, container: Container) -> Path:
        return self.shims / f"{container.id[:16]}.sock"

    def cgroup(self, container: Container) -> str:
        """Its path from the root of each hierarchy."""
        parent = container.host_config["CgroupParent"] or self.config.cgroup_parent
        return f"{parent.rstrip('/')}/{container.id}"
