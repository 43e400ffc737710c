"""Open a notebook in JupyterLab beside a throw-away engine, until JupyterLab is closed."""

import os
import subprocess
import sys

from tools.sandbox import sandbox


def main() -> int:
    with sandbox() as environment:
        command = [sys.executable, "-m", "jupyterlab", *sys.argv[1:]]
        if os.geteuid() == 0:
            command.append("--allow-root")  # the engine needs root; the page is protected by its token
        try:
            return subprocess.run(command, env=environment, check=False).returncode
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
