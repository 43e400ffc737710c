"""All of docker-py's public surface is used by the tests of this folder, or refused for a reason."""

import pytest

from tests.clients.docker_py.refusals import REFUSED
from tests.clients.docker_py.surface import Recorder, surface

# Its file sorts behind those that it looks back on: pytest runs a folder's files by name.
_FILES = ("build", "containers", "images", "networks", "refused", "system", "volumes")


def test_nothing_is_forgotten(request: pytest.FixtureRequest, recorder: Recorder) -> None:
    ran = {item.path.stem.removeprefix("test_") for item in request.session.items}
    if not ran >= set(_FILES):
        pytest.skip(f"only a part of these tests was asked for: {', '.join(sorted(ran))}")
    whole = surface()
    assert not REFUSED.keys() - whole, "refused, and not there"
    missing = sorted(whole - recorder.used - REFUSED.keys())
    assert missing == []
