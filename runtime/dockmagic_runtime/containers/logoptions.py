"""`--log-driver` and `--log-opt`: which drivers there are, which options each knows, and what they mean.

Names are checked when a container is created and values when it starts, as Docker does it, in its words.
"""

import re
from dataclasses import dataclass
from typing import Any

from dockmagic_runtime.errors import InvalidParameter, NotImplementedHere

Json = dict[str, Any]

_COMMON = {"mode", "max-buffer-size"}
_ROTATION = {"max-size", "max-file", "compress"}
_KNOWN = {
    "json-file": _COMMON | _ROTATION | {"labels", "labels-regex", "env", "env-regex", "tag"},
    "local": _COMMON | _ROTATION,
}
_ELSEWHERE = (
    *("awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "logentries", "splunk", "syslog"),
)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def check(driver: str, options: dict[str, str]) -> None:
    """Raises InvalidParameter for an unknown driver or option, NotImplementedHere for drivers of Docker's."""
    if driver == "none":
        return
    if driver in _ELSEWHERE:
        raise NotImplementedHere(
            f"the logging driver {driver} is not supported by this engine: use json-file, local or none"
        )
    if driver not in _KNOWN:
        raise InvalidParameter(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    mode = options.get("mode", "blocking")
    if mode not in ("blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidParameter(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        try:
            size_in_bytes(options["max-buffer-size"])
        except InvalidParameter as error:
            raise InvalidParameter(f"error parsing option max-buffer-size: {error}") from None
    for option in options:
        if option not in _KNOWN[driver]:
            which = "json-file log driver" if driver == "json-file" else f"log driver {driver}"
            raise InvalidParameter(f"unknown log opt '{option}' for {which}")


@dataclass(frozen=True)
class Rotation:
    """When the log's file is full (None: never), and how many files there are then."""

    size: int | None
    files: int


def rotation(driver: str, options: dict[str, str]) -> Rotation:
    """Raises InvalidParameter, in the words in which Docker refuses the start.

    What is no longer written to is kept as it is: `compress` is checked and saves no space.
    """
    try:
        return _local(options) if driver == "local" else _json_file(options)
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to initialize logging driver: {error}") from None


def _json_file(options: dict[str, str]) -> Rotation:
    size = size_in_bytes(options["max-size"]) if "max-size" in options else None
    if size is not None and size <= 0:
        raise InvalidParameter("max-size must be a positive number")
    files = _number(options.get("max-file", "1"))
    if files < 1:
        raise InvalidParameter("max-file cannot be less than 1")
    if _flag(options.get("compress", "false")) and (files < 2 or size is None):
        raise InvalidParameter("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Rotation(size, files)


def _local(options: dict[str, str]) -> Rotation:
    asked = options.get("max-size", "20m")
    try:
        size = size_in_bytes(asked)
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid value for max-size: {asked}: {error}") from None
    files = _number(options.get("max-file", "5"))
    if _flag(options.get("compress", "true")) and files <= 1:
        raise InvalidParameter("compression cannot be enabled when max file count is 1")
    if files < 1:
        raise InvalidParameter("max-file cannot be less than 1")
    return Rotation(size or None, files)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax') from None


def _flag(text: str) -> bool:
    """Go's strconv.ParseBool."""
    if text not in ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"):
        raise InvalidParameter(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in ("1", "t", "T", "TRUE", "true", "True")


def size_in_bytes(text: str) -> int:
    """go-units' RAMInBytes: `10m`, `1.5GiB`, `2kb`; raises InvalidParameter."""
    lower = text.strip().lower()
    number = lower.rstrip("ib").rstrip("kmgtp")
    unit = lower[len(number) :].removesuffix("b").removesuffix("i")
    if unit not in _UNITS or not re.fullmatch(r"\d+(\.\d+)? ?", number):
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(number) * _UNITS[unit])
