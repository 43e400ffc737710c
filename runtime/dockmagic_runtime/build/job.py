"""One build while it runs: a context and options become stages, and the last of them an image.

It works in a directory of its own, which whoever made the Job removes after it. The stages are built side by
side, each as soon as those that it needs are there.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockmagic_runtime import identifiers
from dockmagic_runtime.build.cache import BuildCache
from dockmagic_runtime.build.cachemounts import CacheMounts
from dockmagic_runtime.build.cachesources import CacheSources
from dockmagic_runtime.build.context import Context, drop_ignored, read_text
from dockmagic_runtime.build.ignore import Ignore
from dockmagic_runtime.build.instructions import Arg, From, Instruction, typed
from dockmagic_runtime.build.options import BuildOptions
from dockmagic_runtime.build.parser import DockerfileError, parse
from dockmagic_runtime.build.planner import SCRATCH, Plan, plan
from dockmagic_runtime.build.planner import Stage as PlannedStage
from dockmagic_runtime.build.platforms import EPOCH, PROXIES, automatic
from dockmagic_runtime.build.progress import Progress, Transcript
from dockmagic_runtime.build.readers import Readers
from dockmagic_runtime.build.run import Runner
from dockmagic_runtime.build.runmounts import Sources
from dockmagic_runtime.build.stage import Flight, Stage, Surroundings
from dockmagic_runtime.build.state import State
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.pull import Puller
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.oci.image import Platform
from dockmagic_runtime.oci.reference import parse_reference
from dockmagic_runtime.process.spawner import Spawner
from dockmagic_runtime.storage.layers import LayerStore
from dockmagic_runtime.storage.overlay import Rootfs
from dockmagic_runtime.storage.snapshots import SnapshotStore
from dockmagic_runtime.storage.squash import squash
from dockmagic_runtime.threads import in_thread, settled

Json = dict[str, Any]


@dataclass(frozen=True)
class Workshop:
    """What builds work with: the engine's nouns, and what is there for builds alone.

    `private` is where secrets are put while a step may read them, not on the disk of the data root.
    """

    config: EngineConfig
    layers: LayerStore
    images: ImageStore
    puller: Puller
    networks: Networks
    spawner: Spawner
    cache: BuildCache
    cache_mounts: CacheMounts
    private: Path


class Job:
    """One build while it runs, in a directory of its own."""

    def __init__(
        self,
        workshop: Workshop,
        build_id: str,
        directory: Path,
        context: Context,
        options: BuildOptions,
        emit: Callable[[Json], None],
    ) -> None:
        self._workshop = workshop
        self._id = build_id
        self._directory = directory
        self._context = context
        self._options = options
        self._emit = emit
        self._images = workshop.images
        self._given = {name: value for name, value in options.build_arguments.items() if value is not None}
        self._platform = Platform.parse(options.platform) if options.platform else Platform.host()
        self._states: dict[int, State] = {}
        self._reused: set[str] = set()
        self._flights: dict[str, Flight] = {}
        self._bases: dict[int, list[str]] = {}
        self._cache_sources = CacheSources(self._named_images())
        self._readers = Readers()

    async def run(self) -> str:
        references = [parse_reference(tag) for tag in self._options.tags]
        instructions = await in_thread(self._read)
        known = automatic(self._platform, self._options.target, self._given)
        planned = plan(instructions, self._given, self._options.target, known)
        self._readers.expect(planned)
        epoch = self._epoch()
        counts = [1 + len(stage.steps) for stage in planned.stages]
        transcript = Transcript(self._emit, counts, quiet=self._options.quiet)
        transcript.plan(planned)
        snapshots = SnapshotStore(self._directory / "steps", self._workshop.layers)
        await self._side_by_side(planned, snapshots, epoch, transcript)
        state = self._labelled(self._states[planned.stages[-1].index])
        if self._options.squash:
            state = await in_thread(self._squashed, state, self._bases[planned.stages[-1].index], snapshots)
        self._warn_of_unused(planned, instructions, transcript)
        image = self._images.add(state.serialized, state.diff_ids, references, cached=self._reused)
        transcript.done(image.id, [reference.familiar() for reference in references])
        return image.id

    async def _side_by_side(
        self, planned: Plan, snapshots: SnapshotStore, epoch: int | None, transcript: Transcript
    ) -> None:
        """Every stage as soon as those that it needs are there. The first to fail ends the others."""
        tasks: dict[int, asyncio.Task[None]] = {}

        async def build(number: int, stage: PlannedStage) -> None:
            for need in stage.needs:
                await asyncio.wait([tasks[need]])
                if need not in self._states:
                    return
            try:
                async with self._runner(stage) as runner:
                    around = self._surroundings(planned, stage, snapshots, runner, epoch)
                    progress = transcript.stage(number)
                    self._states[stage.index] = await self._stage(stage, around, progress)
            except Exception:
                transcript.release(number)
                raise
            transcript.end(number)

        for number, stage in enumerate(planned.stages):
            tasks[stage.index] = asyncio.create_task(build(number, stage))
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        finally:
            failed = [task for task in tasks.values() if task.done() and task.exception()]
            for task in tasks.values():
                task.cancel()
            await settled(asyncio.gather(*tasks.values(), return_exceptions=True))
        for task in failed:
            task.result()

    @contextlib.asynccontextmanager
    async def _runner(self, stage: PlannedStage) -> AsyncIterator[Runner]:
        """For the RUN steps of one stage: they share a network of their own."""
        workshop = self._workshop
        network = self._id if stage.index == 0 else identifiers.new()
        runner = Runner(network, workshop.config, workshop.networks, workshop.spawner, self._options.limits)
        try:
            yield runner
        finally:
            await settled(closing := asyncio.ensure_future(runner.close()))
            closing.result()

    def _surroundings(
        self,
        planned: Plan,
        stage: PlannedStage,
        snapshots: SnapshotStore,
        runner: Runner,
        epoch: int | None,
    ) -> Surroundings:
        workshop = self._workshop
        sources = Sources(
            self._context,
            self._trees(planned, stage, snapshots),
            workshop.cache_mounts,
            self._options.session,
            workshop.private,
        )
        return Surroundings(
            snapshots=snapshots,
            steps=self._directory / "steps",
            cache=workshop.cache,
            runner=runner,
            sources=sources,
            given=self._given,
            outer=dict(planned.arguments),
            no_cache=self._options.no_cache,
            reused=self._reused,
            flights=self._flights,
            cache_sources=self._cache_sources,
            readers=self._readers,
            epoch=epoch,
            limit=workshop.layers.limit,
        )

    def _named_images(self) -> Iterator[Image]:
        """Of `--cache-from`; what is not here is passed over, as in Docker."""
        for name in self._options.cache_from:
            with contextlib.suppress(NotFound):
                yield self._images.get(name)

    def _squashed(self, state: State, base: list[str], snapshots: SnapshotStore) -> State:
        """With one layer above those of the FROM; the history tells as Docker's does."""
        above = state.diff_ids[len(base) :]
        if not above:
            return state
        layer = squash(snapshots, self._workshop.layers, identifiers.new(), base, above)
        history = [{**entry, "empty_layer": True} for entry in state.document["history"]]
        kept = iter(range(len(base)))
        for place, entry in enumerate(state.document["history"]):
            if not entry.get("empty_layer") and next(kept, None) is not None:
                history[place] = entry
        created = state.document["created"]
        merged = {"created": created, "comment": f"merge {state.id} to {base[-1] if base else 'scratch'}"}
        rootfs = {**state.document["rootfs"], "diff_ids": [*base, layer.diff_id]}
        return State({**state.document, "rootfs": rootfs, "history": [*history, merged]})

    def _epoch(self) -> int | None:
        text = self._given.get(EPOCH)
        if not text:
            return None
        if not text.isdecimal():
            raise InvalidParameter(f"failed to parse {EPOCH} build arg: {json.dumps(text)} is no number")
        return int(text)

    def _read(self) -> list[Instruction]:
        """The Dockerfile's instructions; and the context freed of what it ignores."""
        context = self._context.path
        name = self._options.dockerfile
        text = read_text(context, name)
        if text is None:
            raise InvalidParameter(f"Cannot locate specified Dockerfile: {name}")
        ignored = read_text(context, f"{name}.dockerignore")
        if ignored is None:  # an empty one counts
            ignored = read_text(context, ".dockerignore")
        if ignored:
            drop_ignored(self._context, Ignore.parse(ignored))
        return [typed(node) for node in parse(text)]

    async def _stage(self, planned: PlannedStage, around: Surroundings, progress: Progress) -> State:
        start = planned.start
        progress.begin(start)
        with progress.failing(start.node), start.node.blamed(start.image):
            state, shown, size = await self._base(planned)
        self._bases[planned.index] = state.diff_ids
        triggers = state.config.get("OnBuild") or []
        state = state.with_config(OnBuild=None)
        progress.base(shown, size)
        stage = Stage(state, around, progress)
        progress.triggers(len(triggers))
        for text in triggers:
            with progress.failing(start.node):
                trigger = _trigger(text, start)
            await stage.trigger(trigger)
        around.readers.done(start)
        for instruction in planned.steps:
            await stage.step(instruction)
        return stage.state

    async def _base(self, planned: PlannedStage) -> tuple[State, str, int]:
        """The state to begin with; the short ID to show; bytes of its layers."""
        if isinstance(planned.base, int):
            state = self._states[planned.base]
            return (
                State(state.document, state.arguments),
                state.short_id,
                self._workshop.layers.size_of(state.diff_ids),
            )
        if planned.base == SCRATCH:
            return State.scratch(self._platform), "", 0
        image = await self._image(planned.base, planned.platform)
        return State.of_image(image.config), image.id[7:19], image.size

    async def _image(self, name: str, platform: str | None = None) -> Image:
        """An image by name or ID, pulled if it is not here or if asked to."""
        text = platform or self._options.platform
        wanted = Platform.parse(text) if text else None
        image = None
        if not self._options.pull:
            with contextlib.suppress(NotFound):
                image = self._images.get(name)
        if image is None or (wanted and not wanted.accepts(image.platform)):
            reference = parse_reference(name)
            auth = self._options.auths.get(reference.domain)
            image = await self._workshop.puller.pull(reference, wanted, auth, self._emit)
        if image.host:
            raise InvalidParameter("'host' is the machine's own file system and can't be built on")
        return image

    def _trees(self, planned: Plan, stage: PlannedStage, snapshots: SnapshotStore) -> Callable[[str], Any]:
        async def tree_of(name: str) -> Rootfs:
            meant = planned.meant(name, stage.index)
            if isinstance(meant, str):
                return snapshots.view((await self._image(meant)).diff_ids)
            if meant not in self._states:
                raise InvalidParameter(
                    f"an ONBUILD trigger copies from stage {name}, which nothing else needs"
                )
            return snapshots.view(self._states[meant].diff_ids)

        return tree_of

    def _labelled(self, state: State) -> State:
        """`--label`, as a last step without files."""
        labels = dict(self._options.labels)
        if not labels:
            return state
        told = f"LABEL {' '.join(f'{key}={value}' for key, value in sorted(labels.items()))}"
        merged = state.with_config(Labels={**(state.config.get("Labels") or {}), **labels})
        return merged.after(f"/bin/sh -c #(nop)  {told}", state.document.get("created") or "", None)

    def _warn_of_unused(self, planned: Plan, instructions: list[Instruction], transcript: Transcript) -> None:
        declared = {name for each in instructions if isinstance(each, Arg) for name, _ in each.defaults}
        unused = sorted(set(self._given) - declared - PROXIES - {EPOCH})
        if unused:
            transcript.warn(f"One or more build-args {json.dumps(unused)} were not consumed")


def _trigger(text: str, start: From) -> Instruction:
    """An ONBUILD of the image that a stage begins with: what is wrong with it is wrong with that image."""
    line, column = start.node.place(start.image)
    try:
        return typed(parse(text)[0].inherited(line, column))
    except DockerfileError as error:
        raise DockerfileError(error.reason, line, column) from None
