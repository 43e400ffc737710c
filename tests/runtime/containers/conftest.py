"""Every test here has the stand-in busybox."""

import pytest


@pytest.fixture(autouse=True)
def with_busybox(busybox: None) -> None: ...
