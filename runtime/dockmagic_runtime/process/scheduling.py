"""How the kernel schedules a container's program: sched_setattr(2), ioprio_set(2), personality(2).

Fields `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity` and `linux.personality` of the OCI
runtime specification. Called before the process gives up its rights: real-time classes need CAP_SYS_NICE.
"""

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import Any

from dockmagic_runtime.kernel import libc
from dockmagic_runtime.process.messages import StartFailed

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}

_IOPRIO_WHO_PROCESS = 1

_personality = ctypes.CDLL(None, use_errno=True).personality
_personality.argtypes = [ctypes.c_ulong]


def apply(process: Mapping[str, Any], linux: Mapping[str, Any] | None = None) -> None:
    """Set what `process` (and `linux.personality`) ask for on the calling thread."""
    if scheduler := process.get("scheduler"):
        _set_scheduler(scheduler)
    if priority := process.get("ioPriority"):
        value = _IO_CLASSES[priority["class"]] << 13 | priority.get("priority", 0)
        libc.syscall(libc.NR["ioprio_set"], _IOPRIO_WHO_PROCESS, 0, value, path="process.ioPriority")
    set_personality(linux or {})


def set_personality(linux: Mapping[str, Any]) -> None:
    """`linux.personality`: what uname(2) says, mostly. Children inherit it."""
    wanted = linux.get("personality")
    if wanted and _personality(_DOMAINS[wanted["domain"]]) == -1:
        raise libc.fail("linux.personality")


def set_affinity(process: Mapping[str, Any], moment: str) -> None:
    """`process.execCPUAffinity`, for a process added to a container: `initial` or `final`."""
    cpus = (process.get("execCPUAffinity") or {}).get(moment)
    if cpus:
        os.sched_setaffinity(0, cpu_list(cpus))


def cpu_list(text: str) -> set[int]:
    """`0-3,7` as a set. Raises StartFailed if it isn't one."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise StartFailed(f"process.execCPUAffinity: {text!r} is no list of CPUs")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _set_scheduler(scheduler: Mapping[str, Any]) -> None:
    flags = sum(FLAGS[name] for name in scheduler.get("flags") or ())
    attributes = struct.pack(  # struct sched_attr
        "=IIQiIQQQ",
        *(48, POLICIES[scheduler["policy"]], flags),
        *(scheduler.get("nice", 0), scheduler.get("priority", 0)),
        *(scheduler.get("runtime", 0), scheduler.get("deadline", 0), scheduler.get("period", 0)),
    )
    libc.syscall(libc.NR["sched_setattr"], 0, attributes, 0, path="process.scheduler")
