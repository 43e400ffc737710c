"""Sizes, ages and short ids in the words Docker's own tables use."""

from __future__ import annotations

from datetime import UTC, datetime

DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float, *, digits: int = 3) -> str:
    """Bytes in powers of 1000, as `docker images` and `docker ps --size` print them: `1.98MB`."""
    return _scaled(count, 1000, DECIMAL, digits)


def memory(count: float) -> str:
    """Bytes in powers of 1024, as `docker stats` prints memory: `3.25MiB`."""
    return _scaled(count, 1024, BINARY, 4)


def _scaled(count: float, base: int, names: tuple[str, ...], digits: int) -> str:
    value, unit = float(count), 0
    # Rounding can reach the base (999.9 kB is 1 MB at three digits): decide on the rounded value.
    while float(f"{value:.{digits}g}") >= base and unit < len(names) - 1:
        value, unit = value / base, unit + 1
    return f"{float(f'{value:.{digits}g}'):.{digits + 1}g}{names[unit]}"


def duration(seconds: float) -> str:
    """A length of time in Docker's words: `Less than a second`, `About a minute`, `3 weeks`."""
    whole = int(seconds)
    minutes, hours = int(seconds / 60), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"


def moment(value: str | float | None) -> datetime | None:
    """The API's times, RFC 3339 with nanoseconds or seconds since 1970; None for Docker's zero time."""
    if value is None or value == "" or (isinstance(value, str) and value.startswith("0001-01-01")):
        return None
    if not isinstance(value, str):
        return datetime.fromtimestamp(value, UTC)
    head, dot, tail = value.partition(".")
    if dot:
        digits = tail.rstrip("Zz").split("+")[0].split("-")[0]
        value = f"{head}.{digits[:6].ljust(6, '0')}{tail[len(digits) :]}"
    return datetime.fromisoformat(value.replace("Z", "+00:00"))


def ago(value: str | float | None, now: datetime | None = None) -> str:
    """How long ago, in Docker's words: `2 hours ago`; `N/A` where there is no time."""
    then = moment(value)
    if then is None:
        return "N/A"
    return f"{duration(((now or datetime.now(UTC)) - then).total_seconds())} ago"


def clock(value: str | float | None) -> str:
    """A time of day to the second, UTC: `2024-05-01 12:30:05 UTC`; `never` where there is no time."""
    then = moment(value)
    return then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if then else "never"


def stamp(value: str | float | None) -> str:
    """A time as Go prints it, which `--format '{{.CreatedAt}}'` shows: `2024-05-01 12:30:05 +0000 UTC`."""
    then = moment(value)
    if then is None:
        return "0001-01-01 00:00:00 +0000 UTC"
    local = then if isinstance(value, str) else then.astimezone()
    fraction = value.partition(".")[2].rstrip("Z").rstrip("0") if isinstance(value, str) else ""
    return f"{local:%Y-%m-%d %H:%M:%S}{f'.{fraction}' if fraction else ''} {local:%z %Z}"


def short(identity: str) -> str:
    """The first twelve digits of an id or digest, as Docker's tables show it."""
    return identity.removeprefix("sha256:")[:12]


def shorten(text: str, width: int) -> str:
    """One line of at most `width` characters, its end replaced by `…` when something is left out."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def visible(name: str) -> str:
    """A file's name on one line: what cannot be shown (a line's end, bytes that are no text) escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)
