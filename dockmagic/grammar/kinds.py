"""What the values of flags are, read as Go reads them for Docker: numbers, sizes, durations.

A kind is a click type made of one function from the word to its meaning. The function raises ValueError with
the reason; the sentence around it is pflag's, the same for every flag.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import click

from dockmagic.grammar.flags import bad_value


class Kind(click.ParamType):
    """A click type that reads a word with `read`. `name` is what help shows in the value's place."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises UsageMistake."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            raise bad_value(value, param, str(error)) from None


def integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def unsigned(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kKmMgGtTpP])?[iI]?[bB]?")


def size(text: str) -> int:
    """Bytes with a suffix: `64m`, `1.5GiB`, `512`; powers of 1024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** " kmgtp".index((match[2] or " ").lower()))


_UNITS = {
    "h": 3600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "µs": 10**3,
    "ns": 1,
}


def duration(text: str) -> int:
    """Nanoseconds of Go's `1m30s`, `500ms`."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        match = re.match(r"(\d+\.?\d*|\.\d+)([^\d.]*)", rest)
        if match is None:
            raise ValueError(f'time: invalid duration "{text}"')
        number, unit = match.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += int(Fraction(number if number[0] != "." else f"0{number}") * _UNITS[unit])
        rest = rest[match.end() :]
    return sign * total


def cpus(text: str) -> int:
    """Billionths of a CPU."""
    try:
        nano = Fraction(text) * 10**9
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if nano.denominator != 1:
        raise ValueError("value is too precise")
    return int(nano)


INTEGER = Kind("int", integer)
UNSIGNED = Kind("uint", unsigned)
SIZE = Kind("bytes", size)
SIZE_OR_UNLIMITED = Kind("bytes", lambda text: -1 if text == "-1" else size(text))
DURATION = Kind("duration", duration)
CPUS = Kind("decimal", cpus)
