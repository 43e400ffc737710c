"""`dockmagic-runtime`: the way into the OCI runtime command; the rest begins in `commandline.py`.

Almost nothing is loaded here, because those commands that become a container begin again at once: in an
interpreter that no container can write to (`interpreter.py`).
"""

import os
import sys
from typing import NoReturn

_BECOMES_CONTAINER = {"create", "run", "exec"}


def main() -> NoReturn:
    if not _BECOMES_CONTAINER.isdisjoint(sys.argv):
        from dockmagic_runtime.process import interpreter

        if not interpreter.sealed():
            this = interpreter.command("from dockmagic_runtime.process.command import main; main()")
            os.execv(f"/proc/self/fd/{interpreter.open_sealed()}", [*this, *sys.argv[1:]])
    from dockmagic_runtime.process import commandline

    sys.exit(commandline.run(sys.argv[1:]))
