"""What the engine holds of a container beyond its record: handles that end with the engine or the container.

All of it can be had again after a restart, from the shim's socket; nothing here is written down.
"""

import asyncio
from dataclasses import dataclass, field

from dockmagic_runtime.process.client import Attachment, Shim


@dataclass
class Live:
    """The handles of one container; made for every record, mostly empty while it does not run."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shim: Shim | None = None
    watcher: asyncio.Task[None] | None = None
    release: asyncio.Task[None] | None = None
    cleaned: "asyncio.Future[None] | None" = None  # the last run's shim has taken its group and mounts away
    stopping: bool = False  # the user asked for the end: no restart policy applies
    restart: asyncio.Task[None] | None = None  # waits until it is time for it, then starts the container
    restart_delay: float = 0.0  # seconds, of the last one
    no_restart: asyncio.Event = field(default_factory=asyncio.Event)  # it need not wait any longer
    # Clients that attached before the start (as `docker run` does), handed to the shim when it comes.
    waiting_attachments: list[Attachment] = field(default_factory=list)
    exit_waiters: list[asyncio.Future[int]] = field(default_factory=list)
    removal_waiters: list[asyncio.Future[int]] = field(default_factory=list)

    def tell_exit(self, code: int) -> None:
        waiters, self.exit_waiters = self.exit_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(code)

    def tell_removal(self, code: int) -> None:
        self.tell_exit(code)
        waiters, self.removal_waiters = self.removal_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(code)
