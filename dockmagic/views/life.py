"""A container's life in words: its state, what its health check says, and how often it was started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dockmagic.views.parts import Cell
from dockmagic.views.units import shorten

STATES = {
    "created": Cell("○ created", "muted"),
    "running": Cell("● running", "good"),
    "paused": Cell("‖ paused", "warn"),
    "restarting": Cell("↻ restarting", "warn"),
    "removing": Cell("○ removing", "muted"),
    "removed": Cell("○ removed", "muted"),
    "dead": Cell("✗ dead", "bad"),
}
# What `docker ps` writes in brackets after a state.
HEALTH = {
    "starting": Cell("health starting", "warn"),
    "healthy": Cell("healthy", "good"),
    "unhealthy": Cell("unhealthy", "bad"),
}


def status(state: Mapping[str, Any]) -> Cell:
    """A container's state: a sign, a word, and what else there is to say."""
    word = state.get("Status") or ""
    if word == "exited":
        code = state.get("ExitCode", 0)
        reason = ", out of memory" if state.get("OOMKilled") else ""
        if code == 0 and not reason:
            return Cell(f"■ exited with code {code}", "muted")
        return Cell(f"✗ exited with code {code}{reason}", "bad")
    known = STATES.get(word, Cell(word))
    health = HEALTH.get((state.get("Health") or {}).get("Status") or "")
    return Cell(f"{known.words}, {health.words}", health.tone) if health and word == "running" else known


def checks(state: Mapping[str, Any]) -> str | None:
    """What the health check found last; None where there is no check."""
    health = state.get("Health") or {}
    if health.get("Status") in (None, "", "none"):
        return None
    log = health.get("Log") or []
    if not log:
        return "not checked yet"
    code, failed = log[-1].get("ExitCode", 0), health.get("FailingStreak") or 0
    words = "the last check passed" if code == 0 else f"the last check ended with code {code}"
    if failed > 1:
        words += f", the {_ordinal(failed)} failure in a row"
    said = shorten((log[-1].get("Output") or "").strip(), 80)
    return f"{words}: {said}" if said else words


def restarts(attrs: Mapping[str, Any]) -> str | None:
    """The restart policy and how often it acted; None where it says not to."""
    policy = (attrs.get("HostConfig") or {}).get("RestartPolicy") or {}
    name = policy.get("Name") or "no"
    if name == "no":
        return None
    most, count = policy.get("MaximumRetryCount") or 0, attrs.get("RestartCount") or 0
    limit = f", {_times(most)} at most" if most else ""
    return f"{name}{limit}; so far {_times(count) if count else 'never'}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _ordinal(count: int) -> str:
    ending = "th" if count % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"
