"""dockmagic: Docker, from a notebook, without Docker.

`%load_ext dockmagic` registers the magics; see `extension.py` for what loading does and undoes.
"""

__version__ = "0.1.0"
