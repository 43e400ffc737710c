"""A cold start: no engine runs, a new kernel loads the extension and runs its first container.

The image has been pulled before and the kernel is up and idle (Jupyter's own start is not counted): timed is
from sending the cell until its first output arrives.
"""

import os
import time
from pathlib import Path

from jupyter_client.manager import start_new_kernel

from tools.sandbox import end_engine

CELL = "%load_ext dockmagic\n%docker run --rm busybox echo hello"


def load_to_first_output(data_root: Path, socket: Path) -> float:
    """Seconds; raises RuntimeError with the error if the cell fails."""
    others = ("DOCKER_HOST", "DOCKMAGIC_REGISTRY_MIRROR")
    environment = {name: value for name, value in os.environ.items() if name not in others}
    environment |= {"DOCKMAGIC_DATA_ROOT": str(data_root), "DOCKMAGIC_SOCKET": str(socket)}
    manager, client = start_new_kernel(env=environment, extra_arguments=["--log-level=ERROR"])
    try:
        began = time.perf_counter()
        client.execute(CELL)
        while True:
            message = client.get_iopub_msg(timeout=60)
            match message["msg_type"]:
                case "stream" if message["content"]["text"].strip():
                    return time.perf_counter() - began
                case "error":
                    raise RuntimeError(message["content"]["evalue"])
                case "status" if message["content"]["execution_state"] == "idle":
                    raise RuntimeError("the cell ended without output")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        end_engine(socket)
