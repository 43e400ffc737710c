"""A notebook whose kernel is restarted in its middle goes on: containers, networks and volumes stay."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.sandbox import sandbox

FOLDER = Path(__file__).parents[2] / "notebooks"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["03-networks", "04-volumes"])
def test_restarted_in_the_middle(name: str) -> None:
    """Nothing fails in the second half that does not fail without the restart."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    middle = next(
        number
        for number, cell in enumerate(code)
        if "--filter name=db-again" in cell.source or cell.source == "%network topology"
    )
    with sandbox() as environment:
        settings = {**environment, "DOCKMAGIC_LIVE": "0"}
        first = executed(code[:middle], settings)
        second = executed([nbformat.v4.new_code_cell("%load_ext dockmagic"), *code[middle:]], settings)
    for cell in (*first, *second):
        for output in cell.outputs:
            if output.output_type == "error":
                assert "raises-exception" in cell.metadata.get("tags", []), output.evalue
    said = str([cell.outputs for cell in second])
    for words in {
        "03-networks": ["one", "two", "mynet", "Bind for 0.0.0.0:8080 failed"],
        "04-volumes": ["db-again running", "db-again (running)", "restored"],
    }[name]:
        assert words in said


def executed(cells: list[nbformat.NotebookNode], settings: dict[str, str]) -> list[nbformat.NotebookNode]:
    """The cells, executed in a kernel of their own."""
    book = nbformat.v4.new_notebook(cells=[nbformat.from_dict(cell) for cell in cells])
    client = NotebookClient(book, timeout=120, kernel_name="python3")
    client.execute(env=settings)
    done: list[nbformat.NotebookNode] = book.cells
    return done
