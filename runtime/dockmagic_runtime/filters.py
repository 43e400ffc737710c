"""Docker's filters, `--filter label=a=b`: how they come, and those that mean the same of every noun.

They stand on the parameter `filters` of the Docker Engine API. What else a noun is filtered by is its own.
"""

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from dockmagic_runtime import timestamps
from dockmagic_runtime.errors import InvalidParameter

Filters = Mapping[str, Sequence[str]]
"""Values by the filter's name: `{"label": ["a=b"], "dangling": ["true"]}`."""


def decoded(given: object) -> dict[str, list[str]]:
    """Filters from JSON of today's form ({"a": {"b": true}}) or that of API 1.21 ({"a": ["b"]}).

    Raises InvalidParameter.
    """
    if not isinstance(given, dict):
        raise InvalidParameter(f"invalid filter: {json.dumps(given)}")
    return {name: _values(name, values) for name, values in given.items()}


def _values(name: str, values: object) -> list[str]:
    if isinstance(values, dict):
        values = [value for value, wanted in values.items() if wanted]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidParameter(f"invalid filter '{name}'")
    return values


def check(filters: Filters, accepted: Collection[str]) -> None:
    """Raises InvalidParameter with Docker's sentence for a filter that is not one of `accepted`."""
    if unknown := set(filters).difference(accepted):
        raise InvalidParameter(f"invalid filter '{min(unknown)}'")


def boolean(filters: Filters, name: str) -> bool | None:
    """The value of a true/false filter, None if it was not given."""
    values = {value.lower() for value in filters.get(name, ())}
    if not values:
        return None
    if values <= {"1", "true", "t"}:
        return True
    if values <= {"0", "false", "f"}:
        return False
    raise InvalidParameter(f"invalid filter '{name}={sorted(values)}'")


def fits_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """The filters `label` (all of them) and, where something is pruned, `label!` (none of them)."""
    return all(has_label(labels, each) for each in filters.get("label", ())) and not any(
        has_label(labels, each) for each in filters.get("label!", ())
    )


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether `labels` has the key, or the key with the value, that `key[=value]` asks for."""
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def point_in_time(text: str) -> int:
    """Docker's `until`: a Unix time, a date, or how long ago (`1h30m`), as nanoseconds since the epoch."""
    with contextlib.suppress(ValueError):
        return timestamps.parse_relative(text)
    try:
        return int(moment(text).timestamp() * 10**9)
    except (ValueError, OverflowError):
        raise InvalidParameter(f'parsing time "{text}": not a time, a date or a duration') from None


def moment(text: str) -> datetime:
    """A date or time of ISO 8601, in UTC where it does not say in which zone. Raises ValueError."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
