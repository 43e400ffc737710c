"""The commands of `dockmagic-runtime`, this runtime as an OCI runtime command.

Engines that know runc or crun can use it in their place (`podman --runtime dockmagic-runtime run …`). What
the commands do is in `lifecycle.py`, their grammar in `commandline.py`; here is what they make of what they
are given, and what they print. Each loads what it needs: most of a command's time is spent on imports.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound
from dockmagic_runtime.process.commandlog import Log

Arguments = argparse.Namespace


# --- the commands --------------------------------------------------------------------------------------


def create(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.process import lifecycle

    lifecycle.create(options.root, _request(options), log.warning)
    return 0


def run(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.process import foreground, lifecycle

    request = _request(options)
    stays = not options.detach
    container, created = lifecycle.create(
        options.root, request, log.warning, keep_console=stays and not request.console_socket
    )
    lifecycle.start(container, log.warning)
    if not stays:
        return 0
    code = foreground.attend(created.pid, created.pidfd, None if request.console_socket else created.console)
    lifecycle.delete(options.root, container.id, log.warning, force=True)
    return code


def start(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.process import lifecycle, state

    lifecycle.start(state.load(options.root, options.id), log.warning)
    return 0


def state(options: Arguments, log: Log) -> int:
    _print(_summary(_load(options)))
    return 0


def kill(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.process import lifecycle

    lifecycle.kill(_load(options), signal_number(options.signal), everyone=options.all)
    return 0


def delete(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.process import lifecycle

    lifecycle.delete(options.root, options.id, log.warning, force=options.force)
    return 0


def exec_(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.process import lifecycle

    container = _load(options)
    request = lifecycle.ExecRequest(
        process=_process(options, container.config["process"]),
        detach=options.detach,
        pid_file=Path(options.pid_file) if options.pid_file else None,
        console_socket=options.console_socket,
        preserve_fds=_preserved(options),
        ignore_paused=options.ignore_paused,
    )
    return lifecycle.exec_(container, request, log.warning)


def list_(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.process import state

    found = [_summary(container) for container in state.every(options.root)]
    if options.quiet:
        sys.stdout.writelines(f"{entry['id']}\n" for entry in found)
    elif options.format == "json":
        _print(found)
    else:
        columns = ("id", "pid", "status", "bundle", "created", "owner")
        _print_table([[c.upper() for c in columns], *[[str(entry[c]) for c in columns] for entry in found]])
    return 0


def ps(options: Arguments, log: Log) -> int:
    import subprocess

    container = _load(options)
    pids = container.group.pids()
    if options.format == "json":
        _print(pids)
        return 0
    try:
        done = subprocess.run(
            ["ps", *(options.arguments or ["-ef"])], stdout=subprocess.PIPE, text=True, check=False
        )
    except FileNotFoundError:
        raise NotFound("the table of processes needs the command ps: apt install procps") from None
    if done.returncode != 0:
        return done.returncode
    header, *lines = done.stdout.splitlines()
    if "PID" not in header.split():
        raise InvalidParameter("couldn't find PID field in ps output")
    column = header.split().index("PID")
    wanted = {str(pid) for pid in pids}
    _print_lines([header, *[line for line in lines if line.split(None, column + 1)[column] in wanted]])
    return 0


def pause(options: Arguments, log: Log) -> int:
    container = _load(options)
    with container.locked():
        if (status := container.status()) not in ("running", "created"):
            raise Conflict(f"container not running or created: {status}")
        container.group.freeze()
    return 0


def resume(options: Arguments, log: Log) -> int:
    container = _load(options)
    with container.locked():
        if container.status() != "paused":
            raise Conflict("container not paused")
        container.group.thaw()
    return 0


def update(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.oci.shape import check
    from dockmagic_runtime.oci.spec import LinuxResources

    container = _load(options)
    if options.resources:
        text = sys.stdin.read() if options.resources == "-" else Path(options.resources).read_text()
        changes = _json(text, options.resources)
    else:
        changes = _changes(options)
    check(changes, LinuxResources, "resources")
    # Zero and empty mean "as it is" in this document.
    changes = {section: _set_values(values) for section, values in changes.items() if section != "devices"}
    with container.locked():
        if container.status() == "stopped":
            raise Conflict("container not running")
        container.group.apply(changes)
        config = container.config
        resources = config.setdefault("linux", {}).setdefault("resources", {})
        for section, values in changes.items():
            both = isinstance(values, dict) and isinstance(resources.get(section), dict)
            resources[section] = {**resources[section], **values} if both else values
        container.save_config(config)
    return 0


def features(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.process import features

    _print(features.document())
    return 0


def spec(options: Arguments, log: Log) -> int:
    from dockmagic_runtime.oci.runtime import default_spec

    path = Path(options.bundle) / "config.json"
    try:
        with path.open("x") as file:
            file.write(json.dumps(default_spec(), indent="\t") + "\n")
    except FileExistsError:
        raise Conflict(f"file {path.name} exists. Remove it first") from None
    return 0


# --- what they are given -------------------------------------------------------------------------------


def _load(options: Arguments) -> Any:
    from dockmagic_runtime.process import state

    return state.load(options.root, options.id)


def _request(options: Arguments) -> Any:
    from dockmagic_runtime.process import lifecycle

    bundle = Path(options.bundle).absolute()
    path = Path(options.config) if options.config else bundle / "config.json"
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise NotFound(f"JSON specification file {path} not found") from None
    return lifecycle.Request(
        id=options.id,
        bundle=bundle,
        config=_json(text, str(path)),
        pid_file=Path(options.pid_file) if options.pid_file else None,
        console_socket=options.console_socket,
        preserve_fds=_preserved(options),
        no_pivot=options.no_pivot,
    )


def _process(options: Arguments, configured: Mapping[str, Any]) -> dict[str, Any]:
    """The process that `exec` adds: a document of its own, or the container's with the options' changes."""
    if options.process:
        return _json(Path(options.process).read_text(), options.process)
    if not options.arguments:
        raise InvalidParameter("process args cannot be empty")
    process = {**configured, "args": options.arguments, "terminal": options.tty}
    if options.cwd:
        process["cwd"] = options.cwd
    process["env"] = [*(configured.get("env") or ()), *options.env]
    if options.no_new_privs:
        process["noNewPrivileges"] = True
    if options.user:
        uid, _, gid = options.user.partition(":")
        if not (uid.isascii() and uid.isdigit() and (not gid or (gid.isascii() and gid.isdigit()))):
            raise InvalidParameter(f"--user {options.user}: not uid[:gid]")
        process["user"] = {"uid": int(uid), "gid": int(gid or 0)}
    if options.additional_gids:
        process["user"] = {**process["user"], "additionalGids": options.additional_gids}
    if options.cap:
        sets = dict(process.get("capabilities") or {})
        for kind in ("bounding", "effective", "permitted"):
            sets[kind] = sorted({*sets.get(kind, ()), *options.cap})
        process["capabilities"] = sets
    return process


def _preserved(options: Arguments) -> int:
    """`--preserve-fds`, and the sockets of systemd's socket activation (sd_listen_fds(3))."""
    listening: int = options.preserve_fds
    if os.environ.get("LISTEN_FDS", "").isdigit():
        listening += int(os.environ["LISTEN_FDS"])
    return listening


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"{name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidParameter(f"{name}: not a JSON object")
    return document


