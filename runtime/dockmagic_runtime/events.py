"""The engine's event stream: what happened to which object, for `docker events` and live views.

A bus with a short memory: the last `HISTORY` events can be asked for again (`since`), as Docker keeps
the last 256 of its own. Nothing here waits: a subscriber that falls behind by more than `BACKLOG` events
is cut off, so that one stuck client can't hold the engine's memory.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from dockmagic_runtime.filters import Filters, has_label

HISTORY = 256
BACKLOG = 4096

FILTERS = frozenset(
    (
        *("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope"),
        *("secret", "service", "type", "volume"),
    )
)
"""What `docker events --filter` knows."""

Event = dict[str, Any]
Predicate = Callable[[Event], bool]


class EventBus:
    """Publish, and subscribe from now or from some time ago."""

    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._subscribers: set[asyncio.Queue[Event | None]] = set()

    @property
    def listeners(self) -> int:
        return len(self._subscribers)

    def publish(
        self, kind: str, action: str, actor_id: str, attributes: dict[str, str] | None = None
    ) -> None:
        """Tell all subscribers; `kind` is Docker's event type (container, image, network, volume, …)."""
        nanoseconds = time.time_ns()
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor_id, "Attributes": attributes or {}},
            "scope": "local",
            "time": nanoseconds // 1_000_000_000,
            "timeNano": nanoseconds,
        }
        if kind in ("container", "image"):
            # The pre-1.22 form, which clients still read.
            event |= {"status": action, "id": actor_id}
            if kind == "container":
                event["from"] = event["Actor"]["Attributes"].get("image", "")
        self._history.append(event)
        for queue in list(self._subscribers):
            if queue.qsize() >= BACKLOG:
                self._subscribers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def subscribe(
        self, matches: Predicate, since: int | None = None, until: int | None = None
    ) -> AsyncIterator[Event]:
        """Events that match, from `since` to `until` (nanoseconds since the epoch; None: now, for ever)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            if since is not None:
                for event in list(self._history):
                    in_time = since <= event["timeNano"] and (until is None or event["timeNano"] <= until)
                    if in_time and matches(event):
                        yield event
            while True:
                left = None if until is None else until / 1e9 - time.time()
                if left is not None and left <= 0:
                    return
                try:
                    following = await asyncio.wait_for(queue.get(), left)
                except TimeoutError:
                    return
                if following is None:
                    return
                if matches(following):
                    yield following
        finally:
            self._subscribers.discard(queue)


def fits(event: Event, filters: Filters) -> bool:
    """Docker's filters of events: each must hold, by one of its values; a label by all of them."""
    actor = event["Actor"]
    attributes = actor["Attributes"]
    for name, values in filters.items():
        if name == "type":
            matching = event["Type"] in values
        elif name == "event":
            matching = any(
                event["Action"] == value or event["Action"].startswith(f"{value}:") for value in values
            )
        elif name == "label":
            matching = all(has_label(attributes, value) for value in values)
        elif name == "scope":
            matching = event["scope"] in values
        elif name == "image" and event["Type"] == "container":
            matching = any(
                attributes.get("image", "").partition(":")[0] == value.partition(":")[0] for value in values
            )
        else:
            matching = event["Type"] == name and any(
                actor["ID"].startswith(value) or attributes.get("name") == value.removeprefix("/")
                for value in values
            )
        if not matching:
            return False
    return True
