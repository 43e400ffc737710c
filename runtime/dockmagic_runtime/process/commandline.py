"""The command line of `dockmagic-runtime`, with runc's grammar, and where errors go.

Each command is a function of `commands.py`. An error is one line on stderr, and one in the log that `--log`
names; nothing is known of any container before the grammar has been read.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from dockmagic_runtime import __version__
from dockmagic_runtime.errors import EngineError, InvalidParameter
from dockmagic_runtime.oci.spec import VERSION as SPEC_VERSION
from dockmagic_runtime.process import commands
from dockmagic_runtime.process.commandlog import Log

Command = Callable[[argparse.Namespace, Log], int]
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def run(arguments: Sequence[str]) -> int:
    """Execute one command line; returns the exit code."""
    options = _grammar().parse_args(arguments)
    log = Log(options.log, options.log_format, options.debug)
    try:
        _refuse_systemd(options)
        options.root = Path(options.root)
        log.debug(" ".join(arguments))
        code: int = options.command(options, log)
    except EngineError as error:
        log.error(str(error))
        return _failure_code(options)
    except OSError as error:
        reason = error.strerror or str(error)
        log.error(f"{error.filename}: {reason}" if error.filename else reason)
        return _failure_code(options)
    return code


def _failure_code(options: argparse.Namespace) -> int:
    """`exec` and `run` stand in for the program, whose own exit codes are small numbers."""
    return 255 if options.name == "exec" else 1


def _refuse_systemd(options: argparse.Namespace) -> None:
    if not (options.systemd_cgroup or options.cgroup_manager == "systemd"):
        return
    if os.path.isdir("/run/systemd/system"):  # noqa: PTH112
        raise InvalidParameter("the systemd cgroup manager is not supported: use --cgroup-manager cgroupfs")
    raise InvalidParameter("systemd cgroup manager asked for, but systemd is not running on this host")


# --- the grammar ---------------------------------------------------------------------------------------


def _grammar() -> argparse.ArgumentParser:
    from dockmagic_runtime.process.state import DEFAULT_ROOT

    parser = argparse.ArgumentParser(
        "dockmagic-runtime", description="An OCI runtime for Linux containers.", allow_abbrev=False
    )
    version = f"dockmagic-runtime version {__version__}\nspec: {SPEC_VERSION}"
    parser.add_argument("--version", "-v", action="version", version=version)
    parser.add_argument(
        "--root", default=str(DEFAULT_ROOT), help="where the state of containers is (a tmpfs)"
    )
    parser.add_argument("--log", help="the file to write errors and warnings to (default: stderr)")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--debug", action="store_true", help="log more")
    parser.add_argument("--cgroup-manager", choices=("cgroupfs", "systemd", "disabled"), default="cgroupfs")
    parser.add_argument("--systemd-cgroup", action="store_true", help="refused: this runtime uses cgroupfs")
    # "%(prog)s" of a group of commands is long; argparse wants the version text's lines kept.
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parsers = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    _add_making(parsers)
    _add_running(parsers)
    _add_exec(parsers)
    _add_looking(parsers)
    _add_update(parsers)
    return parser


def _add(
    parsers: Parsers, name: str, command: Command, text: str, *, takes_id: bool = True
) -> argparse.ArgumentParser:
    found = parsers.add_parser(name, help=text, description=text, allow_abbrev=False)
    found.set_defaults(command=command)
    if takes_id:
        found.add_argument("id", metavar="CONTAINER-ID")
    return found


def _add_making(parsers: Parsers) -> None:
    create = _add(parsers, "create", commands.create, "make a container that waits for `start`")
    run = _add(parsers, "run", commands.run, "make a container and start it")
    for making in (create, run):
        making.add_argument("--bundle", "-b", default=".", help="the directory with config.json")
        making.add_argument("--config", "-f", help="the configuration, if it isn't the bundle's config.json")
        making.add_argument("--no-pivot", action="store_true", help="for a root on an initramfs")
        _add_process_options(making)
    run.add_argument("--detach", "-d", action="store_true", help="do not wait for its end")
    spec = _add(parsers, "spec", commands.spec, "write a config.json to begin with", takes_id=False)
    spec.add_argument("--bundle", "-b", default=".")


def _add_running(parsers: Parsers) -> None:
    _add(parsers, "start", commands.start, "execute the program of a created container")
    kill = _add(parsers, "kill", commands.kill, "send a signal to a container's first process")
    kill.add_argument("signal", nargs="?", default="SIGTERM")
    kill.add_argument("--all", "-a", action="store_true", help="to every process of the container")
    _add(parsers, "pause", commands.pause, "stop all processes of a container")
    _add(parsers, "resume", commands.resume, "let them go on")
    delete = _add(parsers, "delete", commands.delete, "remove what a container holds")
    delete.add_argument("--force", "-f", action="store_true", help="kill it if it runs")


def _add_exec(parsers: Parsers) -> None:
    adding = _add(parsers, "exec", commands.exec_, "execute a further program in a container")
    adding.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND")
    adding.add_argument("--process", "-p", help="the file that describes the process (OCI JSON)")
    adding.add_argument("--tty", "-t", action="store_true")
    adding.add_argument("--cwd")
    adding.add_argument("--env", "-e", action="append", default=[])
    adding.add_argument("--user", "-u", help="uid[:gid]")
    adding.add_argument("--additional-gids", "-g", type=int, action="append", default=[])
    adding.add_argument("--cap", "-c", action="append", default=[])
    adding.add_argument("--no-new-privs", action="store_true")
    adding.add_argument("--ignore-paused", action="store_true")
    adding.add_argument("--detach", "-d", action="store_true")
    _add_process_options(adding)


def _add_process_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pid-file", help="where to write the first process's pid")
    parser.add_argument("--console-socket", help="the unix socket that is sent the terminal's master")
    parser.add_argument(
        "--preserve-fds", type=int, default=0, metavar="N", help="descriptors 3 to 3+N-1 stay open"
    )


def _add_looking(parsers: Parsers) -> None:
    _add(parsers, "state", commands.state, "print the state of a container")
    listing = _add(parsers, "list", commands.list_, "list containers", takes_id=False)
    listing.add_argument("--format", "-f", choices=("table", "json"), default="table")
    listing.add_argument("--quiet", "-q", action="store_true")
    ps = _add(parsers, "ps", commands.ps, "list the processes of a container")
    ps.add_argument("--format", "-f", choices=("table", "json"), default="table")
    ps.add_argument("arguments", nargs=argparse.REMAINDER, metavar="PS-OPTION")
    _add(parsers, "features", commands.features, "print what this runtime can do", takes_id=False)


def _add_update(parsers: Parsers) -> None:
    update = _add(parsers, "update", commands.update, "change a container's limits")
    update.add_argument(
        "--resources", "-r", help="a file of OCI JSON, or - for stdin; other options are ignored"
    )
    for option in commands.UPDATES:
        kind = str if option.startswith("cpuset") else int
        update.add_argument(f"--{option.replace('_', '-')}", type=kind)
