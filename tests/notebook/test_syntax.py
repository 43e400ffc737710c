"""Docker's command line: what is understood, and the sentences for what is not."""

from typing import Any

import click
import pytest

from dockmagic.errors import UsageMistake
from dockmagic.grammar import docker, syntax
from dockmagic.grammar.kinds import DURATION, SIZE, SIZE_OR_UNLIMITED
from dockmagic.grammar.syntax import HelpAsked, Refused


def parsed(*words: str) -> dict[str, Any]:
    """The parameters that `docker run WORDS` comes to."""
    command = docker.commands[words[0]]
    with command.make_context(f"docker {words[0]}", list(words[1:])) as context:
        return context.params


def mistake(*words: str) -> UsageMistake:
    with pytest.raises(UsageMistake) as caught:
        syntax.run(docker, words, None)
    return caught.value


def test_everything_after_the_image_is_the_command() -> None:
    given = parsed("run", "--rm", "busybox", "ls", "--rm", "-la", "--", "x")
    assert given["rm"] is True
    assert given["image"] == "busybox"
    assert given["command"] == ("ls", "--rm", "-la", "--", "x")


def test_combined_short_flags_with_a_value_at_their_end() -> None:
    given = parsed("run", "-dp", "8080:80", "-itw", "/src", "-eA=1", "nginx")
    assert given["detach"] and given["interactive"] and given["tty"]
    assert given["publish"] == ("8080:80",)
    assert given["workdir"] == "/src"
    assert given["env"] == ("A=1",)


@pytest.mark.parametrize(
    ("word", "value"), [("--rm", True), ("--rm=true", True), ("--rm=1", True), ("--rm=false", False)]
)
def test_switches_take_a_value_after_equals(word: str, value: bool) -> None:
    given = parsed("run", word, "busybox")
    assert given["rm"] is value
    assert given["image"] == "busybox"


def test_a_value_that_looks_like_a_switch_is_a_value() -> None:
    assert parsed("run", "--name", "--rm=false", "busybox")["name"] == "--rm=false"


def test_values_after_equals() -> None:
    given = parsed("run", "--name=web", "-e=A=1", "--env=B=2", "-m=64m", "busybox")
    assert given["name"] == "web"
    assert given["env"] == ("A=1", "B=2")
    assert given["memory"] == 64 << 20


def test_flags_may_follow_arguments_where_docker_lets_them() -> None:
    given = parsed("logs", "web", "-f", "--tail", "5")
    assert (given["name"], given["follow"], given["tail"]) == ("web", True, "5")


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        (["foo"], "docker: unknown command: docker foo", 1),
        (["psx"], "docker: unknown command: docker psx. Did you mean 'ps'?", 1),
        (["image", "pul"], "docker: unknown command: docker image pul. Did you mean 'pull'?", 1),
        (["run", "--naem", "x", "busybox"], "unknown flag: --naem. Did you mean '--name'?", 125),
        (["run", "-Z", "busybox"], "unknown shorthand flag: 'Z' in -Z", 125),
        (["run"], "docker: 'docker run' requires at least 1 argument. See 'docker run --help'.", 1),
        (["tag", "a"], "docker: 'docker tag' requires 2 arguments. See 'docker tag --help'.", 1),
        (["rename", "a"], "docker: 'docker rename' requires 2 arguments. See 'docker rename --help'.", 1),
        (["ps", "extra"], "docker: 'docker ps' accepts no arguments. See 'docker ps --help'.", 1),
        (
            ["run", "--memory", "zz", "busybox"],
            'invalid argument "zz" for "-m, --memory" flag: invalid size: \'zz\'',
            125,
        ),
        (["run", "--name"], "flag needs an argument: --name", 125),
        (["run", "-p"], "flag needs an argument: 'p' in -p", 125),
    ],
)
def test_mistakes_have_dockers_sentences(words: list[str], sentence: str, code: int) -> None:
    error = mistake(*words)
    assert str(error) == sentence
    assert error.exit_code == code


def test_help_is_the_commands_usage_and_flags() -> None:
    with pytest.raises(HelpAsked) as asked:
        syntax.run(docker, ["run", "--help"], None)
    text = str(asked.value)
    assert text.startswith("Usage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n")
    assert "--publish" in text and "-p" in text


def test_every_command_has_help() -> None:
    def walk(group: click.Group, path: tuple[str, ...]) -> None:
        for word, command in group.commands.items():
            if isinstance(command, Refused):
                continue
            with pytest.raises(HelpAsked) as asked:
                syntax.run(docker, [*path, word, "--help"], None)
            assert command.help and command.help.split()[0] in str(asked.value)
            if isinstance(command, click.Group):
                walk(command, (*path, word))

    walk(docker, ())


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("64m", 64 << 20), ("1.5g", 3 << 29), ("2KiB", 2048), ("10MB", 10 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    assert SIZE.convert(text, None, None) == size


def test_without_limit_only_where_it_means_something() -> None:
    assert SIZE_OR_UNLIMITED.convert("-1", None, None) == -1
    with pytest.raises(UsageMistake):
        SIZE.convert("-1", None, None)


def test_durations_are_go_durations() -> None:
    assert DURATION.convert("1m30s", None, None) == 90 * 10**9
    assert DURATION.convert("250ms", None, None) == 250 * 10**6
    with pytest.raises(UsageMistake):
        DURATION.convert("5 minutes", None, None)
