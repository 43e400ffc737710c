"""The rules that BuildKit has too, by its names (docs.docker.com/reference/build-checks)."""

import json
import re
import shlex
from collections.abc import Iterator

from dockmagic_runtime.build import words
from dockmagic_runtime.build.checks.rule import File, Finding
from dockmagic_runtime.build.instructions import Arg as ArgInstruction
from dockmagic_runtime.build.instructions import Command, Healthcheck, Pairs

_SECRET = re.compile(
    r"(?:^|_)(?:api_?key|auth|credentials?|key|password|pword|passwd|secret|token)(?:$|_)", re.IGNORECASE
)
# A name that ends so is of where something is, or of what can be known by all.
_NO_SECRET = re.compile(
    r"public|(?:^|_)gpg_key$|_(?:file|path|dir|url|uri|type|id|name|method)$", re.IGNORECASE
)


def shell_form(file: File) -> Iterator[Finding]:
    for stage in file.stages:
        if stage.inherited("SHELL"):
            continue  # a shell that was asked for
        for step in stage.named("CMD", "ENTRYPOINT"):
            assert isinstance(step, Command)
            if step.shell is None or step.shell.startswith("exec "):
                continue  # with `exec` the program takes the shell's place, and its signals
            yield Finding(
                step.line,
                "JSONArgsRecommended",
                "a shell is in between: it gets the signal of `docker stop`, and the program is killed",
                _without_shell(step.node.name, step.shell),
            )


def _without_shell(name: str, line: str) -> str:
    """How to write it so that the program gets its signals."""
    unquoted = re.sub(r"'[^']*'|\"[^\"$`\\]*\"", "", line)
    try:
        plain = None if re.search(r"[][;&|<>(){}*?~$`\\\n]|^\s*\w+=", unquoted) else shlex.split(line)
    except ValueError:
        plain = None
    if plain:
        return f"write {name} {json.dumps(plain, ensure_ascii=False)}"
    if not re.search(r"[;&|\n]|^\s*\w+=", unquoted):
        return f"write {name} exec {line}: then the program takes the shell's place"
    return f"put it in a script that ends with exec, and write {name} with its path as a JSON list"


def secrets(file: File) -> Iterator[Finding]:
    for step in [*file.arguments, *(step for stage in file.stages for step in stage.steps)]:
        if isinstance(step, Pairs) and step.node.name == "ENV":
            names = [key for key, _ in step.pairs]
        elif isinstance(step, ArgInstruction):
            names = [name for name, _ in step.defaults]
        else:
            continue
        for name in names:
            if _SECRET.search(name) and not _NO_SECRET.search(name):
                yield Finding(
                    step.line,
                    "SecretsUsedInArgOrEnv",
                    f"{name} can be read by whoever has the image: docker history, docker inspect",
                    "use RUN --mount=type=secret for the build, and run -e for containers",
                )


def only_the_last_counts(file: File) -> Iterator[Finding]:
    for stage in file.stages:
        for name in ("CMD", "ENTRYPOINT", "HEALTHCHECK"):
            for step in stage.named(name)[:-1]:
                if isinstance(step, Command | Healthcheck):
                    yield Finding(
                        step.line,
                        "MultipleInstructionsDisallowed",
                        f"of several {name} in a stage only the last counts",
                        f"remove this {name}",
                    )


def names(file: File) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage in file.stages:
        if stage.start.name is None:
            continue
        written = stage.start.node.text.split()[2]
        if written != written.lower():
            yield Finding(
                stage.start.line,
                "StageNameCasing",
                f"the stage is called {stage.start.name}, whatever the case it is written in",
                f"write AS {stage.start.name}",
            )
        if stage.start.name in seen:
            yield Finding(
                stage.start.line,
                "DuplicateStageName",
                f"there is a stage {stage.start.name} already: --from means the last one before it",
                "give it another name",
            )
        seen.add(stage.start.name)
        if stage.start.name in ("scratch", "context"):
            yield Finding(
                stage.start.line,
                "ReservedStageName",
                "the name has a meaning of its own",
                "give it another name",
            )


def old_forms(file: File) -> Iterator[Finding]:
    for stage in file.stages:
        for step in stage.steps:
            name, text = step.node.name, step.node.text
            if name == "MAINTAINER":
                yield Finding(
                    step.line,
                    "MaintainerDeprecated",
                    "MAINTAINER is no longer used",
                    f'write LABEL org.opencontainers.image.authors="{text}"',
                )
            elif name in ("ENV", "LABEL") and "=" not in words.tokens(text, step.node.escape)[0]:
                key, _, value = text.partition(" ")
                yield Finding(
                    step.line,
                    "LegacyKeyValueFormat",
                    "without = the whole rest of the line is the value",
                    f'write {name} {key}="{value.strip()}"',
                )


def relative_workdir(file: File) -> Iterator[Finding]:
    for stage in file.stages:
        if stage.base and stage.base.inherited("WORKDIR"):
            continue
        for step in stage.named("WORKDIR"):
            if step.node.text.startswith(("/", "$")):
                break
            yield Finding(
                step.line,
                "WorkdirRelativePath",
                "it is relative to the directory of the base image, which may change",
                f"write WORKDIR /{step.node.text}",
            )
            break
