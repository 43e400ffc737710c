"""What is usually better done otherwise in a Dockerfile: each rule with its reason and its fix.

Where BuildKit has the same rule it is called as there (docs.docker.com/reference/build-checks), so that a
`# check=skip=RuleName` in the file counts for both; the others are Docker's best practices and the usual
course's. Nothing here stops a build.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dockmagic_runtime.build.instructions import Arg as ArgInstruction
from dockmagic_runtime.build.instructions import Command, Copy, From, Healthcheck, Instruction, Pairs, Text

_SKIP = re.compile(r"^#\s*check\s*=.*?\bskip\s*=\s*([^;]+)", re.IGNORECASE)
_SECRET = re.compile(
    r"(?:^|_)(?:api_?key|auth|credentials?|key|password|pword|passwd|secret|token)(?:$|_)", re.IGNORECASE
)
_ARCHIVE = re.compile(r"\.(?:tar|tgz|tbz2?|txz|tar\.(?:gz|bz2|xz|zst))$", re.IGNORECASE)
_INSTALLS = re.compile(
    r"\b(?:npm (?:ci|install)|yarn(?: install)?|pip3? install|bundle install|composer install)\b"
)


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
    start: From
    steps: list[Instruction]

    def named(self, *names: str) -> list[Instruction]:
        return [step for step in self.steps if step.node.name in names]


@dataclass(frozen=True)
class _File:
    stages: list[_Stage]
    ignores: bool | None

    @property
    def last(self) -> _Stage:
        return self.stages[-1]


def check(text: str, instructions: Sequence[Instruction], *, ignores: bool | None) -> list[Finding]:
    """By line. `ignores`: whether there is a .dockerignore, None if there is no context."""
    stages: list[_Stage] = []
    for instruction in instructions:
        if isinstance(instruction, From):
            stages.append(_Stage(instruction, []))
        elif stages:
            stages[-1].steps.append(instruction)
    skipped = _skipped(text)
    if not stages or "all" in skipped:
        return []
    file = _File(stages, ignores)
    found = [finding for rule in _RULES for finding in rule(file)]
    return sorted(
        (finding for finding in found if finding.rule.lower() not in skipped), key=lambda each: each.line
    )


def _skipped(text: str) -> set[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if match := _SKIP.match(line):
            return {name.strip().lower() for name in match[1].split(",")}
    return set()


def _unpinned(file: _File) -> Iterator[Finding]:
    names = {stage.start.name for stage in file.stages}
    for stage in file.stages:
        image = stage.start.image
        if image == "scratch" or image.lower() in names or "$" in image or "@" in image:
            continue
        tag = image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            yield Finding(
                stage.start.line,
                "PinnedBaseImage",
                f"{image} means another image tomorrow than today" + ("" if tag else ": no tag is :latest"),
                f"name a version, as in FROM {image.partition(':')[0]}:1.2, or a digest",
            )


def _consecutive_runs(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
        row: list[Instruction] = []
        for step in [*stage.steps, None]:
            if step is not None and step.node.name == "RUN":
                row.append(step)
                continue
            if len(row) > 1:
                yield Finding(
                    row[0].line,
                    "ConsecutiveRuns",
                    f"{len(row)} RUN in a row make {len(row)} layers; what one deletes stays in those before",
                    "join them with && in one RUN, or in a here-document (RUN <<EOF)",
                )
            row = []


def _apt(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
        for step in stage.named("RUN"):
            script = _script(step)
            if not re.search(r"\bapt(?:-get)? ", script):
                continue
            installs = re.search(r"\bapt(?:-get)?\s+(?:\S+\s+)*?install\b", script)
            cached = any("apt" in mount.get("target") for mount in getattr(step, "mounts", ()))
            if not installs:
                if re.search(r"\bapt(?:-get)? (?:-\S+ )*update\b", script):
                    yield Finding(
                        step.line,
                        "AptUpdateAlone",
                        "this layer is cached: a later install would use an old list of packages",
                        "write apt-get update && apt-get install … in one RUN",
                    )
                continue
            if not cached and "/var/lib/apt/lists" not in script:
                yield Finding(
                    step.line,
                    "AptListsKept",
                    "the lists of packages stay in the layer, tens of megabytes that no container needs",
                    "end the same RUN with && rm -rf /var/lib/apt/lists/*",
                )
            if not re.search(r"\s-(?:y|qy|yq|qqy|yqq)\b|--yes|--assume-yes", script):
                yield Finding(
                    step.line,
                    "AptAsks",
                    "apt-get install asks whether to go on, and nobody answers in a build",
                    "add -y",
                )


def _copy_before_workdir(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
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
                    "everything goes into the image: .git, node_modules, passwords in .env",
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
        for step in stage.named("CMD", "ENTRYPOINT"):
            assert isinstance(step, Command)
            if step.shell is not None:
                words = ", ".join(f'"{word}"' for word in step.shell.split())
                yield Finding(
                    step.line,
                    "JSONArgsRecommended",
                    "a shell is in between: it gets the signal of `docker stop`, and the program is killed",
                    f"write {step.node.name} [{words}]",
                )


def _root(file: _File) -> Iterator[Finding]:
    users = [step.text for step in file.last.named("USER") if isinstance(step, Text)]
    if file.last.start.image == "scratch" and not users:
        return
    if not users or users[-1].partition(":")[0] in ("root", "0"):
        line = file.last.named("USER")[-1].line if users else file.last.start.line
        yield Finding(
            line,
            "RunsAsRoot",
            "the program runs as root: who breaks into it is root in the container",
            "make a user and end with USER name",
        )


def _secrets(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
        for step in stage.steps:
            if isinstance(step, Pairs) and step.node.name == "ENV":
                names = [key for key, _ in step.pairs]
            elif isinstance(step, ArgInstruction):
                names = [name for name, _ in step.defaults]
            else:
                continue
            for name in names:
                if _SECRET.search(name) and "public" not in name.lower():
                    yield Finding(
                        step.line,
                        "SecretsUsedInArgOrEnv",
                        f"{name} can be read by whoever has the image: docker history, docker inspect",
                        "use RUN --mount=type=secret for the build, and run -e for containers",
                    )


def _no_healthcheck(file: _File) -> Iterator[Finding]:
    serves = file.last.named("EXPOSE") and file.last.named("CMD", "ENTRYPOINT")
    if serves and not file.last.named("HEALTHCHECK"):
        yield Finding(
            file.last.named("CMD", "ENTRYPOINT")[-1].line,
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
        words = stage.start.node.text.split()
        if len(words) != 3:
            continue
        if words[2] != words[2].lower():
            yield Finding(
                stage.start.line,
                "StageNameCasing",
                f"the stage is called {words[2].lower()}, whatever the case it is written in",
                f"write AS {words[2].lower()}",
            )
        if stage.start.name in seen:
            yield Finding(
                stage.start.line,
                "DuplicateStageName",
                f"there is a stage {stage.start.name} already: --from means the last one before it",
                "give it another name",
            )
        seen.add(stage.start.name or "")
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
            elif name in ("ENV", "LABEL") and "=" not in text.split(None, 1)[0]:
                key, _, value = text.partition(" ")
                yield Finding(
                    step.line,
                    "LegacyKeyValueFormat",
                    "without = the whole rest of the line is the value",
                    f'write {name} {key}="{value.strip()}"',
                )


def _relative_workdir(file: _File) -> Iterator[Finding]:
    for stage in file.stages:
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
