"""pflag's grammar of flags: Docker's command line, rewritten so that click reads it the same way.

Every flag leaves here as one word, `--name=value`. Then click has nothing left to decide in which it differs
from pflag: a switch takes its value only after `=` (`--rm=false`), `-e=X` is `-e X`, letters may be joined
(`-dp 80:80`), a value may look like a flag, and some commands stop at the first word that is no flag.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import click

from dockmagic.errors import UsageMistake

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}


class Switch(click.Option):
    """A flag that is true when it stands alone. For click it is an option with a value, see above."""

    def __init__(self, declarations: Sequence[str], *, default: bool = False, **attributes: Any) -> None:
        super().__init__(declarations, type=bool, default=default, metavar="", **attributes)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return (record[0].rstrip(), record[1]) if record else None


def as_click(command: click.Command, ctx: click.Context, args: Sequence[str]) -> Iterator[str]:
    """The words `args` of `command` as click understands them. Raises UsageMistake in pflag's words."""
    options: dict[str, click.Option] = {}
    for parameter in command.get_params(ctx):
        if isinstance(parameter, click.Option):
            options.update(dict.fromkeys(parameter.opts, parameter))
    words = iter(args)
    for word in words:
        if word == "--":
            yield word
            break
        if word == "-" or not word.startswith("-"):
            yield word
            if not command.allow_interspersed_args:
                break
        elif word.startswith("--"):
            yield _long(word, words, options)
        else:
            yield from _short(word, words, options)
    yield from words


def _long(word: str, words: Iterator[str], options: dict[str, click.Option]) -> str:
    name, equals, value = word.partition("=")
    found = options.get(name)
    if found is None:
        known = [known for known in options if known.startswith("--")]
        raise UsageMistake(f"unknown flag: {name}{did_you_mean(name, known)}", exit_code=125)
    if found.is_flag:  # click's own --help
        return name
    if isinstance(found, Switch):
        return _switched(found, value if equals else "true")
    if not equals:
        following = next(words, None)
        if following is None:
            raise UsageMistake(f"flag needs an argument: {name}", exit_code=125)
        value = following
    return f"{_name(found)}={value}"


def _short(word: str, words: Iterator[str], options: dict[str, click.Option]) -> Iterator[str]:
    """`-it`, `-p80:80`, `-p 80:80`, `-p=80:80`."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        found = options.get(f"-{letter}")
        if found is None:
            if letter == "h":
                yield "--help"
                return
            raise UsageMistake(f"unknown shorthand flag: '{letter}' in -{letter}{letters}", exit_code=125)
        if isinstance(found, Switch):
            if letters.startswith("="):
                yield _switched(found, letters[1:])
                return
            yield _switched(found, "true")
            continue
        value = letters.removeprefix("=") if letters else next(words, None)
        if value is None:
            raise UsageMistake(f"flag needs an argument: '{letter}' in -{letter}", exit_code=125)
        yield f"{_name(found)}={value}"
        return


def _switched(switch: Switch, value: str) -> str:
    if value not in _TRUE | _FALSE:
        raise bad_value(value, switch, f'strconv.ParseBool: parsing "{value}": invalid syntax')
    return f"{_name(switch)}={'true' if value in _TRUE else 'false'}"


def _name(option: click.Option) -> str:
    return next(word for word in option.opts if word.startswith("--"))


def spelled(parameter: click.Parameter | None) -> str:
    """A flag as Docker's sentences name it: `-m, --memory`."""
    if parameter is None:
        return "?"
    short = [word for word in parameter.opts if not word.startswith("--")]
    return ", ".join([*short, *[word for word in parameter.opts if word not in short][:1]])


def bad_value(value: str, parameter: click.Parameter | None, why: str) -> UsageMistake:
    """pflag's sentence for a value that a flag can't take."""
    return UsageMistake(f'invalid argument "{value}" for "{spelled(parameter)}" flag: {why}', exit_code=125)


def conflict(sentence: str) -> UsageMistake:
    """What `docker run` itself says of values that can't be, or of flags that don't go together."""
    return UsageMistake(f"docker: {sentence}", exit_code=125)


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """`. Did you mean 'x'?` for the nearest of `choices`, or nothing."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f". Did you mean '{near[0]}'?" if near else ""
