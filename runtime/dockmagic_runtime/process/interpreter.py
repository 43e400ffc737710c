"""Our own interpreter, executed so that no container can ever write to it.

A process in a container may get to see one of ours for the moment before its exec, and `/proc/<pid>/exe` of
it is the host's Python: opened there and written to later, the next start would run the attacker's code as
root. So whatever becomes a container was itself executed through a read-only mount of the interpreter. The
mount is detached: it has no name, nobody can remount it, and `/proc/<pid>/exe` stays read-only whoever
opens it.
"""

import os
import sys
from pathlib import Path

from dockmagic_runtime.kernel import mounts

_ROOT = Path(__file__).parents[2]


def sealed() -> bool:
    """Whether this process runs from a read-only mount."""
    return bool(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY)


def open_sealed() -> int:
    """A descriptor of the interpreter, on a read-only mount of its own; execute it as /proc/self/fd/<n>."""
    mount = mounts.copy_path(os.readlink("/proc/self/exe"))  # noqa: PTH115
    mounts.set_attributes(mount, mounts.MOUNT_ATTR_RDONLY)
    return mount


def command(statement: str) -> list[str]:
    """The arguments that run `statement` in a bare interpreter: no site, no environment, our code only."""
    return [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(_ROOT)!r}); {statement}"]
