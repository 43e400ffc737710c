"""The json-file log."""

import json
from pathlib import Path

from dockmagic_runtime.process.logfile import LINE_LIMIT, JsonLog
from hypothesis import given
from hypothesis import strategies as st


def _entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_pieces_and_the_end(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"))
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"other\n")
    log.write("stdout", b"o\n" + b"x" * (LINE_LIMIT + 5))
    log.finish("stdout")
    log.close()
    found = [(e["stream"], e["log"]) for e in _entries(tmp_path / "log")]
    assert found == [
        ("stdout", "one\n"),
        ("stderr", "other\n"),
        ("stdout", "two\n"),
        ("stdout", "x" * LINE_LIMIT),
        ("stdout", "x" * 5),
    ]


@given(st.lists(st.binary(max_size=60)))
def test_the_log_gives_back_every_byte(chunks: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "log")
        log = JsonLog(str(path))
        for chunk in chunks:
            log.write("stdout", chunk)
        log.finish("stdout")
        log.close()
        assert b"".join(e["log"].encode("utf-8", "surrogateescape") for e in _entries(path)) == b"".join(
            chunks
        )
