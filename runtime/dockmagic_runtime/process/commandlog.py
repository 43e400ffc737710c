"""Where the OCI runtime command says what went wrong: stderr, and the log that `--log` names.

Engines read that log back, in the form that runc writes it.
"""

import json
import sys

from dockmagic_runtime import timestamps


class Log:
    """Where errors and warnings go: `--log`, `--log-format`, `--debug`."""

    def __init__(self, path: str | None = None, form: str = "text", debug: bool = False):
        self._path = path
        self._form = form
        self._debug = debug

    def error(self, text: str) -> None:
        self._write("error", text)
        if self._path:
            sys.stderr.write(f"{text}\n")

    def warning(self, text: str) -> None:
        self._write("warning", text)

    def debug(self, text: str) -> None:
        if self._debug:
            self._write("debug", text)

    def _write(self, level: str, text: str) -> None:
        when = timestamps.now()
        if self._form == "json":
            line = json.dumps({"level": level, "msg": text, "time": when})
        else:
            line = f"time={json.dumps(when)} level={level} msg={json.dumps(text, ensure_ascii=False)}"
        if self._path:
            with open(self._path, "a") as file:  # noqa: PTH123
                file.write(line + "\n")
        else:
            sys.stderr.write(line + "\n")
