"""Docker's timestamps: RFC 3339 in UTC with nanoseconds, trailing zeros dropped as Go's RFC3339Nano does."""

import calendar
import re
import time

NEVER = "0001-01-01T00:00:00Z"

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?$")


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
    match = _RFC3339.match(text)
    if not match:
        whole, _, fraction = text.partition(".")
        return int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)
    seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    zone = match[3] or "Z"
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds * 1_000_000_000 + int((match[2] or ".0")[1:10].ljust(9, "0"))


_UNITS = {"h": 3600, "m": 60, "s": 1}


def parse_relative(text: str) -> int:
    """Like `parse`, or a Go duration (`24h`, `1h30m`) before now. Raises ValueError."""
    if re.fullmatch(r"(\d+[hms])+", text):
        ago = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", text))
        return time.time_ns() - ago * 1_000_000_000
    return parse(text)
