"""Execute a notebook and save its outputs in it, for readers who do not run it (GitHub).

`python -m tools.record notebooks/00-quickstart.ipynb`: with a throw-away engine (sandbox.py), as a batch, so
what is saved is each picture's final form. Nothing is written if a cell fails that is not marked
`raises-exception`.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools.sandbox import sandbox


def main() -> int:
    for path in map(Path, sys.argv[1:]):
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook, timeout=300, record_timing=False, resources={"metadata": {"path": str(path.parent)}}
        )
        with sandbox() as environment:
            try:
                client.execute(env={**environment, "DOCKMAGIC_LIVE": "0"})
            except CellExecutionError as error:
                print(f"{path} is as it was; this cell failed:\n{error}", file=sys.stderr)
                return 1
        nbformat.write(notebook, path)
        print(f"{path}: outputs saved.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
