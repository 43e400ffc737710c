"""Docker's timestamps: RFC 3339 in UTC with nanoseconds, trailing zeros dropped as Go's RFC3339Nano does."""

import calendar
import re
import time

NEVER = "0001-01-01T00:00:00Z"

_RFC3339 = re.compile(r"([0-9]{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_UNIX = re.compile(r"(-?[0-9]+)(?:\.([0-9]*))?")
_LONGEST = 64  # characters of any moment that means something


def now() -> str:
    return render(time.time_ns())


def render(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as RFC3339Nano."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else text + "Z"


def parse(text: str) -> int:
    """RFC 3339, or Unix seconds with an optional fraction, as nanoseconds since the epoch.

    Raises ValueError for anything else.
    """
    match = _RFC3339.fullmatch(text)
    if not match:
        unix = _UNIX.fullmatch(text)
        if not unix or len(text) > _LONGEST:
            raise ValueError(f"no time: {text[:_LONGEST]}")
        return int(unix[1]) * 1_000_000_000 + int((unix[2] or "")[:9].ljust(9, "0"))
    seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    zone = match[3] or "Z"
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds * 1_000_000_000 + int((match[2] or ".0")[1:10].ljust(9, "0"))


_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h)"
_DURATION = re.compile(rf"([+-]?)((?:{_PART})+)")


def parse_relative(text: str) -> int:
    """Like `parse`, or a Go duration (`24h`, `1h30m`, `1.5s`) before now. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if not match or len(text) > _LONGEST:
        return parse(text)
    ago = sum(int(float(number) * _UNITS[unit]) for number, unit in re.findall(_PART, match[2]))
    return time.time_ns() - (-ago if match[1] == "-" else ago)
