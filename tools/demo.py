"""Execute a notebook and print it as a terminal can: each cell, then what its user sees below it.

`python -m tools.demo notebooks/00-quickstart.ipynb`: the engine is a throw-away one (sandbox.py). Exit code 1
if a cell fails.
"""

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools.sandbox import sandbox

_TERMINAL = sys.stdout.isatty()


def _styled(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if _TERMINAL else text


def _indented(text: str, prompt: str) -> str:
    first, *rest = text.rstrip("\n").split("\n")
    return "\n".join([prompt + first, *(" " * len(prompt) + line if line else "" for line in rest)])


def show_output(output: Any, prompt: str) -> None:
    """Print one output: its text form, which every view has."""
    match output.output_type:
        case "stream":
            text = output.text
        case "error":
            text = _styled("\n".join(output.traceback) or f"{output.ename}: {output.evalue}", "31")
        case _:
            text = output.data.get("text/plain") or f"<{', '.join(output.data)}>"
    if text.strip():
        print(_indented(text, prompt))


def show_cell(cell: Any, cell_index: int, **_: Any) -> None:
    """Print an executed cell or a paragraph of the notebook's text."""
    if cell.cell_type == "markdown":
        print("\n" + _styled(cell.source, "1"))
        return
    print("\n" + _styled(_indented(cell.source, f"In [{cell.execution_count}]: "), "36"))
    for output in cell.outputs:
        show_output(output, " " * len(f"In [{cell.execution_count}]: "))
    sys.stdout.flush()


def main() -> int:
    path = Path(sys.argv[1])
    notebook = nbformat.read(path, as_version=4)
    shown = 0

    def up_to(cell: Any, cell_index: int, **_: Any) -> None:
        nonlocal shown
        while shown <= cell_index:
            show_cell(notebook.cells[shown], shown)
            shown += 1

    with sandbox() as environment:
        client = NotebookClient(
            notebook,
            timeout=300,
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_executed=up_to,
            extra_arguments=[
                "--log-level=ERROR"
            ],  # the kernel warns that its loopback ports are not encrypted
        )
        try:
            client.execute(env=environment)
        except CellExecutionError:
            print(f"\nThe last cell above failed; {path} stops there.", file=sys.stderr)
            return 1
    print(f"\n{path}: {sum(cell.cell_type == 'code' for cell in notebook.cells)} cells ran.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
