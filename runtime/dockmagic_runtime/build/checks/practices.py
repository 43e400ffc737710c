"""Docker's best practices for Dockerfiles, and the usual course's: what BuildKit has no rule for."""

import re
from collections.abc import Iterator

from dockmagic_runtime.build.checks.rule import File, Finding, Stage, script
from dockmagic_runtime.build.instructions import Command, Copy, From, Instruction, Text

_ARCHIVE = re.compile(r"\.(?:tar|tgz|tbz2?|txz|tar\.(?:gz|bz2|xz|zst))$", re.IGNORECASE)
_INSTALLS = re.compile(
    r"\b(?:(?:npm|pnpm) (?:ci|install)|yarn(?: install|(?= *(?:$|[;&|\n])))|bundle install|composer install"
    r"|pip3? install(?! (?:-\S+ )*(?:\.|-e)))(?![\w-])"
)
_APT_UPDATE = re.compile(r"\bapt(?:-get)? (?:-\S+ )*update\b")
_APT_USE = re.compile(r"\bapt(?:-get)? (?:-\S+ )*(?:(?:dist-|full-)?upgrade|build-dep|source)\b")
_STEPS_DOWN = re.compile(r"\b(?:gosu|su-exec|setpriv|s6-setuidgid|runuser|chpst)\b")
# Official images whose own start gives root up, for all that a client can reach.
_STEPPING_DOWN = frozenset(
    ("nginx", "httpd", "haproxy", "memcached", "mariadb", "mysql", "mongo", "postgres", "rabbitmq", "redis")
)
_NOBODY = re.compile(r"nonroot|non-root|unprivileged|rootless", re.IGNORECASE)


def unpinned(file: File) -> Iterator[Finding]:
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


def consecutive_runs(file: File) -> Iterator[Finding]:
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


def apt(file: File) -> Iterator[Finding]:
    for stage in file.stages:
        for step in stage.named("RUN"):
            ran = script(step)
            if not re.search(r"\bapt(?:-get)? ", ran):
                continue
            if re.search(r"\bapt(?:-get)?\s+(?:\S+\s+)*?install\b", ran):
                yield from _apt_install(step, ran, kept=stage in file.kept)
            elif _APT_UPDATE.search(ran) and not _APT_USE.search(ran):
                yield Finding(
                    step.line,
                    "AptUpdateAlone",
                    "this layer is cached: a later install would use an old list of packages",
                    "write apt-get update && apt-get install … in one RUN",
                )


def _apt_install(step: Instruction, ran: str, *, kept: bool) -> Iterator[Finding]:
    """`kept`: the image has the layer that this makes."""
    cached = any("apt" in mount.get("target") for mount in getattr(step, "mounts", ()))
    if kept and not cached and "/var/lib/apt/" not in ran:
        yield Finding(
            step.line,
            "AptListsKept",
            "the lists of packages stay in the layer, tens of megabytes that no container needs",
            "end the same RUN with && rm -rf /var/lib/apt/lists/*",
        )
    # -qq says yes too.
    if not re.search(r"\s-[a-zA-Z]*(?:y|qq)[a-zA-Z]*\b|--yes|--assume-yes", ran):
        yield Finding(
            step.line,
            "AptAsks",
            "apt-get install asks whether to go on, and nobody answers in a build",
            "add -y",
        )


def copy_before_workdir(file: File) -> Iterator[Finding]:
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


def copy_before_install(file: File) -> Iterator[Finding]:
    for stage in file.stages:
        everything: Copy | None = None
        for step in stage.steps:
            if isinstance(step, Copy) and step.stage is None and step.sources in ((".",), ("./",)):
                everything = step
            elif everything and step.node.name == "RUN" and (match := _INSTALLS.search(script(step))):
                yield Finding(
                    everything.line,
                    "CopyBeforeInstall",
                    f"any changed file has `{match[0]}` of line {step.line} run again",
                    "copy the list of dependencies first, install, and copy the rest after that",
                )
                break


def no_dockerignore(file: File) -> Iterator[Finding]:
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


def add(file: File) -> Iterator[Finding]:
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


def root(file: File) -> Iterator[Finding]:
    users = [step for step in file.last.inherited("USER") if isinstance(step, Text)]
    root = users[-1].text.partition(":")[0] in ("root", "0") if users else not _has_a_user(file.last)
    commands = file.last.inherited("RUN", "ENTRYPOINT", "CMD")
    if root and not any(_STEPS_DOWN.search(script(step)) for step in commands):
        yield Finding(
            users[-1].line if users else file.last.start.line,
            "RunsAsRoot",
            "the program runs as root: who breaks into it is root in the container",
            "make a user and end with USER name",
        )


def _has_a_user(stage: Stage) -> bool:
    """Whether the image that it begins with is known not to run its program as root."""
    image = stage.lineage[0].image
    name = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    starts = stage.inherited("CMD", "ENTRYPOINT")
    return image == "scratch" or bool(_NOBODY.search(image)) or (name in _STEPPING_DOWN and not starts)


def no_healthcheck(file: File) -> Iterator[Finding]:
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
