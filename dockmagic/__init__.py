"""dockmagic: Docker, from a notebook, without Docker.

`%load_ext dockmagic` registers the magics; see `extension.py` for what loading does and undoes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """What `%load_ext dockmagic` calls."""
    from dockmagic.extension import load

    load(shell)


def unload_ipython_extension(shell: "InteractiveShell") -> None:
    """What `%unload_ext dockmagic` calls."""
    from dockmagic.extension import unload

    unload(shell)
