"""What the tests of the kernel's wrappers share."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def held(tmp_path: Path) -> Callable[[], list[str]]:
    """What this process has open below `tmp_path`, removed files too.

    Nothing else of the process: what earlier tests left to the garbage collector may be closed at any time.
    """

    def targets() -> list[str]:
        found = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                target = entry.readlink()
            except FileNotFoundError:  # the listing's own
                continue
            if target.is_relative_to(tmp_path):
                found.append(str(target))
        return sorted(found)

    return targets
