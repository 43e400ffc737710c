"""The starter: a short-lived sibling of a container's first process, which does the work of the start.

The shim lives as long as its container, and every page it writes to is memory that each container costs. So
it leaves reading the request, making mounts and groups, and talking to the first process to this child of
its own, gets a short message with the descriptors, and the starter ends. The first process is cloned with
CLONE_PARENT: it is the shim's child.

The engine orders starters ahead of need. Told what the last container looked like (`prepare`), one makes a
first process for the next such container in advance (`spare.py`).
"""

import base64
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from dockmagic_runtime.errors import EngineError
from dockmagic_runtime.kernel import libc
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.kernel.pidfd import start_time
from dockmagic_runtime.kernel.seccomp import flags as seccomp_flags
from dockmagic_runtime.process.create import Created, create
from dockmagic_runtime.process.messages import Decoder, Message, StartFailed, encode, receive, send_packet
from dockmagic_runtime.process.pipes import Pipes
from dockmagic_runtime.process.spare import Spare
from dockmagic_runtime.storage.overlay import Rootfs

HandOver = Callable[[Message, list[int]], None]


def main(channel: socket.socket, shim: socket.socket, group: str) -> NoReturn:
    """Read from the engine's `channel` what is wanted, do it, tell `shim`, and end.

    `group` is the name for a spare's control group.
    """
    code = 1
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.set_process_name(b"dockmagic-start")
        channel.sendall(encode({"event": "ready"}))
        _serve(channel, shim, group)
        code = 0
    finally:
        os._exit(code)


def _serve(channel: socket.socket, shim: socket.socket, group: str) -> None:
    decoder = Decoder()
    spare: Spare | None = None
    while True:
        try:
            data, descriptors = receive(channel)
        except ConnectionResetError:
            data, descriptors = b"", []
        if not data:
            # The engine is gone before it wanted a container.
            if spare:
                spare.discard()
            return
        for message, files in decoder.feed(data, descriptors):
            if message["do"] == "prepare":
                spare = Spare.make(message["like"], group)
            else:
                return _run(message, files, channel, shim, spare)


def _run(
    request: Message, files: list[int], channel: socket.socket, shim: socket.socket, spare: Spare | None
) -> None:
    reap = []
    if spare and not spare.fits(request):
        spare.discard()
        reap.append(spare.pid)
        spare = None
    try:
        started = _start(request, spare, lambda *what: _hand_over(shim, reap, files, *what))
    except StartFailed as error:
        return _answer(channel, {"id": request["id"], "error": str(error), "code": error.exit_code})
    except (EngineError, OSError, KeyError, ValueError) as error:
        return _answer(channel, {"id": request["id"], "error": str(error), "code": 125})
    send_packet(shim, {"warnings": started["warnings"]})
    _answer(
        channel, {"id": request["id"], "execs": [], "exit": None, **{key: started[key] for key in DESCRIBED}}
    )


def _hand_over(
    shim: socket.socket, reap: list[int], files: list[int], started: Message, descriptors: list[int]
) -> None:
    """Give the container to the shim, which gets ready meanwhile; a second message says that it runs."""
    send_packet(shim, {**started, "reap": reap}, [*descriptors, *files])


DESCRIBED = ("pid", "bundle", "group", "warnings")
"""What an engine is told of a container, by its starter and by its shim."""


def _answer(channel: socket.socket, message: Message) -> None:
    # An engine that is gone will ask again, or has nobody to tell.
    with contextlib.suppress(OSError):
        channel.sendall(encode(message))


def _start(request: Message, spare: Spare | None, hand_over: HandOver) -> Message:
    config = request["config"]
    linux = config.get("linux") or {}
    group = Cgroup.open(linux["cgroupsPath"]) if linux.get("cgroupsPath") else None
    program = base64.b64decode(request["seccomp"]) if request["seccomp"] else None
    rootfs = Rootfs.from_json(request["rootfs"]) if request["rootfs"] else None
    if request["log"]["driver"] != "none":
        # Whoever is told of the container finds its log; and one that can't be written is a failure in time.
        os.close(
            os.open(request["log"]["path"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        )
    terminal = bool(config["process"].get("terminal"))
    pipes = None if terminal else Pipes(stdin=request["open_stdin"], outputs=True)
    stdio = pipes.theirs if pipes else None
    started: Message = {}
    descriptors: list[int] = []

    def prepare_shim(created: Created) -> None:
        # While the child is busy.
        started.update(_description(request, created, linux, terminal, program))
        descriptors.extend((created.pidfd, _leave_notes(request, started)))
        if created.root is not None:
            descriptors.append(created.root)
        if pipes:
            hand_over(
                started, [*descriptors, *pipes.outputs, *(() if pipes.stdin is None else (pipes.stdin,))]
            )

    try:
        if spare and rootfs:
            created = spare.start(request, rootfs, stdio, program, prepare_shim)
        else:
            created = create(
                config,
                Path(request["bundle"]),
                rootfs=rootfs,
                stdio=stdio,
                cgroup=group,
                seccomp=program,
                reaper=request["init"],
                die_with_parent=True,
                sibling=True,
                meanwhile=prepare_shim,
            )
        if terminal:
            assert created.console is not None
            hand_over(started, [*descriptors, created.console])
    except BaseException:
        for path in (request["socket"], f"{request['bundle']}/shim.json"):
            _remove(path)
        if group:
            group.remove(kill=True)
        raise
    started["warnings"] = created.warnings
    return started


def _leave_notes(request: Message, started: Message) -> int:
    """What the next engine looks for: the note in the bundle, and the socket, whose listening end this is."""
    for name in ("exit.json", "shim.json"):
        _remove(f"{request['bundle']}/{name}")
    pid = started["pid"]
    note = {"pid": pid, "start_time": start_time(pid), "shim": os.getppid(), "cgroup": started["group"]}
    write_json(f"{request['bundle']}/shim.json", note)
    return _listen(request["socket"]).detach()


def _description(
    request: Message, created: Created, linux: dict[str, Any], terminal: bool, program: bytes | None
) -> Message:
    """What the shim has to know for the rest of the container's life."""
    return {
        "pid": created.pid,
        "root": created.root is not None,
        "terminal": terminal,
        "kinds": [entry["type"] for entry in linux.get("namespaces") or ()],
        "group": linux.get("cgroupsPath"),
        "memory_limited": bool(((linux.get("resources") or {}).get("memory") or {}).get("limit")),
        "seccomp": program,
        "seccomp_flags": seccomp_flags(linux.get("seccomp") or {}),
        **{key: request[key] for key in ("bundle", "socket", "log", "open_stdin", "stdin_once", "streams")},
    }


def _listen(path: str) -> socket.socket:
    _remove(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)  # noqa: PTH101
    listener.listen()
    return listener


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def write_json(path: str, document: Message) -> None:
    """Beside, then rename. Not synced: after a crash of the machine nothing of this run is true any more."""
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    os.write(fd, json.dumps(document).encode())
    os.close(fd)
    os.rename(f"{path}.new", path)  # noqa: PTH104
