"""The life of a container under the OCI runtime command: create, start, kill, delete.

    create   register the id → namespaces, root, cgroup → prestart, createRuntime, createContainer → gate
    start    open the gate → startContainer → exec of the program → poststart
    kill     a signal to the first process
    delete   cgroup and record go → poststop

(runtime-spec, "Lifecycle".)

`create` either ends with a container in the state *created* or leaves nothing: no process, no cgroup, no id.
A `create` that is itself killed leaves a record without a process, which `delete --force` removes.
"""

import contextlib
import os
import pwd
import select
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound, SystemFailure
from dockmagic_runtime.kernel import capabilities, pidfd, seccomp
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.oci.runtime import validate, validate_process
from dockmagic_runtime.process import hooks, scheduling, state
from dockmagic_runtime.process.create import Created
from dockmagic_runtime.process.create import create as create_process
from dockmagic_runtime.process.exec import exec_in
from dockmagic_runtime.process.foreground import attend, send_console
from dockmagic_runtime.process.state import Container

Warn = Callable[[str], None]

_KILL_SECONDS = 10.0


@dataclass(frozen=True)
class Request:
    """What `create` and `run` were asked for."""

    id: str
    bundle: Path
    config: dict[str, Any]
    pid_file: Path | None = None
    console_socket: str | None = None
    preserve_fds: int = 0
    no_pivot: bool = False


def create(
    root: Path, request: Request, warn: Warn, *, keep_console: bool = False
) -> tuple[Container, Created]:
    """Make a container that waits at its gate. `keep_console`: the caller serves the terminal itself."""
    config = request.config
    validate(config)
    config["process"] = _grantable(config["process"], warn)
    check_console(bool(config["process"].get("terminal")), request.console_socket, keep_console)
    linux = config.get("linux") or {}
    container = Container(
        id=request.id,
        bundle=str(request.bundle),
        rootfs=os.path.join(request.bundle, config["root"]["path"]),  # noqa: PTH118 - may be absolute
        created=timestamps.now(),
        owner=_user_name(),
        oci_version=config["ociVersion"],
        cgroup=Cgroup(linux.get("cgroupsPath") or f"/{request.id}").path,
        annotations=dict(config.get("annotations") or {}),
    )
    state.register(container, root)
    group = container.group
    if group.exists() and group.pids():
        container.forget()
        raise Conflict(f"cgroup {container.cgroup} is in use by other processes")
    created: Created | None = None
    try:
        container.save_config(config)
        os.mkfifo(container.gate, 0o600)
        created = create_process(
            config,
            request.bundle,
            cgroup=group,
            gate=container.gate,
            preserve_fds=request.preserve_fds,
            no_pivot=request.no_pivot,
            state=lambda pid: container.document("creating", _pid_inside(pid)),
            in_runtime_namespace=lambda pid: _run_creation_hooks(container, config, pid),
        )
        for text in created.warnings:
            warn(text)
        if created.console is not None and request.console_socket:
            send_console(request.console_socket, created.console)
        container.pid, container.start_time = created.pid, pidfd.start_time(created.pid)
        container.save()
        if request.pid_file:
            write_pid_file(request.pid_file, created.pid)
    except BaseException:
        if created is not None:
            _end(created.pidfd)
            os.waitpid(created.pid, 0)
        group.remove(kill=True)
        container.forget()
        _report(hooks.run_all(_hooks(config, "poststop"), container.document("stopped")), warn)
        raise
    return container, created


