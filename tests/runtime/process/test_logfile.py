"""The json-file log."""

import gzip
import json
import os
import socket
from pathlib import Path

from dockmagic_runtime.process.logfile import LINE_LIMIT, JsonLog
from hypothesis import given
from hypothesis import strategies as st


def _entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _texts(path: Path) -> bytes:
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return b"".join(json.loads(line)["log"].encode("utf-8", "surrogateescape") for line in whole.splitlines())


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


@given(st.lists(st.sampled_from([b"a", b"\\", b"n", b"\\n", b"\n", b'"', b"\xff", "é".encode(), b"\r"])))
def test_lines_encoded_together_are_those_encoded_apart(pieces: list[bytes]) -> None:
    import tempfile

    data = b"".join(pieces)
    with tempfile.TemporaryDirectory() as directory:
        together, apart = Path(directory, "together"), Path(directory, "apart")
        for path, chunks in ((together, [data]), (apart, data.splitlines(keepends=True) if data else [])):
            log = JsonLog(str(path))
            for chunk in chunks:
                log.write("stdout", chunk)
            log.finish("stdout")
            log.close()
        # \\r alone ends no line: what the two must agree on is what they give back, line by line.
        assert _texts(together) == _texts(apart) == data
        assert [e["log"].count("\n") for e in _entries(together)[:-1]] == [1] * len(_entries(together)[:-1])


def test_long_lines_are_split_wherever_they_stand(tmp_path: Path) -> None:
    data = b"a\n" + b"x" * (3 * LINE_LIMIT) + b"\nb\n" + b"y" * (LINE_LIMIT - 1) + b"\nc\n"
    log = JsonLog(str(tmp_path / "log"))
    log.write("stdout", data)
    log.close()
    lengths = [len(e["log"]) for e in _entries(tmp_path / "log")]
    assert lengths == [2, LINE_LIMIT, LINE_LIMIT, LINE_LIMIT, 1, 2, LINE_LIMIT, 2]


def test_attributes_stand_before_the_time(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), attrs='{"tag":"x"}')
    log.write("stderr", b"one\ntwo\n")
    log.close()
    for entry in _entries(tmp_path / "log"):
        assert list(entry) == ["log", "stream", "attrs", "time"]
        assert entry["attrs"] == {"tag": "x"}


def test_files_are_kept_up_to_the_limit(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 1000, 3)
    lines = [b"line %d\n" % number for number in range(100)]
    log.write("stdout", b"".join(lines))
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    kept = b"".join(_texts(tmp_path / name) for name in ("log.2", "log.1", "log"))
    assert b"".join(lines).endswith(kept)
    entry = len((tmp_path / "log.1").read_bytes().splitlines(keepends=True)[0])
    for name in ("log.1", "log.2"):
        # The entry that reaches the limit is the last of its file.
        assert 1000 <= (tmp_path / name).stat().st_size < 1000 + entry


def test_one_file_begins_anew(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 1000, 1)
    log.write("stdout", b"".join(b"line %d\n" % number for number in range(100)))
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert _texts(tmp_path / "log").endswith(b"line 99\n")


def test_full_files_are_compressed(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 1000, 3, compress=True)
    lines = [b"line %d\n" % number for number in range(100)]
    log.write("stdout", b"".join(lines))
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1.gz", "log.2.gz"]
    kept = b"".join(_texts(tmp_path / name) for name in ("log.2.gz", "log.1.gz", "log"))
    assert b"".join(lines).endswith(kept)


def test_followers_are_passed_every_new_file(tmp_path: Path) -> None:
    """The files that are gone by the time the follower looks are among them."""
    log = JsonLog(str(tmp_path / "log"), 1000, 2)
    first = (tmp_path / "log").open("rb")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log.follow(theirs)
    lines = [b"line %d\n" % number for number in range(100)]
    log.write("stdout", b"".join(lines))
    log.close()
    entries = first.readlines()
    while (passed := socket.recv_fds(ours, 1, 1))[0]:
        with open(f"/proc/self/fd/{passed[1][0]}", "rb") as file:  # noqa: PTH123
            entries += file.readlines()
        os.close(passed[1][0])
    first.close()
    ours.close()
    assert [json.loads(entry)["log"].encode() for entry in entries] == lines


def test_a_follower_that_takes_nothing_is_let_go(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 100, 2)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log.follow(theirs)
    for number in range(2000):
        log.write("stdout", b"line %d\n" % number)
    assert theirs.fileno() < 0
    ours.close()
    log.close()
    assert _texts(tmp_path / "log").endswith(b"line 1999\n")
