"""Sizes and ages in Docker's words: the expected values are what the docker command prints."""

from datetime import UTC, datetime, timedelta

import pytest

from dockmagic.views import units


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0B"),
        (1, "1B"),
        (999, "999B"),
        (1000, "1kB"),
        (1_981_234, "1.98MB"),
        (187_000_000, "187MB"),
        (999_900, "1MB"),
        (1_096_000_000, "1.1GB"),
    ],
)
def test_size(count: int, words: str) -> None:
    assert units.size(count) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0B"), (532_480, "520KiB"), (3_407_872, "3.25MiB"), (2 * 2**30, "2GiB"), (1_061_158, "1.012MiB")],
)
def test_memory(count: int, words: str) -> None:
    assert units.memory(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (86400 * 2, "2 days"),
        (86400 * 20, "2 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert units.duration(seconds) == words


def test_times_of_the_api() -> None:
    then = datetime(2024, 5, 1, 12, 30, 5, 123456, UTC)
    assert units.moment("2024-05-01T12:30:05.123456789Z") == then
    assert units.moment("2024-05-01T14:30:05.123456789+02:00") == then
    assert units.moment(then.timestamp()) == then
    assert units.moment("0001-01-01T00:00:00Z") is None
    assert units.clock("0001-01-01T00:00:00Z") == "never"
    assert units.clock("2024-05-01T14:30:05+02:00") == "2024-05-01 12:30:05 UTC"
    assert units.ago("2024-05-01T12:30:05Z", then + timedelta(hours=3)) == "3 hours ago"
    assert units.ago(None) == "N/A"


def test_shortened_lines_keep_to_their_width() -> None:
    assert units.shorten("a  b\n c", 10) == "a b c"
    assert units.shorten("0123456789", 5) == "0123…"
    assert units.short("sha256:" + "ab" * 32) == "abababababab"
