"""From an OCI config to a process that stands before its `exec`: the parent's side of a container's start.

The child's side is `init.py`. The two talk over a socketpair; the child says, in this order:

    mounted            its namespaces and mounts are made; waits for `proceed`
    console (fd)       the master of its new terminal
    warning            something was left out that may be (an rlimit that can't be raised)
    ready              all is done but the exec; with a gate it waits there for the gate's byte
    failed             it could not; or the exec itself failed
    (end of file)      after `ready`: the program runs. Before: it was killed

Both the shim and the OCI runtime command start containers through `create`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.process.messages import StartFailed
from dockmagic_runtime.storage.overlay import Rootfs

Config = Mapping[str, Any]

__all__ = ["Created", "StartFailed", "create"]


@dataclass
class Created:
    """A container's first process, our child. The descriptors belong to the caller."""

    pid: int
    pidfd: int
    console: int | None = None
    warnings: list[str] = field(default_factory=list)


def create(
    config: Config,
    bundle: Path,
    *,
    rootfs: Rootfs | None = None,
    stdio: tuple[int, int, int] | None = None,
    cgroup: Cgroup | None = None,
    seccomp: bytes | None = None,
    gate: Path | None = None,
    preserve_fds: int = 0,
    no_pivot: bool = False,
    reaper: bool = False,
    die_with_parent: bool = False,
    state: Callable[[int], dict[str, Any]] | None = None,
    in_runtime_namespace: Callable[[int], None] | None = None,
) -> Created:
    """Make the container that `config` describes, up to the gate or, without one, until its program runs.

    The caller has one thread. It made `cgroup` (`Cgroup.create`), whose limits (`linux.resources`) are
    applied here; None leaves the container in the caller's. On any failure the child is dead and reaped; removing the cgroup is
    always the caller's.

    - `rootfs`: the overlay to mount as the root; None takes `root.path`, relative to `bundle`.
    - `stdio`: descriptors that become 0, 1 and 2; None inherits the caller's. With `process.terminal` it is
      not looked at: a terminal is made in the container and its master is `Created.console`.
    - `seccomp`: the compiled `linux.seccomp`; compiled here when None.
    - `gate`: a FIFO. `create` returns when all is ready; the program is executed when someone writes a byte
      into the FIFO. What fails then goes to the container's stderr, with exit code 126 or 127.
    - `preserve_fds`: descriptors 3 … 3+n-1 stay open in the container.
    - `no_pivot`: move the root onto `/` instead of pivot_root(2), for an initramfs.
    - `reaper`: process 1 is a small one of ours that executes the program as its child, passes signals on and
      collects orphans (`--init`).
    - `die_with_parent`: the container is killed when the calling process dies.
    - `state`: makes the OCI state document for the hooks that run inside, given the container's pid.
    - `in_runtime_namespace`: called with the pid once namespaces and mounts are there and before the root is
      changed: the place of the `prestart` and `createRuntime` hooks. What it raises aborts the start.

    Raises StartFailed (`exit_code` 127: no such program; 126: not executable; 125: the rest).
    """
    raise NotImplementedError
