"""Docker's command line on top of click: where the two differ, Docker wins.

Docker's CLI is cobra and pflag. flags.py rewrites pflag's spellings into click's, kinds.py reads values; here
are commands, groups and the decorators that declare them. Mistakes have the sentences users know. `--help`
is not printed but becomes the value of the command.

What Docker has and we don't is declared too, with its reason: `refused_option`, `refused_switch`,
`Refused`, `no_effect`. So nothing of Docker's grammar is "unknown".
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from dockmagic.errors import DockmagicError, UsageMistake
from dockmagic.grammar.flags import Switch, as_click, did_you_mean, spelled

F = TypeVar("F", bound=Callable[..., Any])


class HelpAsked(Exception):
    """`--help` was given; carries the text."""


class _Dockers(click.Command):
    """What commands and groups share: flags are pflag's, help is a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(as_click(self, ctx, args)))

    def get_help_option(self, ctx: click.Context) -> click.Option:
        return click.Option(
            ["--help"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_help,
            help="Print usage",
        )


class DockerCommand(_Dockers):
    """One command. Its usage line and the count of its arguments come from its click arguments."""

    def __init__(self, *args: Any, interspersed: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_interspersed_args = interspersed

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        words = [argument.metavar or "" for argument in self.params if isinstance(argument, click.Argument)]
        formatter.write(f"Usage:  {' '.join([ctx.command_path, '[OPTIONS]', *words]).rstrip()}\n")

    def wrong_count(self, ctx: click.Context) -> str:
        """Docker's sentence for too few or too many arguments."""
        arguments = [p for p in self.params if isinstance(p, click.Argument)]
        least = sum(p.required for p in arguments)
        most = None if any(p.nargs == -1 for p in arguments) else len(arguments)
        if most == 0:
            return f"docker: '{ctx.command_path}' accepts no arguments"
        if most is None:
            count = f"at least {least} argument"
        elif least == most:
            count = f"{least} argument"
        elif least == 0:
            count = f"at most {most} argument"
        else:
            count = f"at least {least} and at most {most} argument"
        return f"docker: '{ctx.command_path}' requires {count}{'' if count.split()[-2] == '1' else 's'}"


class DockerGroup(_Dockers, click.Group):
    """A noun: `docker container`, or `docker` itself."""

    command_class = DockerCommand
    allow_interspersed_args = False

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            near = did_you_mean(name, self.list_commands(ctx))
            raise UsageMistake(f"docker: unknown command: {ctx.command_path} {name}{near}")
        return name, command, args[1:]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            raise HelpAsked(ctx.get_help())
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"Usage:  {ctx.command_path} COMMAND\n")


class Refused(click.Command):
    """A command of Docker's that is not ours: whatever follows, it says why."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, help=why, hidden=True)
        self.why = why

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        raise DockmagicError(f"{ctx.command_path}: {self.why}")


class RefusedOption(click.Option):
    """A flag of Docker's that we can't serve: given, it says why."""

    def __init__(self, *args: Any, why: str, **kwargs: Any) -> None:
        kwargs.update(hidden=True, expose_value=False, callback=self._refuse)
        super().__init__(*args, **kwargs)
        self.why = why

    def _refuse(self, ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value:
            raise UsageMistake(f"{ctx.command_path} {parameter.opts[0]}: {self.why}", exit_code=125)


class RefusedSwitch(RefusedOption, Switch):
    """The same for a flag without a value."""


def argument(name: str, metavar: str, **attributes: Any) -> Callable[[F], F]:
    """A positional argument that the usage line shows as `metavar`."""
    return click.argument(name, metavar=metavar, **attributes)


def option(*declarations: str, since: str | None = None, **attributes: Any) -> Callable[[F], F]:
    """A flag with a value. `since`: the API version that an engine needs to understand it."""
    if since is not None:
        attributes["callback"] = _needing(since)
    return click.option(*declarations, **attributes)


def switch(*declarations: str, **attributes: Any) -> Callable[[F], F]:
    """A flag without a value."""
    return click.option(*declarations, cls=Switch, **attributes)


def refused_option(*declarations: str, why: str) -> Callable[[F], F]:
    return click.option(*declarations, cls=RefusedOption, why=why)


def refused_switch(*declarations: str, why: str) -> Callable[[F], F]:
    return click.option(*declarations, cls=RefusedSwitch, why=why)


def no_effect(*declarations: str, why: str) -> Callable[[F], F]:
    """A flag with a value that changes nothing in a notebook; given, a warning says so."""

    def warn(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None and ctx.obj is not None:
            ctx.obj.warn(f"{parameter.opts[0]} has no effect: {why}")

    return click.option(*declarations, hidden=True, expose_value=False, callback=warn)


detach_keys = no_effect(
    "--detach-keys", why="nobody types into a cell that runs; Stop is the way out of a container's output"
)


def _needing(version: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def check(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value in (None, ()) or ctx.obj is None:
            return value
        served = ctx.obj.api.api_version
        if [*map(int, served.split("."))] < [*map(int, version.split("."))]:
            raise UsageMistake(
                f'"{parameter.opts[0]}" requires API version {version}, '
                f"but the Docker daemon API version is {served}"
            )
        return value

    return check


def run(root: click.Group, argv: Sequence[str], obj: Any) -> Any:
    """Parse `argv` (without the word docker) and run the command: its value, or its help text.

    Raises UsageMistake in Docker's words for whatever click finds wrong.
    """
    try:
        # Not `main`: it would turn an interrupt into click's Abort.
        with root.make_context("docker", list(argv), obj=obj) as ctx:
            return root.invoke(ctx)
    except click.BadParameter as error:
        if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Argument):
            raise _wrong_count(error) from None
        raise UsageMistake(
            f'invalid argument for "{spelled(error.param)}" flag: {error.message.rstrip(".")}', exit_code=125
        ) from None
    except click.UsageError as error:
        raise _wrong_count(error) from None


def _wrong_count(error: click.UsageError) -> UsageMistake:
    command = error.ctx.command if error.ctx else None
    if isinstance(command, DockerCommand) and error.ctx:
        return UsageMistake(f"{command.wrong_count(error.ctx)}. See '{error.ctx.command_path} --help'.")
    return UsageMistake(error.format_message())


def _show_help(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        raise HelpAsked(ctx.get_help())
