"""Docker's command line on top of click: where the two differ, Docker wins.

Docker's CLI is cobra and pflag. Unlike click: a switch takes a value after `=` (`--rm=false`); `-e=X` is
`-e X`; `run`, `create` and `exec` stop at the first word that is no flag (`interspersed=False`); mistakes
have the sentences users know. `--help` is not printed but becomes the value of the command.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from dockmagic.errors import UsageMistake

F = TypeVar("F", bound=Callable[..., Any])

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}


class HelpAsked(Exception):
    """`--help` was given; carries the text."""


class DockerCommand(click.Command):
    """One command. Its usage line and the count of its arguments come from its click arguments."""

    def __init__(self, *args: Any, interspersed: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_interspersed_args = interspersed

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_as_click(self, ctx, args)))

    def get_help_option(self, ctx: click.Context) -> click.Option:
        return click.Option(
            ["--help"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_help,
            help="Print usage",
        )

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        words = [argument.metavar or "" for argument in self.params if isinstance(argument, click.Argument)]
        formatter.write(f"Usage:  {' '.join([ctx.command_path, '[OPTIONS]', *words]).rstrip()}\n")

    def wrong_count(self, ctx: click.Context) -> str:
        """Docker's sentence for too few or too many arguments."""
        arguments = [p for p in self.params if isinstance(p, click.Argument)]
        needed = sum(p.required for p in arguments)
        variadic = any(p.nargs == -1 or not p.required for p in arguments)
        if not arguments:
            return f"docker: '{ctx.command_path}' accepts no arguments"
        plural = "" if needed == 1 else "s"
        count = f"{'at least ' if variadic else ''}{needed} argument{plural}"
        return f"docker: '{ctx.command_path}' requires {count}"


