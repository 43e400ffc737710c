"""What a group may use, as the OCI runtime configuration says it, and what it has used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Resources = Mapping[str, Any]
"""`linux.resources` of an OCI config, or one part of it."""


@dataclass
class CgroupStats:
    """What a group has used, in nanoseconds and bytes; a value its kernel doesn't count is None or empty.

    `blkio_bytes` and `blkio_operations` hold (major, minor, "read" | "write" | …, amount).
    """

    cpu_usage_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    per_cpu_ns: list[int] = field(default_factory=list)
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_ns: int = 0
    memory_usage: int = 0
    memory_limit: int | None = None
    memory_max: int | None = None
    memory_failures: int = 0
    memory_stat: dict[str, int] = field(default_factory=dict)
    pids_current: int = 0
    pids_limit: int | None = None
    blkio_bytes: list[tuple[int, int, str, int]] = field(default_factory=list)
    blkio_operations: list[tuple[int, int, str, int]] = field(default_factory=list)
