"""docs/api.md, the engine's routes, and what a client gets from each endpoint say the same."""

import importlib
import json
import re
import subprocess
from pathlib import Path

import pytest
from dockmagic_runtime import api
from dockmagic_runtime.api.router import Routes

from tests.conftest import EngineProcess

_TABLE = Path(__file__).parents[2] / "docs" / "api.md"
_ROW = re.compile(r"\| (GET|HEAD|POST|PUT|DELETE) \| `(/\S+)` \| (served|refused, (\d+): (.*)) \|")
_MODULES = [path.stem for path in Path(api.__file__).parent.glob("[a-z]*.py")]


def _rows() -> list[tuple[str, str, int, str]]:
    """Method, path, status (0: served) and sentence of each line of the table."""
    found = [
        _ROW.fullmatch(line) for line in _TABLE.read_text().splitlines() if line.startswith(("| G", "| H"))
    ]
    found += [
        _ROW.fullmatch(line) for line in _TABLE.read_text().splitlines() if line.startswith(("| P", "| D"))
    ]
    assert all(found)
    return [(row[1], row[2], int(row[4] or 0), row[5] or "") for row in found if row]


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def _routes(module: str) -> set[tuple[str, str]]:
    table = getattr(importlib.import_module(f"dockmagic_runtime.api.{module}"), "routes", Routes())
    return {(method, _shape(path)) for method, path, _ in table.entries}


def test_the_table_is_the_engines_routes() -> None:
    rows = _rows()
    assert len(rows) >= 107
    listed = {(method, _shape(path)) for method, path, _, _ in rows}
    assert len(listed) == len(rows)
    served = {(method, _shape(path)) for method, path, status, _ in rows if not status}
    routes = set().union(*(_routes(module) for module in _MODULES))
    assert served <= routes <= listed


@pytest.mark.parametrize(("method", "path", "status", "sentence"), [row for row in _rows() if row[2]])
def test_what_is_refused_says_so(
    shared_engine: EngineProcess, method: str, path: str, status: int, sentence: str
) -> None:
    url = f"http://localhost/v1.47{_shape(path).replace('{}', 'some')}"
    sentence = sentence.replace("{name}", "some")
    curl = [
        "curl",
        "-sS",
        "-X",
        method,
        "-w",
        "\n%{http_code}",
        "--unix-socket",
        str(shared_engine.socket),
        url,
    ]
    body, _, code = subprocess.run(curl, capture_output=True, text=True, check=True).stdout.rpartition("\n")
    assert int(code) == status and json.loads(body) == {"message": sentence}


def test_the_registry_is_asked_for_a_manifest(engine: EngineProcess) -> None:
    api = engine.client().api
    found = api.inspect_distribution("busybox")
    assert found["Descriptor"]["digest"].startswith("sha256:") and found["Descriptor"]["size"] > 0
    assert found["Platforms"][0]["os"] == "linux"