class DockerGroup(click.Group):
    """A noun: `docker container`, or `docker` itself."""

    command_class = DockerCommand

    def get_help_option(self, ctx: click.Context) -> click.Option:
        return click.Option(
            ["--help"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_help,
            help="Print usage",
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            path = " ".join([ctx.command_path, name]).removeprefix("docker ")
            sentence = f"docker: '{path}' is not a docker command."
            raise UsageMistake(f"{sentence}{did_you_mean(name, self.list_commands(ctx))}")
        return name, command, args[1:]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            raise HelpAsked(ctx.get_help())
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"Usage:  {ctx.command_path} COMMAND\n")


def argument(name: str, metavar: str, **attributes: Any) -> Callable[[F], F]:
    """A positional argument that the usage line shows as `metavar`."""
    return click.argument(name, metavar=metavar, **attributes)


def option(*declarations: str, **attributes: Any) -> Callable[[F], F]:
    """A click option whose type is shown in Docker's words."""
    return click.option(*declarations, **attributes)


def switch(*declarations: str, help: str = "") -> Callable[[F], F]:
    """A flag that is off unless given."""
    return click.option(*declarations, is_flag=True, help=help)


def spelled(parameter: click.Parameter | None) -> str:
    """A flag as Docker's sentences name it: `-m, --memory`."""
    return ", ".join(sorted(parameter.opts, key=len)) if parameter is not None else "?"


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """` Did you mean 'x'?` for the nearest of `choices`, or nothing."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def run(root: click.Group, argv: Sequence[str], obj: Any) -> Any:
    """Parse `argv` (without the word docker) and run the command: its value, or its help text.

    Raises UsageMistake in Docker's words for whatever click finds wrong.
    """
    try:
        # Not `main`: it would turn an interrupt into click's Abort.
        with root.make_context("docker", list(argv), obj=obj) as ctx:
            return root.invoke(ctx)
    except click.NoSuchOption as error:
        raise UsageMistake(_unknown_flag(error), exit_code=125) from None
    except click.MissingParameter as error:
        raise UsageMistake(_missing(error)) from None
    except click.BadOptionUsage as error:
        name = error.option_name
        flag = f"flag needs an argument: {name}"
        if len(name) == 2:
            flag = f"flag needs an argument: '{name[1]}' in {name}"
        raise UsageMistake(flag, exit_code=125) from None
    except click.BadParameter as error:
        raise UsageMistake(_bad_value(error), exit_code=125) from None
    except click.UsageError as error:
        command = error.ctx.command if error.ctx else None
        if isinstance(command, DockerCommand) and error.ctx:
            raise UsageMistake(_see_help(command.wrong_count(error.ctx), error.ctx)) from None
        raise UsageMistake(error.format_message()) from None


def _show_help(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        raise HelpAsked(ctx.get_help())


def _as_click(command: click.Command, ctx: click.Context, args: list[str]) -> Iterator[str]:
    """Rewrite pflag's spellings: `--switch=value`, and `-e=X`."""
    options: dict[str, click.Option] = {}
    for parameter in command.get_params(ctx):
        if isinstance(parameter, click.Option):
            options.update(dict.fromkeys([*parameter.opts, *parameter.secondary_opts], parameter))
    words = iter(args)
    for word in words:
        if word == "--":
            yield word
            break
        if word == "-" or not word.startswith("-"):
            yield word
            if not command.allow_interspersed_args:
                break
            continue
        name, equals, value = word.partition("=")
        found = options.get(name)
        if found is not None and found.is_flag:
            if not equals:
                yield word
            elif value in _TRUE:
                yield name
            elif value not in _FALSE:
                raise UsageMistake(
                    f'invalid argument "{value}" for "{spelled(found)}" flag: strconv.ParseBool: '
                    f'parsing "{value}": invalid syntax',
                    exit_code=125,
                )
            continue
        if found is not None and equals and not name.startswith("--"):
            yield name
            yield value
            continue
        yield word
        if _takes_next(word, options):
            yield from (following for following in [next(words, None)] if following is not None)
    yield from words


def _takes_next(word: str, options: dict[str, click.Option]) -> bool:
    """Whether the flag `word` has its value in the next word."""
    if word.startswith("--"):
        found = options.get(word)
        return found is not None and not found.is_flag
    for position, letter in enumerate(word[1:], start=1):
        found = options.get(f"-{letter}")
        if found is None:
            return False
        if not found.is_flag:
            return position == len(word) - 1
    return False


def _unknown_flag(error: click.NoSuchOption) -> str:
    name = error.option_name
    command = error.ctx.command if error.ctx else None
    known: list[str] = []
    if command is not None and error.ctx is not None:
        known = [o for p in command.get_params(error.ctx) for o in p.opts if o.startswith("--")]
    if len(name) == 2:
        return f"unknown shorthand flag: '{name[1]}' in {name}"
    return f"unknown flag: {name}.{did_you_mean(name, known)}" if known else f"unknown flag: {name}"


def _missing(error: click.MissingParameter) -> str:
    if error.ctx is not None and isinstance(error.ctx.command, DockerCommand):
        return _see_help(error.ctx.command.wrong_count(error.ctx), error.ctx)
    return error.format_message()


def _see_help(sentence: str, ctx: click.Context) -> str:
    return f"{sentence}. See '{ctx.command_path} --help'."


def _bad_value(error: click.BadParameter) -> str:
    flags = spelled(error.param)
    return f'invalid argument for "{flags}" flag: {error.message.rstrip(".")}'


class Size(click.ParamType):
    """Bytes with a suffix, as Docker reads them: `64m`, `1.5GiB`, `512`; powers of 1024."""

    name = "bytes"
    _pattern = re.compile(r"^(\d+(?:\.\d+)?) ?([kKmMgGtTpP])?[iI]?[bB]?$")

    def __init__(self, *, negative: bool = False) -> None:
        self.negative = negative  # -1 means without limit (--memory-swap)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if self.negative and value == "-1":
            return -1
        match = self._pattern.match(value)
        if match is None:
            flags = spelled(param)
            raise UsageMistake(
                f'invalid argument "{value}" for "{flags}" flag: invalid size: \'{value}\'', exit_code=125
            )
        power = " kmgtp".index((match[2] or " ").lower())
        return int(float(match[1]) * 1024**power)


class Duration(click.ParamType):
    """Go's durations in nanoseconds: `1m30s`, `500ms`."""

    name = "duration"
    _units = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "ns": 1}
    _part = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value != "0" and not re.fullmatch(rf"(?:{self._part.pattern})+", value):
            flags = spelled(param)
            raise UsageMistake(
                f'invalid argument "{value}" for "{flags}" flag: time: invalid duration "{value}"',
                exit_code=125,
            )
        return sum(int(float(number) * self._units[unit]) for number, unit in self._part.findall(value))


SIZE = Size()
SIZE_OR_UNLIMITED = Size(negative=True)
DURATION = Duration()
