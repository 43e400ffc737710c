"""Identifiers."""

import re
import secrets
import socket

import pytest
from dockmagic_runtime import identifiers


def test_of_docker_s_form_and_never_the_same() -> None:
    made = {identifiers.new() for _ in range(1000)}
    assert len(made) == 1000 and all(re.fullmatch("[0-9a-f]{64}", each) for each in made)


def test_no_host_is_called_by_digits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    digits, good = "530190202550" + "a" * 52, "53019020255a" + "0" * 52
    with pytest.raises(socket.gaierror):  # the reason: not even looked for
        socket.gethostbyname(digits[:12])
    random = iter([digits, good])
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(random))
    assert identifiers.new() == good
