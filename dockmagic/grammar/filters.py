"""`--filter key=value`, and the times of `--since` and `--until`."""

import json
import re
import time
from datetime import datetime

from dockmagic.grammar.kinds import Kind, duration

Filter = tuple[str, str]


def filter_(text: str) -> Filter:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


def encoded(filters: tuple[Filter, ...]) -> str | None:
    """The `filters` parameter of the API; None (left out) when there is none."""
    if not filters:
        return None
    return json.dumps(grouped(filters))


def grouped(filters: tuple[Filter, ...]) -> dict[str, list[str]]:
    """The values of each key."""
    result: dict[str, list[str]] = {}
    for key, value in filters:
        result.setdefault(key, []).append(value)
    return result


def moment(text: str) -> str:
    """Seconds since 1970, to the nanosecond: of a date, of seconds, of `42m` (ago)."""
    try:
        return f"{time.time() - duration(text) / 10**9:.9f}"
    except ValueError:
        pass  # no duration, so a date or seconds
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        return text
    # A date; digits after its seconds are kept as they are, Python knows only six.
    found = re.fullmatch(r"([^.]*)(?:\.(\d{1,9}))?(.*)", text, re.DOTALL)
    assert found  # which any text does
    date, fraction, zone = found.groups()
    try:
        seconds = datetime.fromisoformat(date + zone).timestamp()
    except ValueError:
        raise ValueError(f'failed to parse value as time or duration: "{text}"') from None
    return f"{int(seconds)}.{fraction or '0'}"


FILTER = Kind("filter", filter_)
MOMENT = Kind("time", moment)
