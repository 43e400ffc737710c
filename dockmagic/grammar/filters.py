"""`--filter key=value`, and the times of `--since` and `--until`."""

import json
import time

from dockmagic.errors import UsageMistake
from dockmagic.grammar.syntax import DURATION


def encoded(filters: tuple[str, ...]) -> str | None:
    """The `filters` parameter of the API; None (left out) when there is none."""
    if not filters:
        return None
    result: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageMistake(
                f'invalid argument "{text}" for "--filter" flag: invalid filter \'{text}\': '
                "must be in the form of name=value",
                exit_code=125,
            )
        result.setdefault(key.strip().lower(), []).append(value.strip())
    return json.dumps(result)


def timestamp(text: str) -> str:
    """Seconds since 1970 for `42m` (ago); other times are the engine's to read."""
    try:
        return f"{time.time() - DURATION.convert(text, None, None) / 10**9:.9f}"
    except UsageMistake:
        pass  # no duration, so a date or seconds
    if text.replace(".", "", 1).isdigit():
        return text
    from datetime import datetime

    try:
        return f"{datetime.fromisoformat(text.replace('Z', '+00:00')).timestamp():.9f}"
    except ValueError:
        raise UsageMistake(f'invalid value for "since" or "until": {text}') from None
