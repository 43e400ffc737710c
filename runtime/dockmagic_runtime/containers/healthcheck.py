"""The `Healthcheck` of an image or a container: what is run, how often, and what Docker accepts there.

{"Test": ["CMD", …] | ["CMD-SHELL", line] | ["NONE"], "Interval", "Timeout", "StartPeriod",
 "StartInterval" (nanoseconds, 0 for the default), "Retries"}
"""

from typing import Any

from dockmagic_runtime.errors import InvalidParameter

Json = dict[str, Any]

_SECOND = 1_000_000_000

DEFAULTS = {
    "Interval": 30 * _SECOND,
    "Timeout": 30 * _SECOND,
    "StartPeriod": 0,
    "StartInterval": 5 * _SECOND,
    "Retries": 3,
}


def command(config: Json) -> list[str]:
    """What is to be run; empty if nothing checks the health of a container with this `Config`."""
    match (config.get("Healthcheck") or {}).get("Test"):
        case ["CMD", *argv]:
            return argv
        case ["CMD-SHELL", line, *_]:
            return [*(config.get("Shell") or ("/bin/sh", "-c")), line]
    return []


def check(given: Json | None) -> None:
    """The types and ranges of a Healthcheck; raises InvalidParameter in Docker's words."""
    if not given:
        return
    test = given.get("Test")
    if test is not None and not (isinstance(test, list) and all(isinstance(word, str) for word in test)):
        raise InvalidParameter("invalid JSON: Healthcheck.Test must be an array of strings")
    if test and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidParameter(f"Unknown type {test[0]} in Healthcheck (try CMD)")
    for name in DEFAULTS:
        value = given.get(name) or 0
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidParameter(f"invalid JSON: Healthcheck.{name} must be a number")
        if name == "Retries":
            if value < 0:
                raise InvalidParameter("Retries in Healthcheck cannot be negative")
        elif value and value < 1_000_000:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")


def merge(given: Json | None, image: Json | None) -> Json | None:
    """A container's check: the image's, with whatever the user says of it."""
    if not given or not image:
        return given or image
    return {**image, **{name: value for name, value in given.items() if value}}
