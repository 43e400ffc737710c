"""Every notebook is a test: it is executed and its outputs are compared with the ones saved in it (nbval).

`notebooks/sanitize.cfg` names what may differ. Saved outputs hold no traceback, no `UsageError` and no
picture that needs a widget.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools.sandbox import sandbox

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def outputs_of(path: Path) -> Iterator[tuple[str, Any]]:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                yield cell.source, output


def texts_of(output: Any) -> list[str]:
    """Everything that a reader sees of one output."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return [output.ename, output.evalue, *output.traceback]
    return [text for text in output.data.values() if isinstance(text, str)]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """A throw-away engine with the stand-in images, for one notebook."""
    before = dict(os.environ)
    try:
        with sandbox() as settings:
            yield {**settings, "DOCKMAGIC_LIVE": "0"}
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_run_gives_the_saved_outputs(path: Path, environment: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-sanitize-with",
        str(FOLDER / "sanitize.cfg"),
    ]
    run = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--timeout", "0", str(path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_a_traceback(path: Path) -> None:
    for source, output in outputs_of(path):
        for text in texts_of(output):
            assert "UsageError" not in text, source
            assert "Traceback" not in text, source
        if output.output_type == "error":
            lines = "".join(output.traceback).splitlines()
            # The engine's sentence; below it, where there is one, the way out.
            assert len(lines) == 1 or any("Either" in line for line in lines), f"no plain error: {source}"
            assert not any(line.lstrip().startswith(("File ", "-->")) for line in lines), source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_was_run_and_every_picture_has_two_forms(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.execution_count, f"not run: {cell.source}"
    for source, output in outputs_of(path):
        if "text/html" in output.get("data", {}):
            assert "text/plain" in output.data, source
        assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_sentence_stands_above_every_cell(path: Path) -> None:
    before = None
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert before == "markdown", cell.source
        before = cell.cell_type
