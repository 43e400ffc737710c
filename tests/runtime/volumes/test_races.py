"""Paths in volumes that change into symbolic links and back while containers start on them."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import EngineProcess

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_STARTS = 40


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[list[int]]:
    """The two names change places as fast as they can, renameat2(2); the list counts how often."""
    libc = ctypes.CDLL(None, use_errno=True)
    ended, count = threading.Event(), [0]

    def swap() -> None:
        names = os.fsencode(one), os.fsencode(other)
        while not ended.is_set():
            done = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
            assert done == 0, os.strerror(ctypes.get_errno())
            count[0] += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield count
    finally:
        ended.set()
        thread.join()


def files_of(engine: EngineProcess, name: str) -> Path:
    return engine.data_root / "volumes" / name / "_data"


def test_a_target_that_becomes_a_link_is_no_way_out(engine: EngineProcess, tmp_path: Path) -> None:
    """A mount in a volume that somebody else writes to (CVE-2021-30465) lands in the container or nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("shared", "other"):
        engine.docker("volume", "create", name)
    (files_of(engine, "other") / "mounted").touch()
    shared = files_of(engine, "shared")
    (shared / "place").mkdir()
    (shared / "link").symlink_to(f"{'../' * 20}{str(outside)[1:]}")
    mounts = Path("/proc/self/mountinfo").read_text()
    options = ("--rm", "--network", "none", "-v", "shared:/shared")
    arrived = 0
    with swapping(shared / "place", shared / "link") as swaps:
        for number in range(_STARTS):
            # A missing directory below the place is made: outside, if the link led there.
            target = "/shared/place" if number % 2 else f"/shared/place/made{number}"
            done = engine.docker(
                "run", *options, "-v", f"other:{target}", "busybox", "cat", "/proc/self/mountinfo"
            )
            arrived += done.returncode == 0
            assert done.returncode == 0 or "error mounting" in done.stderr or "place" in done.stderr
    assert arrived and swaps[0] > _STARTS
    assert list(outside.iterdir()) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_a_subpath_that_becomes_a_link_shows_nothing_else(engine: EngineProcess, tmp_path: Path) -> None:
    """CVE-2023-2728's like: what is mounted is in the volume, whatever its containers make of the path."""
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "secret").touch()
    engine.docker("volume", "create", "shared")
    shared = files_of(engine, "shared")
    (shared / "sub").mkdir()
    (shared / "sub/own").touch()
    (shared / "link").symlink_to(secret)
    mount = "type=volume,src=shared,dst=/v,volume-subpath=sub"
    seen = set()
    with swapping(shared / "sub", shared / "link") as swaps:
        for _ in range(_STARTS):
            done = engine.docker("run", "--rm", "--network", "none", "--mount", mount, "busybox", "ls", "/v")
            seen.add(done.stdout if done.returncode == 0 else "refused")
    assert swaps[0] > _STARTS
    assert seen <= {"own\n", "refused"}
