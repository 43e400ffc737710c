"""What is usually better done otherwise in a Dockerfile: each rule with its reason and its fix.

    rule            what a rule gets, and what it gives
    buildkit        the rules that BuildKit has too
    practices       Docker's best practices, and the usual course's

BuildKit's rules are called as there, so that a `# check=skip=RuleName` in the file counts for both. Nothing
here stops a build.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from dockmagic_runtime.build.checks import buildkit, practices
from dockmagic_runtime.build.checks.rule import File, Finding, stages_of
from dockmagic_runtime.build.instructions import Instruction

_SKIP = re.compile(r"^#\s*check\s*=.*?\bskip\s*=\s*([^;]+)", re.IGNORECASE)


def check(
    text: str, instructions: Sequence[Instruction], *, ignores: bool | None, target: str | None = None
) -> list[Finding]:
    """By line. `ignores`: whether there is a .dockerignore, None if there is no context."""
    skipped = _skipped(text)
    stages, arguments = stages_of(instructions)
    if not stages or "all" in skipped:
        return []
    wanted = [stage for stage in stages if target and stage.start.name == target.lower()]
    if target and target.isdigit() and int(target) < len(stages):
        wanted = wanted or [stages[int(target)]]
    file = File(stages, (wanted or stages)[-1], arguments, ignores)
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


_RULES: Sequence[Callable[[File], Iterator[Finding]]] = (
    practices.unpinned,
    practices.consecutive_runs,
    practices.apt,
    practices.copy_before_workdir,
    practices.copy_before_install,
    practices.no_dockerignore,
    practices.add,
    buildkit.shell_form,
    practices.root,
    buildkit.secrets,
    practices.no_healthcheck,
    buildkit.only_the_last_counts,
    buildkit.names,
    buildkit.old_forms,
    buildkit.relative_workdir,
)