UPDATES = {
    "blkio_weight": ("blockIO", "weight"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_idle": ("cpu", "idle"),
    "cpu_share": ("cpu", "shares"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "pids_limit": ("pids", "limit"),
}


def _changes(options: Arguments) -> dict[str, dict[str, Any]]:
    changes: dict[str, dict[str, Any]] = {}
    for option, (section, name) in UPDATES.items():
        value = getattr(options, option)
        if value is not None:
            changes.setdefault(section, {})[name] = value
    return changes


def _set_values(values: Any) -> Any:
    """Without the zeros that runc's JSON template has where nothing is to be changed."""
    if not isinstance(values, dict):
        return values
    return {name: value for name, value in values.items() if value or name in ("idle", "burst", "swappiness")}


def signal_number(name: str) -> int:
    """`9`, `KILL`, `SIGKILL` or `RTMIN+3` as a number."""
    if name.isdecimal() and 0 < int(name) <= signal.SIGRTMAX:
        return int(name)
    upper = name.upper().removeprefix("SIG")
    base, plus, offset = upper.partition("+")
    if base == "RTMIN" and plus and offset.isdecimal() and signal.SIGRTMIN + int(offset) <= signal.SIGRTMAX:
        return signal.SIGRTMIN + int(offset)
    try:
        return signal.Signals[f"SIG{upper}"].value
    except KeyError:
        raise InvalidParameter(f"unknown signal {name!r}") from None


# --- what they print -----------------------------------------------------------------------------------


def _summary(container: Any) -> dict[str, Any]:
    status = container.status()
    return {
        **{"ociVersion": container.oci_version, "id": container.id},
        "pid": 0 if status == "stopped" else container.pid,
        **{"status": status, "bundle": container.bundle, "rootfs": container.rootfs},
        **{"created": container.created, "owner": container.owner},
        **({"annotations": container.annotations} if container.annotations else {}),
    }


def _print(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _print_lines(lines: list[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    _print_lines(["   ".join(row).rstrip() for row in cells])
