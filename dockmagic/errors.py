"""What the user reads when something fails: one red line, and an error that notebooks' tools can see.

IPython asks an exception for `_render_traceback_()` before it formats a traceback. Ours answers with a
single line, so a cell shows Docker's sentence and not forty frames of ours; the kernel still sends an
`error` message, which nbclient and nbval count as a failed cell. (IPython's own `UsageError` would be
printed to stderr instead, and the failing cell would count as passing.)

`translate` is the one place where errors of the SDK and of the connection get their sentence.
"""

import re
from typing import Any

RED = "\x1b[31m"
RESET = "\x1b[0m"

# Docker's CLI tells the exit code of a failed start by the daemon's sentence (cmd/docker run.go).
_NOT_FOUND = re.compile(r"executable file not found|no such file or directory|system cannot find the file")
_NOT_EXECUTABLE = re.compile(r"permission denied|is a directory|exec format error")


class _OneLine:
    """Renders as its own message in red, instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{RED}{self}{RESET}"]


class DockmagicError(_OneLine, Exception):
    """Something the user asked for did not work.

    `exit_code` is what the `docker` command would have exited with (125: the engine or the command
    line, 126: not executable, 127: not found, else 1 or the container's own); `status` is the HTTP
    status when an engine answered.
    """

    def __init__(self, message: str, *, exit_code: int = 1, status: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.status = status


class UsageMistake(DockmagicError):
    """The command line is not one of Docker's: unknown flag or command, bad value, missing argument."""


class EngineUnavailable(DockmagicError):
    """No engine answers, or it went away in the middle of a command. The next command reconnects."""


class ContainerExit(DockmagicError):
    """The program of a foreground `run`, `exec` or `start -a` ended with a code other than 0.

    `result` is the value that the command would have returned.
    """

    def __init__(self, message: str, *, exit_code: int, result: Any = None) -> None:
        super().__init__(message, exit_code=exit_code)
        self.result = result


class Interrupted(_OneLine, KeyboardInterrupt):
    """The user pressed Stop. A KeyboardInterrupt, so that `except Exception` does not swallow it."""

    exit_code = 130


def translate(error: BaseException, *, starting: bool = False) -> DockmagicError | None:
    """The sentence for an error of the SDK or of the connection; None if it is not one of those.

    `starting` tells that a container was being created or started, where the exit code is 125, 126 or 127.
    """
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions

    if isinstance(error, DockmagicError):
        return error
    if isinstance(error, docker.errors.APIError):
        sentence = str(error.explanation or error).strip()
        if isinstance(error.explanation, bytes):
            sentence = error.explanation.decode("utf-8", "replace").strip()
        code = start_failure_code(sentence) if starting else 1
        return DockmagicError(
            f"Error response from daemon: {sentence}", exit_code=code, status=error.status_code
        )
    if isinstance(error, docker.errors.BuildError):
        return DockmagicError(str(error.msg).strip())
    gone = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)
    broken = (urllib3.exceptions.ProtocolError, ConnectionError, EOFError)
    if isinstance(error, gone + broken):
        return EngineUnavailable(
            "The engine went away in the middle of the command; the next command reconnects.", exit_code=125
        )
    if isinstance(error, requests.exceptions.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return EngineUnavailable("The engine did not answer in time.", exit_code=125)
    if isinstance(error, docker.errors.DockerException):
        return EngineUnavailable(str(error), exit_code=125)
    if isinstance(error, OSError) and error.filename:
        return DockmagicError(f"{error.filename}: {error.strerror}")  # a file of the user's, on this machine
    return None


def start_failure_code(sentence: str) -> int:
    """127, 126 or 125: the exit code of `docker run` for the daemon's `sentence`."""
    if _NOT_FOUND.search(sentence):
        return 127
    if _NOT_EXECUTABLE.search(sentence):
        return 126
    return 125
