"""One step after another: what each instruction does to a stage's state, from the cache or by doing it.

A step that writes files gets a snapshot on the stage's layers; when it is done its upper directory *becomes*
the new layer. There is no tar, no image and no container record for it, only a line in the build cache.
"""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from dockmagic_runtime import identifiers
from dockmagic_runtime.build import cache, copying, copystep, metadata
from dockmagic_runtime.build.cache import BuildCache, Record
from dockmagic_runtime.build.cachesources import CacheSources
from dockmagic_runtime.build.context import Source, tree
from dockmagic_runtime.build.entries import Reading, checksum
from dockmagic_runtime.build.instructions import Arg, Command, Copy, Instruction, Text
from dockmagic_runtime.build.parser import Heredoc
from dockmagic_runtime.build.platforms import proxies_of
from dockmagic_runtime.build.progress import Progress
from dockmagic_runtime.build.readers import Readers
from dockmagic_runtime.build.run import Command as RunCommand
from dockmagic_runtime.build.run import Runner
from dockmagic_runtime.build.runmounts import RunMounts, Sources, allowed
from dockmagic_runtime.build.state import State
from dockmagic_runtime.containers.accounts import read_account_files
from dockmagic_runtime.errors import EngineError, InvalidParameter
from dockmagic_runtime.kernel import trees
from dockmagic_runtime.oci.image import timestamp
from dockmagic_runtime.process.messages import StartFailed
from dockmagic_runtime.storage.layers import Layer
from dockmagic_runtime.storage.snapshots import SnapshotStore
from dockmagic_runtime.storage.written import Written
from dockmagic_runtime.threads import in_thread

Json = dict[str, Any]

_PIPES = "/dev/pipes"
# What a COPY does to its files besides, of which their checksum knows nothing.
_TOLD = ("chown", "chmod", "link")


class StepFailed(EngineError):
    """A RUN command failed; `code` is what it returned."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Surroundings:
    """What all steps of one build share."""

    snapshots: SnapshotStore
    steps: Path
    cache: BuildCache
    runner: Runner
    sources: Sources
    given: dict[str, str]
    outer: dict[str, str]
    no_cache: bool
    reused: set[str]
    """The layers that were found in the cache, for the image to tell."""
    flights: dict[str, "Flight"]
    """Steps of this build by their cache key: stages that do the same at the same time do it once."""
    cache_sources: CacheSources
    readers: Readers
    epoch: int | None = None
    """SOURCE_DATE_EPOCH: the time that all is made at, for the same image on any machine."""
    limit: int | None = None
    """Bytes that an archive of ADD may unpack to."""


@dataclass
class Flight:
    """A step that some stage is doing or has done in this build."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    done: Record | None = None


