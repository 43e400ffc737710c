"""The `dockmagic` command of a terminal: `dockmagic engine …` and `dockmagic version`.

`engine` replaces this process by the runtime's, with all arguments passed through: it runs in the foreground,
and its own `--help` says what it understands.
"""

import importlib.util
import os
import sys

import click

from dockmagic import __version__
from dockmagic.contexts import NO_LINUX, NO_RUNTIME


@click.group(help="dockmagic: containers for notebooks.")
def main() -> None:
    """The command's groups."""


@main.command(
    help="Run the container engine in the foreground; arguments are the engine's own.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def engine(arguments: tuple[str, ...]) -> None:
    """Become the runtime's process, so that signals and the exit code are its own."""
    if importlib.util.find_spec("dockmagic_runtime") is None:
        raise click.ClickException(NO_RUNTIME if sys.platform.startswith("linux") else NO_LINUX)
    os.execv(sys.executable, [sys.executable, "-m", "dockmagic_runtime", *arguments])


@main.command(help="Print the version.")
def version() -> None:
    """Print the version."""
    click.echo(f"dockmagic {__version__}")
