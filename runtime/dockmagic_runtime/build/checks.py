"""What is usually better done otherwise in a Dockerfile: each rule with its reason and its fix.

Where BuildKit has the same rule it is called as there (docs.docker.com/reference/build-checks), so that a
`# check=skip=RuleName` in the file counts for both; the others are Docker's best practices and the usual
course's. Nothing here stops a build.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dockmagic_runtime.build import words
from dockmagic_runtime.build.instructions import Arg as ArgInstruction
from dockmagic_runtime.build.instructions import Command, Copy, From, Healthcheck, Instruction, Pairs, Text
from dockmagic_runtime.errors import InvalidParameter

_SKIP = re.compile(r"^#\s*check\s*=.*?\bskip\s*=\s*([^;]+)", re.IGNORECASE)
_SECRET = re.compile(
    r"(?:^|_)(?:api_?key|auth|credentials?|key|password|pword|passwd|secret|token)(?:$|_)", re.IGNORECASE
)
# A name that ends so is of where something is, or of what can be known by all.
_NO_SECRET = re.compile(
    r"public|(?:^|_)gpg_key$|_(?:file|path|dir|url|uri|type|id|name|method)$", re.IGNORECASE
)
_ARCHIVE = re.compile(r"\.(?:tar|tgz|tbz2?|txz|tar\.(?:gz|bz2|xz|zst))$", re.IGNORECASE)
_INSTALLS = re.compile(
    r"\b(?:(?:npm|pnpm) (?:ci|install)|yarn(?: install|(?= *(?:$|[;&|\n])))|bundle install|composer install"
    r"|pip3? install(?! (?:-\S+ )*(?:\.|-e)))(?![\w-])"
)
_STEPS_DOWN = re.compile(r"\b(?:gosu|su-exec|setpriv|s6-setuidgid|runuser|chpst)\b")
# Official images whose own start gives root up, for all that a client can reach.
_STEPPING_DOWN = frozenset(
    ("nginx", "httpd", "haproxy", "memcached", "mariadb", "mysql", "mongo", "postgres", "rabbitmq", "redis")
)
_NOBODY = re.compile(r"nonroot|non-root|unprivileged|rootless", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """`line` is of the Dockerfile, from 1."""

    line: int
    rule: str
    reason: str
    fix: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Stage:
    """`base` is the stage that it begins with, None for an image: `image`, with the defaults of ARG."""

    start: From
    steps: list[Instruction]
    base: "_Stage | None"
    image: str

    def named(self, *names: str) -> list[Instruction]:
        return [step for step in self.steps if step.node.name in names]

    @property
    def lineage(self) -> list["_Stage"]:
        """The stages whose layers and settings it has, the first one first."""
        return [*(self.base.lineage if self.base else []), self]

    def inherited(self, *names: str) -> list[Instruction]:
        """As `named`, with those of the stages that it begins with."""
        return [step for stage in self.lineage for step in stage.named(*names)]


@dataclass(frozen=True)
class _File:
    """`last` is the stage that becomes the image; `arguments` stand before any FROM."""

    stages: list[_Stage]
    last: _Stage
    arguments: list[ArgInstruction]
    ignores: bool | None

    @property
    def kept(self) -> list[_Stage]:
        """The stages whose layers the image has; those of the others are left behind."""
        return self.last.lineage


def check(
    text: str, instructions: Sequence[Instruction], *, ignores: bool | None, target: str | None = None
) -> list[Finding]:
    """By line. `ignores`: whether there is a .dockerignore, None if there is no context."""
    skipped = _skipped(text)
    stages, arguments = _stages(instructions)
    if not stages or "all" in skipped:
        return []
    wanted = [stage for stage in stages if target and stage.start.name == target.lower()]
    if target and target.isdigit() and int(target) < len(stages):
        wanted = wanted or [stages[int(target)]]
    file = _File(stages, (wanted or stages)[-1], arguments, ignores)
    found = [finding for rule in _RULES for finding in rule(file)]
    return sorted(
        (finding for finding in found if finding.rule.lower() not in skipped), key=lambda each: each.line
    )


def _stages(instructions: Sequence[Instruction]) -> tuple[list[_Stage], list[ArgInstruction]]:
    stages: list[_Stage] = []
    arguments: list[ArgInstruction] = []
    defaults: dict[str, str] = {}
    for instruction in instructions:
        if isinstance(instruction, From):
            image = with_defaults(instruction.image, defaults)
            base = next((each for each in reversed(stages) if each.start.name == image.lower()), None)
            stages.append(_Stage(instruction, [], base, image))
        elif stages:
            stages[-1].steps.append(instruction)
        elif isinstance(instruction, ArgInstruction):
            arguments.append(instruction)
            for name, default in instruction.defaults:
                if default is not None:
                    defaults[name] = with_defaults(default, defaults)
    return stages, arguments


def with_defaults(text: str, defaults: Mapping[str, str]) -> str:
    """As it is written where a variable has no default: a --build-arg decides."""
    names = re.findall(r"\$\{?(\w+)", text)
    try:
        return words.expand(text, defaults) if all(name in defaults for name in names) else text
    except InvalidParameter:
        return text


def _skipped(text: str) -> set[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if match := _SKIP.match(line):
            return {name.strip().lower() for name in match[1].split(",")}
    return set()


def _unpinned(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
        if stage.base is None and (finding := _floats(stage.start, stage.image)):
            yield finding
        earlier = {each.start.name for each in file.stages}
        for step in stage.named("COPY"):
            assert isinstance(step, Copy)
            named = step.stage is not None and step.stage.lower() not in earlier and not step.stage.isdigit()
            if named and (finding := _floats(step, step.stage or "")):
                yield finding


def _floats(step: Instruction, image: str) -> Finding | None:
    if image == "scratch" or "$" in image or "@" in image:
        return None
    path, _, name = image.rpartition("/")
    name, _, tag = name.partition(":")
    if tag not in ("", "latest"):
        return None
    pinned = f"{path}/{name}:1.2" if path else f"{name}:1.2"
    how = f"FROM {pinned}" if isinstance(step, From) else f"--from={pinned}"
    return Finding(
        step.line,
        "PinnedBaseImage",
        f"{image} means another image tomorrow than today" + ("" if tag else ": no tag is :latest"),
        f"name a version, as in {how}, or a digest",
    )


def _consecutive_runs(file: _File) -> Iterator[Finding]:
    for stage in file.kept:
        row: list[Command] = []
        for step in [*stage.steps, None]:
            alike = isinstance(step, Command) and step.node.name == "RUN"
            if isinstance(step, Command) and alike and (not row or _same_way(row[-1], step)):
                row.append(step)
                continue
            if len(row) > 1:
                yield Finding(
                    row[0].line,
                    "ConsecutiveRuns",
                    f"{len(row)} RUN in a row make {len(row)} layers; what one deletes stays in those before",
                    "join them with && in one RUN, or in a here-document (RUN <<EOF)",
                )
            row = [step] if isinstance(step, Command) and alike else []


def _same_way(one: Command, other: Command) -> bool:
    """With the same mounts, network and privileges: else they can't be one."""
    return one.node.flags == other.node.flags


