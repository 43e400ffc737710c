"""Restart policies: whether a container that has ended is to be started again, and after how long.

Docker's four: `no`; `on-failure[:N]`, while the exit code is not 0 and at most N times in a row; `always`;
`unless-stopped`. They differ in what happens when the *engine* starts: `always` (and `on-failure` after a
failure) comes up again even if somebody had stopped it, `unless-stopped` does not. While the engine runs,
what a user stops or kills stays down under every policy.
"""

from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.errors import InvalidParameter

Json = dict[str, Any]

NAMES = ("no", "always", "on-failure", "unless-stopped")

_FIRST_DELAY = 0.1  # seconds; doubled each time
_LONGEST_DELAY = 60.0
_STABLE = 10_000_000_000  # nanoseconds of running after which the delays begin anew


def check(policy: Json, *, auto_remove: bool) -> None:
    """Raises InvalidParameter in Docker's words."""
    name, count = policy.get("Name") or "", policy.get("MaximumRetryCount") or 0
    if not isinstance(name, str) or isinstance(count, bool) or not isinstance(count, int):
        raise InvalidParameter(
            "invalid JSON: RestartPolicy is a Name (string) and a MaximumRetryCount (number)"
        )
    if name and name not in NAMES:
        known = "', '".join(NAMES[:-1])
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{name}'; use one of '{known}', or '{NAMES[-1]}'"
        )
    if name == "on-failure":
        if count < 0:
            raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    elif name and count:
        negative = " and cannot be negative" if count < 0 else ""
        raise InvalidParameter(
            f"invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
        )
    if auto_remove and name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def wanted(container: Container) -> bool:
    """By its policy alone, for a container that has ended (or, when the engine starts, does not run)."""
    policy = container.host_config["RestartPolicy"]
    match policy.get("Name"):
        case "always":
            return True
        case "unless-stopped":
            return not container.manually_stopped
        case "on-failure":
            most = policy.get("MaximumRetryCount") or 0
            return container.state.exit_code != 0 and (most == 0 or container.restart_count < most)
    return False


def delay_after(container: Container, last: float) -> float:
    """Seconds to wait before the next start; `last` is the previous wait, 0 if there was none."""
    state = container.state
    if timestamps.parse(state.finished_at) - timestamps.parse(state.started_at) >= _STABLE:
        last = 0.0
    return min(last * 2, _LONGEST_DELAY) if last else _FIRST_DELAY