def start(container: Container, warn: Warn) -> None:
    """Let the program of a created container run."""
    with container.locked():
        status = container.status()
        if status == "stopped":
            raise Conflict("cannot start a container that has stopped")
        if status != "created":
            raise Conflict(
                "cannot start an already running container" if status == "running" else f"it is {status}"
            )
        config = container.config
        process = container.open_process()
        try:
            gate = os.open(container.gate, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                before = _program(container.pid)
                os.write(gate, b"0")
                container.gate.unlink()
                if _hooks(config, "startContainer"):
                    _await_program(container, process, before)
            finally:
                os.close(gate)
        finally:
            os.close(process)
        _report(hooks.run_all(_hooks(config, "poststart"), container.document("running")), warn)


@dataclass(frozen=True)
class ExecRequest:
    """What `exec` was asked for."""

    process: dict[str, Any]
    detach: bool = False
    pid_file: Path | None = None
    console_socket: str | None = None
    preserve_fds: int = 0
    ignore_paused: bool = False


def exec_(container: Container, request: ExecRequest, warn: Warn) -> int:
    """Run a further program in the container; its exit code, or 0 at once if detached."""
    validate_process(request.process)
    process = _grantable(request.process, warn)
    check_console(bool(process.get("terminal")), request.console_socket, not request.detach)
    status = container.status()
    if status in ("creating", "stopped"):
        raise Conflict(f"cannot exec in a {status} container")
    if status == "paused" and not request.ignore_paused:
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
    linux = container.config.get("linux") or {}
    profile = linux.get("seccomp")
    scheduling.set_personality(linux)  # ours, which the child inherits
    member = container.open_process()
    try:
        added = exec_in(
            container.pid,
            member,
            process,
            [entry["type"] for entry in linux.get("namespaces") or ()],
            cgroup=container.group,
            seccomp=seccomp.compile(profile) if profile else None,
            seccomp_flags=seccomp.flags(profile) if profile else 0,
            preserve_fds=request.preserve_fds,
        )
    finally:
        os.close(member)
    for text in added.warnings:
        warn(text)
    if added.console is not None and request.console_socket:
        send_console(request.console_socket, added.console)
    if request.pid_file:
        write_pid_file(request.pid_file, added.pid)
    if request.detach:
        return 0
    return attend(added.pid, added.pidfd, None if request.console_socket else added.console)


def kill(container: Container, number: int, *, everyone: bool = False) -> None:
    """Signal the first process; with `everyone`, or where it isn't the parent of all, SIGKILL each."""
    own_pids = any(
        entry["type"] == "pid" for entry in (container.config.get("linux") or {}).get("namespaces") or ()
    )
    if everyone or (number == signal.SIGKILL and not own_pids):
        if not everyone and not container.alive():
            raise Conflict("container not running")
        with contextlib.suppress(FileNotFoundError):
            container.group.kill(number)
        return
    process = container.open_process()
    try:
        with contextlib.suppress(ProcessLookupError):
            pidfd.send_signal(process, number)
    finally:
        os.close(process)
    if number == signal.SIGKILL:
        _thaw(container)


def delete(root: Path, container_id: str, warn: Warn, *, force: bool = False) -> None:
    """Remove what `create` made. A running container is only removed with `force`, which kills it."""
    try:
        container = state.load(root, container_id)
    except NotFound:
        if force:
            return
        raise
    with container.locked():
        status = container.status()
        if status not in ("stopped", "created") and not force:
            raise Conflict(f"cannot delete container {container_id} that is not stopped: {status}")
        if container.pid and status != "stopped":
            with contextlib.suppress(Conflict):  # it may end by itself meanwhile
                process = container.open_process()
                try:
                    _end(process, lambda: _thaw(container))
                finally:
                    os.close(process)
        config = container.config if container.config_path.exists() else {}
        container.group.remove(kill=True)
        container.forget()
    _report(hooks.run_all(_hooks(config, "poststop"), container.document("stopped")), warn)


def _grantable(process: dict[str, Any], warn: Warn) -> dict[str, Any]:
    """Without the capabilities that this kernel doesn't know or we don't have: a warning each, as the
    specification wants it."""
    wanted = process.get("capabilities")
    if not wanted:
        return process
    mine = set(capabilities.names(capabilities.current()["permitted"]))
    missing = sorted({name for names in wanted.values() for name in names or ()} - mine)
    for name in missing:
        warn(f"capability {name} can't be granted: left out")
    kept = {kind: [name for name in names or () if name in mine] for kind, names in wanted.items()}
    return {**process, "capabilities": kept}


def check_console(terminal: bool, console_socket: str | None, stays: bool) -> None:
    """A terminal must be served by someone: by us while we stay, else by who listens at the socket."""
    if terminal and not console_socket and not stays:
        raise InvalidParameter("cannot allocate tty if runtime will detach without setting console socket")
    if console_socket and not terminal:
        raise InvalidParameter("cannot use console socket if runtime will not detach or allocate tty")


def write_pid_file(path: Path, pid: int) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(str(pid))
    beside.rename(path)


def _run_creation_hooks(container: Container, config: Mapping[str, Any], pid: int) -> None:
    document = container.document("creating", pid)
    for point in ("prestart", "createRuntime"):
        hooks.run(_hooks(config, point), document)


def _hooks(config: Mapping[str, Any], point: str) -> list[Mapping[str, Any]]:
    return (config.get("hooks") or {}).get(point) or []


def _report(failures: list[str], warn: Warn) -> None:
    for failure in failures:
        warn(failure)


def _pid_inside(pid: int) -> int:
    """A process's number in the innermost pid namespace it's in."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return pid


def _program(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115


def _await_program(container: Container, process: int, before: str) -> None:
    """Wait until the first process has passed its startContainer hooks: it executes the program, or ends."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    while not poll.poll(1):  # the kernel tells of an end; of an exec it tells nobody
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if _program(container.pid) != before:
                return
    if _exit_code(container.pid) == 125:
        raise SystemFailure("a startContainer hook failed; its error is in the container's output")


def _exit_code(pid: int) -> int | None:
    """A zombie's exit code; None if somebody has collected it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return os.waitstatus_to_exitcode(int(fields[49]))


def _end(process: int, meanwhile: Callable[[], None] | None = None) -> None:
    """SIGKILL, and wait for the process to be gone."""
    with contextlib.suppress(ProcessLookupError):
        pidfd.send_signal(process, signal.SIGKILL)
    if meanwhile:
        meanwhile()
    if not select.select([process], [], [], _KILL_SECONDS)[0]:
        raise SystemFailure(
            f"the container's first process did not end within {_KILL_SECONDS:.0f} s of SIGKILL"
        )


def _thaw(container: Container) -> None:
    """A frozen process of cgroup v1 can't even be killed."""
    with contextlib.suppress(FileNotFoundError, InvalidParameter):
        if container.group.frozen():
            container.group.thaw()


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
