"""Docker's progress messages: the JSON objects that pull, push and load stream to their client."""

import time
from collections.abc import Callable
from typing import Any

Progress = Callable[[dict[str, Any]], None]

_INTERVAL = 0.1
"""Seconds between two updates of one layer: ten a second are enough for an eye."""
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def status(progress: Progress, text: str, layer: str = "") -> None:
    """One line; with `layer` (a short ID) the state of that layer's line."""
    progress({"status": text, "progressDetail": {}, "id": layer} if layer else {"status": text})


class Meter:
    """Turns bytes as they come into updates at a bearable rate."""

    def __init__(self, progress: Progress, text: str, layer: str, total: int) -> None:
        self._progress = progress
        self._text = text
        self._layer = layer
        self._total = total
        self._next = 0.0

    def at(self, current: int) -> None:
        """`current` of the total bytes are done; the last one is always told."""
        now = time.monotonic()
        if now < self._next and current < self._total:
            return
        self._next = now + _INTERVAL
        self._progress(
            {
                "status": self._text,
                "progressDetail": {"current": current, "total": self._total},
                "progress": bar(current, self._total),
                "id": self._layer,
            }
        )


def bar(current: int, total: int) -> str:
    """`[=====>     ]  1.2MB/9.8MB`, to the character as Docker draws it."""
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{human_size(current):>8}"
    half_percents = min(current * 100 // total // 2, 50)
    numbers = f"{human_size(current):>8}"
    if current <= total:
        numbers += f"/{human_size(total)}"
    return f"[{'=' * half_percents}>{' ' * (50 - half_percents)}] {numbers}"


def human_size(size: float) -> str:
    """Four significant digits and a decimal unit, as go-units writes sizes."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{_UNITS[unit]}"


def short(digest: str) -> str:
    """The twelve digits that name a layer in progress lines."""
    return digest.removeprefix("sha256:")[:12]
