"""Hooks: programs of the container's owner, run at set points of its life (runtime-spec, "Hooks").

    prestart, createRuntime   after the namespaces are made, before the root is changed; in the runtime's own
    createContainer           at the same moment, in the container's namespaces; still with the runtime's root
    startContainer            when `start` was asked for, inside the container's root
    poststart                 after the program began; in the runtime's namespaces
    poststop                  after everything of the container was deleted

Each gets the container's state as JSON on its stdin. A failure of one of the last two is only reported, any
other ends the container. This module is loaded before the root is changed, and imports nothing later.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dockmagic_runtime.errors import SystemFailure

Hook = Mapping[str, Any]

_SHOWN = 1000
"""How much of a failed hook's output goes into the error, in bytes."""


def run(entries: Iterable[Hook], state: Mapping[str, Any]) -> None:
    """Run hooks in their order; the first that fails, or outlasts its timeout, raises SystemFailure."""
    for failure in _failures(entries, state):
        raise SystemFailure(failure)


def run_all(entries: Iterable[Hook], state: Mapping[str, Any]) -> list[str]:
    """Run hooks in their order, whatever becomes of them; what failed, one line each."""
    return list(_failures(entries, state))


def _failures(entries: Iterable[Hook], state: Mapping[str, Any]) -> Iterator[str]:
    """Run one hook after the other, as long as the caller goes on past a failure."""
    for number, entry in enumerate(entries):
        if reason := _run_one(entry, json.dumps(state).encode()):
            yield f"error running hook #{number} ({entry['path']}): {reason}"


def _run_one(entry: Hook, document: bytes) -> str | None:
    """None if all went well, else the reason."""
    env = dict(variable.partition("=")[::2] for variable in entry.get("env") or ())
    arguments = entry.get("args") or [entry["path"]]
    try:
        done = subprocess.run(
            arguments,
            executable=entry["path"],
            env=env,
            input=document,
            capture_output=True,
            timeout=entry.get("timeout"),
            check=False,
        )
    except subprocess.TimeoutExpired:
        # `run` has killed and reaped it.
        return f"not done after {entry['timeout']} seconds"
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    if done.returncode == 0:
        return None
    ended = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
    said = [
        f"{name}: {text[-_SHOWN:].decode(errors='replace').strip()}"
        for name, text in (("stdout", done.stdout), ("stderr", done.stderr))
        if text.strip()
    ]
    return ", ".join([ended, *said])
