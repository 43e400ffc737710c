"""One engine per data root: a lock that dies with its holder (flock(2))."""

import fcntl
import os

from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.errors import Conflict, SystemFailure


def claim(config: EngineConfig) -> int:
    """Take the data root for this process alone; the lock lives as long as the returned descriptor.

    Raises SystemFailure if the directory can't be written to, Conflict if another engine has it.
    """
    try:
        config.data_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        config.run_root.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(config.data_root / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SystemFailure(
            f"cannot use the data root {config.data_root}: {error.strerror}; choose another with --data-root"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode() or "?"
        os.close(lock)
        raise Conflict(
            f"another engine (process {holder}) uses the data root {config.data_root}; "
            "stop it or choose another with --data-root"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock
