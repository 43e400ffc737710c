"""From lines of a container's log to what a client gets of them.

One line of a log file is `{"log": "…\\n", "stream": "stdout", "time": "…"}` (Docker's json-file driver). A
client gets the text, in Docker's frames (one for each line) unless it came from a terminal. Lines are taken
many at a time: a block of them is one JSON array but for its brackets and commas, and so the whole way from
the file to the socket is a few calls per block.
"""

import json
import struct
import urllib.parse
from dataclasses import dataclass
from typing import Any

from dockmagic_runtime import timestamps

Json = dict[str, Any]

_NUMBERS = {"stdout": 1, "stderr": 2}
_header = struct.Struct(">BxxxI").pack
# `{"log":"` the text `\n","stream":"stdout","time":"` thirty characters `"}`
_BETWEEN = b'\\n","stream":"stdout","time":"'
_TEXT, _TIME = len('{"log":"'), 30 + len('"}')
_AFTER = len(_BETWEEN) + _TIME
_LAST = 253_402_300_799 * 10**9  # of the year 9999


@dataclass(frozen=True)
class LogQuery:
    """`docker logs` options; times in nanoseconds since the epoch, 0 for none; `tail` None for all.

    `framed`: Docker's eight bytes before each line, which a terminal's output does not have.
    """

    stdout: bool = True
    stderr: bool = True
    tail: int | None = None
    since: int = 0
    until: int = 0
    timestamps: bool = False
    details: bool = False
    framed: bool = True


class Rendering:
    """From lines of a log file to what the client gets. `over`: a line later than `until` has been seen."""

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._since, self._until = _moment(query.since), _moment(query.until)
        self._streams = {
            name for name, wanted in (("stdout", query.stdout), ("stderr", query.stderr)) if wanted
        }
        self._plain = query.stdout and not (query.since or query.until or query.timestamps or query.details)
        self._plain = self._plain and query.framed
        self.over = False

    def of(self, lines: bytes) -> bytes:
        if self._plain and (quick := _frames(lines)):
            return quick
        query, entries = self._query, _entries(lines)
        if query.since or query.until or len(self._streams) < 2:
            entries = self._selected(entries)
        if query.timestamps or query.details:
            for entry in entries:
                entry["log"] = self._prefix(entry) + entry["log"]
        texts = [entry["log"].encode("utf-8", "surrogateescape") for entry in entries]
        if not query.framed:
            return b"".join(texts)
        numbers = [_NUMBERS[entry["stream"]] for entry in entries]
        return b"".join(
            [_header(number, len(text)) + text for number, text in zip(numbers, texts, strict=True)]
        )

    def _selected(self, entries: list[Json]) -> list[Json]:
        if self._query.until:
            count = len(entries)
            entries = [entry for entry in entries if _nine_digits(entry["time"]) <= self._until]
            self.over = len(entries) < count
        if self._query.since:
            entries = [entry for entry in entries if _nine_digits(entry["time"]) >= self._since]
        return [entry for entry in entries if entry["stream"] in self._streams]

    def _prefix(self, entry: Json) -> str:
        prefix = f"{_nine_digits(entry['time'])} " if self._query.timestamps else ""
        return f"{prefix}{_details(entry.get('attrs') or {})} " if self._query.details else prefix


def _frames(lines: bytes) -> bytes | None:
    """The frames of lines of stdout with nothing in them to be decoded, which most logs consist of."""
    each = lines.splitlines()
    if lines.count(b"\\") != len(each):
        return None  # more than the newlines at the ends is escaped
    texts = [line[_TEXT:-_AFTER] for line in each if line[-_AFTER:-_TIME] == _BETWEEN]
    if len(texts) != len(each):
        return None
    return b"".join([_header(1, len(text) + 1) + text + b"\n" for text in texts])


def _entries(lines: bytes) -> list[Json]:
    try:
        entries: list[Json] = json.loads(b"[" + lines[:-1].replace(b"\n", b",") + b"]")
    except ValueError:
        entries = [entry for line in lines.splitlines() if (entry := _entry(line))]
    return entries


def _entry(line: bytes) -> Json | None:
    """None for what a full disk or a crash of the machine has left of a line."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"log", "stream", "time"} <= entry.keys() else None


def _details(attrs: dict[str, str]) -> str:
    quote = urllib.parse.quote_plus
    return ",".join(f"{quote(name)}={quote(value)}" for name, value in sorted(attrs.items()))


def _moment(nanoseconds: int) -> str:
    """As times stand in the log, where earlier ones are less as strings, too."""
    return _nine_digits(timestamps.render(min(max(nanoseconds, 0), _LAST)))


def _nine_digits(moment: str) -> str:
    """Times of the same length, so that lines stand in columns, as `docker logs -t` prints them."""
    if len(moment) == 30:
        return moment
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    return f"{whole}.{fraction.ljust(9, '0')}Z"