class Stage:
    """A stage while it is built. `state` is what it is so far."""

    def __init__(self, state: State, around: Surroundings, progress: Progress) -> None:
        self.state = state
        self._around = around
        self._progress = progress

    async def step(self, instruction: Instruction) -> None:
        """Do one instruction. Raises DockerfileError, StepFailed and what the kernel refuses.

        An EngineError has the line and column that it is about.
        """
        self._progress.begin(instruction)
        await self.trigger(instruction)
        self._around.readers.done(instruction)

    async def trigger(self, instruction: Instruction) -> None:
        """The same for an instruction that is no step of the Dockerfile's own."""
        with self._progress.failing(instruction.node):
            if isinstance(instruction, Command) and instruction.node.name == "RUN":
                await self._run(instruction)
            elif isinstance(instruction, Copy):
                await self._copy(instruction)
            elif isinstance(instruction, Text) and instruction.node.name == "WORKDIR":
                await self._workdir(instruction)
            else:
                await self._configure(instruction)

    async def _configure(self, instruction: Instruction) -> None:
        if isinstance(instruction, Arg):
            state, told = metadata.declare(instruction, self.state, self._around.given, self._around.outer)
        else:
            state, told = metadata.apply(instruction, self.state)

        async def nothing(step: str) -> Layer | None:
            return None

        await self._cached(state, f"/bin/sh -c #(nop)  {told}", (), nothing)

    async def _workdir(self, instruction: Text) -> None:
        state, told = metadata.apply(instruction, self.state)
        path = state.config["WorkingDir"]

        async def make(step: str) -> Layer | None:
            owner = await in_thread(self._user)

            def work(root: int, upper: int | None) -> None:
                with instruction.node.blamed(instruction.text):
                    os.close(copying.make_directory(root, path, owner))

            return await self._write(step, work, may_be_empty=True)

        await self._cached(state, f"/bin/sh -c #(nop)  {told}", (), make)

    async def _copy(self, instruction: Copy) -> None:
        node = instruction.node
        written = metadata.expand(instruction, instruction.target, self.state, last=True)
        target = metadata.absolute(written, self.state)
        patterns = [self._expanded(instruction, source) for source in instruction.sources]
        chown = self._expanded(instruction, instruction.chown or "", "--chown")
        how = copystep.reading(instruction, partial(self._expanded, instruction))
        if len(patterns) > 1 and not target.endswith("/"):
            raise _needs_directory(instruction)
        files = self._around.steps.parent / "sources"
        elsewhere = await copystep.fetched(instruction, patterns, target, files)
        rootfs = None
        if instruction.stage is not None:
            with node.blamed("--from", instruction.stage):
                rootfs = await self._around.sources.tree_of(instruction.stage)
        with ExitStack() as stack:
            root = await in_thread(lambda: stack.enter_context(tree(self._around.sources.context, rootfs)))
            sources = await in_thread(
                copystep.found, instruction, patterns, root, elsewhere, self.state.environment, files, stack
            )
            if len(sources) > 1 and not target.endswith("/"):
                raise _needs_directory(instruction)
            unpack = instruction.unpack and not elsewhere
            write = partial(self._copied, instruction, sources, target, chown, how, unpack)
            digest = await in_thread(checksum, sources, how)
            told = _copy_told(instruction, sources, digest, target)
            depends = (chown, str(how.mode), str(unpack), str(instruction.link))
            await self._cached(self.state, told, depends, write)

    async def _copied(
        self,
        instruction: Copy,
        sources: Sequence[Source],
        target: str,
        chown: str,
        how: Reading,
        unpack: bool,
        step: str,
    ) -> Layer | None:
        around, context = self._around, self._around.sources.context
        taking = instruction.stage is None and around.readers.is_last(instruction)
        node = instruction.node
        # Nobody else has directories of the context in its layer.
        written = Written(context.written if taking else None)

        def work(root: int, upper: int | None) -> None:
            with node.blamed("--chown", instruction.chown or ""):
                owner = None if how.owners and not chown else self._owner(chown)
            with node.blamed(instruction.target, last=True):
                copying.copy(
                    sources,
                    root,
                    target,
                    owner=owner,
                    reading=how,
                    unpack=unpack,
                    upper=upper,
                    # With an epoch the layer's files get other times than the context's.
                    linking=around.epoch is None,
                    taking=taking,
                    written=written,
                    limit=around.limit,
                    blaming=lambda source: node.blamed(source.argument),
                )

        try:
            return await self._write(step, work, alone=instruction.link, written=written)
        finally:
            if taking:
                context.written.forget()

    def _expanded(self, instruction: Instruction, text: str, flag: str = "") -> str:
        return metadata.expand(instruction, text, self.state, flag)

    async def _run(self, instruction: Command) -> None:
        state = self.state
        allowed(instruction, self._around.sources.session, self._around.runner.network)
        line, script = _script(instruction)
        argv = [*state.shell, line] if line is not None else list(instruction.exec)
        program = argv if script is None else [f"{_PIPES}/{script.name}"]
        named = {entry.partition("=")[0] for entry in state.config.get("Env") or ()}
        declared = [f"{name}={value}" for name, value in sorted(state.arguments.items()) if name not in named]
        shown = " ".join(argv)
        told = f"|{len(declared)} {' '.join(declared)} {shown}" if declared else shown
        proxies = [
            f"{name}={value}"
            for name, value in proxies_of(self._around.given)
            if name not in named and name not in state.arguments
        ]

        mounts = RunMounts(
            instruction,
            self._around.sources,
            partial(self._expanded, instruction),
            lambda path: metadata.absolute(path, state),
        )
        depends = await mounts.depends()

        async def execute(step: str) -> Layer | None:
            self._progress.running(step)
            directory = self._around.steps / step
            rootfs = await in_thread(self._around.snapshots.prepare, step, state.diff_ids)
            # Not in the step's own directory, over which its first process hangs the root for a moment.
            async with mounts.held(rootfs, self._around.steps.parent / "mounts" / step) as held:
                command = RunCommand(
                    step,
                    program,
                    state.config,
                    [*declared, *proxies, *held.variables],
                    [*held.mounts, *_script_mount(script, directory)],
                    instruction.network,
                    instruction.insecure,
                )
                try:
                    code = await self._around.runner.run(
                        command, held.rootfs, directory, self._progress.output
                    )
                except StartFailed as error:
                    raise StepFailed(str(error), error.exit_code) from error
            if code:
                raise StepFailed(f"The command '{shown}' returned a non-zero code: {code}", code)
            layer = await in_thread(self._commit, step)
            self._progress.removed(step)
            return layer

        # The exec form and the shell form of the same words are different commands.
        form = "exec" if line is None else "shell" if script is None else "script"
        given = (instruction.network, "insecure") if instruction.insecure else (instruction.network,)
        depends += given if given != ("default",) else ()
        # Of these the history says all; mounts and the like it does not.
        known_elsewhere = form == "shell" and not depends
        await self._cached(state, told, (form, *argv, *depends), execute, known_elsewhere)

    async def _cached(
        self,
        state: State,
        told: str,
        depends: tuple[str, ...],
        do: Callable[[str], Awaitable[Layer | None]],
        known_elsewhere: bool = True,
    ) -> None:
        """Find the step in the cache, or do it and remember it; `state` with its outcome is then ours.

        `known_elsewhere`: `told` says it all, so that an image of `--cache-from` will do.
        """
        epoch = self._around.epoch
        cache_key = cache.key(self.state.id, told, *depends, *(() if epoch is None else (str(epoch),)))
        flight = self._around.flights.setdefault(cache_key, Flight())
        async with flight.lock:
            record = flight.done
            if record is None and not self._around.no_cache:
                record = self._around.cache.get(cache_key)
                if record is None and known_elsewhere:
                    record = self._around.cache_sources.find(self.state, told)
            flight.done = await self._found_or_done(cache_key, record, state, told, do)

    async def _found_or_done(
        self,
        cache_key: str,
        record: Record | None,
        state: State,
        told: str,
        do: Callable[[str], Awaitable[Layer | None]],
    ) -> Record:
        layer = self._around.snapshots.layer(record.diff_id) if record and record.diff_id else None
        if record and (layer or not record.diff_id):
            self.state = state.after(told, record.created, record.diff_id)
            if layer:
                self._around.reused.add(layer.diff_id)
            self._progress.cached(self.state.short_id, layer.size if layer else 0)
            return record
        started = time.monotonic()
        step = identifiers.new()
        try:
            layer = await do(step)
        finally:
            await in_thread(_remove, self._around.snapshots, self._around.steps, step)
        record = Record(layer.diff_id if layer else None, self._now())
        self._around.cache.put(cache_key, record)
        self.state = state.after(told, record.created, record.diff_id)
        self._progress.built(self.state.short_id, layer.size if layer else 0, time.monotonic() - started)
        return record

    async def _write(
        self,
        step: str,
        work: Callable[[int, int | None], None],
        *,
        may_be_empty: bool = False,
        alone: bool = False,
        written: Written | None = None,
    ) -> Layer | None:
        """Let `work` write into the stage's tree, and make a layer of that.

        It gets descriptors of the tree, mounted, and of the directory where what it writes goes.
        `alone`: into an empty tree, so that the layer says nothing of what is below it (`--link`).
        `written`: its files are copies, of which that tells.
        """

        def do() -> Layer | None:
            snapshots = self._around.snapshots
            snapshots.prepare(step, self.state.diff_ids)
            upper = os.open(snapshots.upper(step), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if alone:
                    work(upper, None)
                else:
                    with snapshots.mounted(step, writable=True) as root:
                        work(root, upper)
            finally:
                os.close(upper)
            if may_be_empty and not any(snapshots.upper(step).iterdir()):
                return None
            return self._commit(step, written)

        return await in_thread(do)

    def _commit(self, step: str, written: Written | None = None) -> Layer:
        snapshots, epoch = self._around.snapshots, self._around.epoch
        if epoch is not None:
            copystep.settle(snapshots.upper(step), epoch, everything=written is not None)
            written = None  # it knows other times
        return snapshots.commit(step, move=True, written=written)

    def _now(self) -> str:
        epoch = self._around.epoch
        return timestamp(None if epoch is None else datetime.fromtimestamp(epoch, UTC))

    def _owner(self, chown: str) -> tuple[int, int]:
        """`--chown`, by the stage's own passwd and group; a number alone stands for the group as well."""
        if not chown:
            return 0, 0
        user, _, group = chown.partition(":")
        view = self._around.snapshots.view(self.state.diff_ids)
        account = read_account_files(view).resolve(
            f"{user}:{user}" if user.isdecimal() and not group else chown
        )
        return account.uid, account.gid

    def _user(self) -> tuple[int, int]:
        """Who owns what WORKDIR makes: the USER, as in BuildKit; root if there is no such user."""
        try:
            return self._owner(self.state.config.get("User") or "")
        except InvalidParameter:
            return 0, 0


def _needs_directory(instruction: Copy) -> InvalidParameter:
    return instruction.node.error(
        f"When using {instruction.node.name} with more than one source file, the destination must be a"
        " directory and end with a /",
        instruction.target,
        last=True,
    )


def _copy_told(instruction: Copy, sources: Sequence[Source], digest: str, target: str) -> str:
    """As the classic builder tells it in an image's history."""
    kind = "multi" if len(sources) != 1 else "dir" if sources[0].is_directory else "file"
    options = "".join(f"--{key}={value} " for key, value in instruction.node.flags if key in _TOLD)
    return f"/bin/sh -c #(nop) {instruction.node.name} {options}{kind}:{digest} in {target} "


def _script(instruction: Command) -> tuple[str | None, Heredoc | None]:
    """The shell's line, None for the exec form. A here-document that is all of it *is* the script, and with
    `#!` a program; others are for the shell itself to read."""
    heredocs = instruction.node.heredocs
    line = instruction.shell
    if line is None or not heredocs:
        return line, None
    first = heredocs[0]
    if len(heredocs) == 1 and re.fullmatch(r"<<-?\S+", line):
        return first.content, first if first.content.startswith("#!") else None
    return line + "".join(f"\n{each.lines}{each.name}" for each in heredocs), None


def _script_mount(script: Heredoc | None, directory: Path) -> list[Json]:
    """As BuildKit: a file in /dev/pipes, called as the here-document."""
    if script is None:
        return []
    file = directory / "script"
    file.write_text(script.content)
    file.chmod(0o755)
    entry = {"destination": f"{_PIPES}/{script.name}", "type": "bind", "source": str(file)}
    return [{**entry, "options": ["bind", "rprivate", "ro"]}]


def _remove(snapshots: SnapshotStore, steps: Path, step: str) -> None:
    snapshots.remove(step)
    for directory in (steps / step, steps.parent / "mounts" / step):
        if directory.exists():
            trees.remove(directory)