def _apt(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
        for step in stage.named("RUN"):
            script = _script(step)
            if not re.search(r"\bapt(?:-get)? ", script):
                continue
            installs = re.search(r"\bapt(?:-get)?\s+(?:\S+\s+)*?install\b", script)
            cached = any("apt" in mount.get("target") for mount in getattr(step, "mounts", ()))
            if not installs:
                updates = re.search(r"\bapt(?:-get)? (?:-\S+ )*update\b", script)
                uses = re.search(
                    r"\bapt(?:-get)? (?:-\S+ )*(?:(?:dist-|full-)?upgrade|build-dep|source)\b", script
                )
                if updates and not uses:
                    yield Finding(
                        step.line,
                        "AptUpdateAlone",
                        "this layer is cached: a later install would use an old list of packages",
                        "write apt-get update && apt-get install … in one RUN",
                    )
                continue
            if stage in file.kept and not cached and "/var/lib/apt/" not in script:
                yield Finding(
                    step.line,
                    "AptListsKept",
                    "the lists of packages stay in the layer, tens of megabytes that no container needs",
                    "end the same RUN with && rm -rf /var/lib/apt/lists/*",
                )
            # -qq says yes too.
            if not re.search(r"\s-[a-zA-Z]*(?:y|qq)[a-zA-Z]*\b|--yes|--assume-yes", script):
                yield Finding(
                    step.line,
                    "AptAsks",
                    "apt-get install asks whether to go on, and nobody answers in a build",
                    "add -y",
                )


def _copy_before_workdir(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
        if stage.base and stage.base.inherited("WORKDIR"):
            continue
        for step in stage.steps:
            if step.node.name == "WORKDIR":
                break
            if isinstance(step, Copy) and not step.target.startswith(("/", "$")):
                yield Finding(
                    step.line,
                    "CopyBeforeWorkdir",
                    f"{step.target} is relative, and no WORKDIR says to what: it lands wherever the image is",
                    "put WORKDIR before it, or write the whole path",
                )


def _copy_before_install(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
        everything: Copy | None = None
        for step in stage.steps:
            if isinstance(step, Copy) and step.stage is None and step.sources in ((".",), ("./",)):
                everything = step
            elif everything and step.node.name == "RUN" and (match := _INSTALLS.search(_script(step))):
                yield Finding(
                    everything.line,
                    "CopyBeforeInstall",
                    f"any changed file has `{match[0]}` of line {step.line} run again",
                    "copy the list of dependencies first, install, and copy the rest after that",
                )
                break


def _no_dockerignore(file: _File) -> Iterator[Finding]:
    if file.ignores is not False:
        return
    for stage in file.stages:
        for step in stage.steps:
            if isinstance(step, Copy) and step.stage is None and set(step.sources) & {".", "./", "*"}:
                yield Finding(
                    step.line,
                    "MissingDockerignore",
                    "everything is copied: .git, node_modules, passwords in .env",
                    "list in a file .dockerignore what is to stay out",
                )
                return


def _add(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
        for step in stage.named("ADD"):
            assert isinstance(step, Copy)
            if not any("://" in each or _ARCHIVE.search(each) or "$" in each for each in step.sources):
                yield Finding(
                    step.line,
                    "AddWhereCopyDoes",
                    "ADD also downloads and unpacks: a reader must ask which of it is meant",
                    "write COPY",
                )


def _shell_form(file: _File) -> Iterator[Finding]:
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


def _root(file: _File) -> Iterator[Finding]:
    users = [step for step in file.last.inherited("USER") if isinstance(step, Text)]
    root = users[-1].text.partition(":")[0] in ("root", "0") if users else not _has_a_user(file.last)
    commands = file.last.inherited("RUN", "ENTRYPOINT", "CMD")
    if root and not any(_STEPS_DOWN.search(_script(step)) for step in commands):
        yield Finding(
            users[-1].line if users else file.last.start.line,
            "RunsAsRoot",
            "the program runs as root: who breaks into it is root in the container",
            "make a user and end with USER name",
        )


def _has_a_user(stage: _Stage) -> bool:
    """Whether the image that it begins with is known not to run its program as root."""
    image = stage.lineage[0].image
    name = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    starts = stage.inherited("CMD", "ENTRYPOINT")
    return image == "scratch" or bool(_NOBODY.search(image)) or (name in _STEPPING_DOWN and not starts)


def _secrets(file: _File) -> Iterator[Finding]:
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


def _no_healthcheck(file: _File) -> Iterator[Finding]:
    starts = file.last.inherited("CMD", "ENTRYPOINT")
    image = file.last.lineage[0].image
    bare = image == "scratch" or "distroless" in image  # without a tool that could ask
    if file.last.inherited("EXPOSE") and starts and not bare and not file.last.inherited("HEALTHCHECK"):
        yield Finding(
            starts[-1].line,
            "NoHealthcheck",
            "it can hang and still be called running",
            "add HEALTHCHECK CMD with a command that asks it something",
        )


def _only_the_last_counts(file: _File) -> Iterator[Finding]:
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


def _names(file: _File) -> Iterator[Finding]:
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


def _old_forms(file: _File) -> Iterator[Finding]:
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


def _relative_workdir(file: _File) -> Iterator[Finding]:
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


def _script(step: Instruction) -> str:
    if not isinstance(step, Command):
        return ""
    said = step.shell if step.shell is not None else " ".join(step.exec)
    return said + "".join(f"\n{heredoc.content}" for heredoc in step.node.heredocs)


_RULES: Sequence[Callable[[_File], Iterator[Finding]]] = (
    _unpinned,
    _consecutive_runs,
    _apt,
    _copy_before_workdir,
    _copy_before_install,
    _no_dockerignore,
    _add,
    _shell_form,
    _root,
    _secrets,
    _no_healthcheck,
    _only_the_last_counts,
    _names,
    _old_forms,
    _relative_workdir,
)
