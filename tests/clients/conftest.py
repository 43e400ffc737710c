"""Every client finds the image busybox: what a pull prints is not the subject of these tests."""

import pytest

from tests.conftest import EngineProcess


@pytest.fixture(scope="session", autouse=True)
def pulled(shared_engine: EngineProcess) -> None:
    done = shared_engine.docker("pull", "-q", "busybox")
    assert done.returncode == 0, done.stderr
