"""A program in the foreground of a cell: run, start -a, attach, exec.

The order is the docker command's, and matters: attach before start, so that no output is missed; ask for
the exit code before start, because a container with `--rm` may be gone before a later question reaches the
engine.

Stop (SIGINT) does what Ctrl-C does in a terminal, and then makes sure: SIGINT goes to the container; if it
has not ended after its `--stop-timeout` (2 seconds when none was given: a program that is pid 1 ignores
SIGINT unless it handles it), SIGKILL. The cell ends when the container has. A second Stop does not wait for
that. An `attach` only gets the SIGINT: the container was there before the cell.

An `exec` has no signal in the API: with a tty its program gets a typed Ctrl-C; without, the cell ends
and the program sees its output closed.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from dockmagic.errors import ContainerExit, Interrupted, translate
from dockmagic.grammar.session import Session
from dockmagic.grammar.values import Result
from dockmagic.streams import INTERRUPT, Hijacked, hijack, output

STOP_GRACE = 2.0  # seconds
OUTPUTS = ("stdout", "stderr")


class Wait:
    """The engine's answer to "with which code did it end", asked before there is one."""

    def __init__(self, session: Session, container_id: str, condition: str) -> None:
        # The engine sends the headers at once and the body when the container has ended.
        self._response = session.stream(
            "POST", f"/containers/{container_id}/wait", params={"condition": condition}
        )

    def exit_code(self) -> int:
        answer = self._response.json()
        return int(answer["StatusCode"])


def attach(session: Session, container_id: str, *, stdin: bool, streams: Sequence[str] = OUTPUTS) -> Hijacked:
    """Connect to the container's streams."""
    params = {"stream": 1, "stdin": int(stdin), **{name: int(name in streams) for name in OUTPUTS}}
    return hijack(session.api, f"/containers/{container_id}/attach", params=params)


def follow(session: Session, streams: Hijacked, *, tty: bool) -> list[tuple[str, str]]:
    """Write a program's output into the cell while it comes; returns all of it."""
    chunks = []
    try:
        for stream, text in output(streams.read, tty=tty):
            session.cell.write(text, stream)
            chunks.append((stream, text))
    finally:
        streams.close()
    return chunks


def run_attached(
    session: Session,
    container_id: str,
    *,
    tty: bool,
    stdin: bytes | None,
    removed: bool,
    grace: float | None,
    streams: Sequence[str] = OUTPUTS,
    proxied: bool = True,
) -> Result:
    """Start a created container with its `streams` in this cell, and wait for its end.

    `stdin` is fed to it (None: nothing is attached); `removed` says that it removes itself; not `proxied`,
    Stop ends the cell and not the container. Raises Interrupted after Stop.
    """
    container = session.container(container_id)
    attachment = attach(session, container_id, stdin=stdin is not None, streams=streams)
    wait = Wait(session, container_id, "removed" if removed else "next-exit")
    ended = threading.Event()
    api = session.api

    def stop() -> None:
        signal_container(api, container_id, "SIGINT")
        if not ended.wait(STOP_GRACE if grace is None else grace):
            signal_container(api, container_id, "SIGKILL")

    with session.cell.on_interrupt(stop) if proxied else nullcontext():
        session.post(f"/containers/{container_id}/start")
        result = _until_the_end(session, container, attachment, wait, tty=tty, stdin=stdin)
        ended.set()
    return _uninterrupted(session, result)


def attached(session: Session, container: Any, body: str | None, *, proxied: bool) -> Result:
    """Follow a running container until it ends. The first Stop interrupts it, a second one ends the cell."""
    tty = bool(container.attrs["Config"]["Tty"])
    wait = Wait(session, container.id, "not-running")
    attachment = attach(session, container.id, stdin=body is not None)
    api = session.api
    interrupt = session.cell.on_interrupt(lambda: signal_container(api, container.id, "SIGINT"))
    with interrupt if proxied else nullcontext():
        stdin = None if body is None else body.encode()
        return _uninterrupted(
            session, _until_the_end(session, container, attachment, wait, tty=tty, stdin=stdin)
        )


def _until_the_end(
    session: Session, container: Any, attachment: Hijacked, wait: Wait, *, tty: bool, stdin: bytes | None
) -> Result:
    if stdin is not None:
        attachment.feed(stdin, tty=tty)
    chunks = follow(session, attachment, tty=tty)
    return Result(container, wait.exit_code(), chunks)


def _uninterrupted(session: Session, result: Result) -> Result:
    if session.cell.interrupts:
        name, code = result.container.name, result.exit_code
        raise Interrupted(f"interrupted: container {name} ended with exit code {code}")
    return result


def signal_container(api: Any, container_id: str, signal: str) -> None:
    """Send `signal`; that the container has ended by now, or the engine has gone, is no error here."""
    try:
        api.kill(container_id, signal)
    except Exception as error:
        failure = translate(error)
        if failure is None or failure.status not in (404, 409, None):
            raise


def checked(result: Result, *, check: bool, what: str) -> Result:
    """`result`, or ContainerExit when its code is not 0 and the user wants to know."""
    if check and result.exit_code != 0:
        raise ContainerExit(
            f"{what} exited with code {result.exit_code}", exit_code=result.exit_code, result=result
        )
    return result


def exec_attached(session: Session, container: Any, body: dict[str, Any], *, stdin: bytes | None) -> Result:
    """Run another program in a running container, with its streams in this cell."""
    tty = bool(body["Tty"])
    identity = session.post(f"/containers/{container.id}/exec", body)["Id"]
    streams = hijack(session.api, f"/exec/{identity}/start", body={"Detach": False, "Tty": tty})
    if stdin is not None:
        streams.feed(stdin, tty=tty)
    if tty:
        with session.cell.on_interrupt(lambda: streams.send(INTERRUPT)):
            chunks = follow(session, streams, tty=True)
    else:
        chunks = follow(session, streams, tty=False)
    exit_code = session.get(f"/exec/{identity}/json")["ExitCode"] or 0
    if session.cell.interrupts:
        raise Interrupted(f"interrupted: the program ended with exit code {exit_code}")
    return Result(container, exit_code, chunks)
