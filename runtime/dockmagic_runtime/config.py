"""Where one engine keeps its things, and the names it gives to the kernel objects it makes.

Two engines with different data roots share nothing: the second one's bridge, nftables table and
cgroup carry a short hash of its data root.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DEFAULT_DATA_ROOT = Path("/var/lib/dockmagic")
DEFAULT_RUN_ROOT = Path("/run/dockmagic")


@dataclass(frozen=True)
class EngineConfig:
    """Settings of one engine; immutable once it runs.

    `registry_mirrors` are base URLs tried before Docker Hub; `insecure_registries` are `host[:port]`
    or CIDR blocks that may be spoken to without TLS (loopback always may). `layer_limit` is in bytes: a layer
    that unpacks to more is refused.
    """

    data_root: Path = DEFAULT_DATA_ROOT
    socket: Path | None = None
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    log_level: str = "info"
    layer_limit: int = 100 << 30

    @cached_property
    def instance(self) -> str:
        """Empty for the default data root, else six hex digits that tell this engine's things apart."""
        if self.data_root == DEFAULT_DATA_ROOT:
            return ""
        return hashlib.sha256(str(self.data_root).encode()).hexdigest()[:6]

    @property
    def run_root(self) -> Path:
        """Sockets and mounts of running things, gone after a reboot; short, as `sun_path` has 108 bytes."""
        return DEFAULT_RUN_ROOT.with_name(self._named("dockmagic", "-"))

    @property
    def socket_path(self) -> Path:
        return self.socket or self.run_root / "engine.sock"

    @property
    def bridge(self) -> str:
        """The default bridge's interface name (at most 15 bytes)."""
        return f"dm{self.instance}" if self.instance else "dockmagic0"

    @property
    def nft_table(self) -> str:
        return self._named("dockmagic", "_")

    @property
    def cgroup_parent(self) -> str:
        return "/" + self._named("dockmagic", "-")

    def _named(self, base: str, separator: str) -> str:
        return f"{base}{separator}{self.instance}" if self.instance else base
