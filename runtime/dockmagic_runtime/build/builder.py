"""`docker build`: a context and a Dockerfile become an image.

    text ─parser─> nodes ─instructions─> typed ─planner─> stages ─stage─> states ──> one image record

Everything in the making is under `<data_root>/build/<build id>`. The image exists from one transaction at the
end on. A build that fails, is interrupted or killed leaves the cache records of the steps that were done,
and nothing else: no process, no mount, no network, no file that `sweep` would not remove.
"""

import asyncio
import contextlib
import json
import secrets
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.build.cache import BuildCache
from dockmagic_runtime.build.cachemounts import CacheMounts
from dockmagic_runtime.build.cachesources import CacheSources
from dockmagic_runtime.build.context import Context, drop_ignored, read_text, unpack_context
from dockmagic_runtime.build.ignore import Ignore
from dockmagic_runtime.build.instructions import Arg, Instruction, typed
from dockmagic_runtime.build.options import BuildOptions
from dockmagic_runtime.build.parser import parse
from dockmagic_runtime.build.planner import SCRATCH, Plan, plan
from dockmagic_runtime.build.planner import Stage as PlannedStage
from dockmagic_runtime.build.platforms import EPOCH, PROXIES, automatic
from dockmagic_runtime.build.progress import Progress, Transcript
from dockmagic_runtime.build.readers import Readers
from dockmagic_runtime.build.run import Runner, shim_socket
from dockmagic_runtime.build.runmounts import Sources
from dockmagic_runtime.build.sessions import Sessions
from dockmagic_runtime.build.stage import Flight, Stage, Surroundings
from dockmagic_runtime.build.state import State
from dockmagic_runtime.build.threads import in_thread
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.images import pipes
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.pull import Puller
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.oci.image import Platform
from dockmagic_runtime.oci.reference import parse_reference
from dockmagic_runtime.process.spawner import Spawner
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.storage.layers import LayerStore
from dockmagic_runtime.storage.overlay import Rootfs
from dockmagic_runtime.storage.snapshots import SnapshotStore
from dockmagic_runtime.storage.squash import squash

Json = dict[str, Any]


class Builder:
    """All builds of one engine. `held_layers` is for ImageStore: what the cache keeps."""

    def __init__(
        self,
        config: EngineConfig,
        database: Database,
        layers: LayerStore,
        images: ImageStore,
        puller: Puller,
        networks: Networks,
        spawner: Spawner,
    ) -> None:
        self._config = config
        self._layers, self._images, self._puller = layers, images, puller
        self._networks, self._spawner = networks, spawner
        self._root = config.data_root / "build"
        self._root.mkdir(parents=True, exist_ok=True)
        self._root.chmod(0o700)
        self.cache = BuildCache(database)
        self.cache_mounts = CacheMounts(config.data_root / "build-mounts")
        self.private = config.run_root / "build"
        self.sessions = Sessions()
        self._running: set[asyncio.Task[Any]] = set()

    def held_layers(self) -> set[str]:
        """Diff IDs that must stay though no image has them."""
        return self.cache.layers()

    def sweep(self) -> None:
        """End and remove what builds left that were killed with the engine. Call once, at start."""
        for build in self._root.iterdir():
            for step in (build / "steps").glob("*/upper"):
                group = Cgroup.open(f"{self._config.cgroup_parent}/{step.parent.name}")
                if group.exists():
                    group.remove(kill=True)
                shim_socket(self._config, step.parent.name).unlink(missing_ok=True)
            shutil.rmtree(build)
        self.cache_mounts.sweep()
        shutil.rmtree(self.private, ignore_errors=True)

    async def stop(self) -> None:
        """Interrupt the builds that run, and wait until nothing of them is left."""
        for task in self._running:
            if not task.cancelling():  # its client may have gone already
                task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def disk_use(self) -> list[Json]:
        """The `BuildCache` of GET /system/df: each layer that the cache keeps, and each cache mount."""
        in_images = {diff_id for image in self._images.list() for diff_id in image.diff_ids}
        found = [
            _cached(
                diff_id.partition(":")[2],
                "regular",
                "a step's layer",
                layer.size,
                diff_id in in_images,
                layer.path,
            )
            for diff_id in sorted(self.cache.layers())
            if (layer := self._layers.get(diff_id))
        ]
        for path, identity, size, used in self.cache_mounts.listed():
            found.append(_cached(path.name, "exec.cachemount", f"cache mount {identity}", size, used, path))
        return found

    async def prune(self) -> Json:
        """Forget the cache, and what cache mounts hold; layers that no image has go.

        Returns Docker's answer to POST /build/prune.
        """
        layers = self.cache.layers()
        space = self._layers.size_of(layers)
        keys = self.cache.clear()
        await self._images.collect()
        # What an image or a container has is still there.
        space -= self._layers.size_of(layers)
        space += await in_thread(self.cache_mounts.prune)
        return {"CachesDeleted": keys, "SpaceReclaimed": space}

    async def build(
        self, context: AsyncIterable[bytes], options: BuildOptions, emit: Callable[[Json], None]
    ) -> str:
        """Build from a context tar, compressed or not; returns the image's ID.

        Nothing is emitted before the Dockerfile is known to make sense, so that an error until then can be
        the whole answer. Raises InvalidParameter, NotFound, StepFailed (with the exit code), SystemFailure.
        An interrupt kills the running step and waits for it; the steps done before stay cached.
        """
        build_id = secrets.token_hex(32)
        directory = self._root / build_id
        task = asyncio.current_task()
        assert task
        self._running.add(task)
        try:
            async with self._images.adding():
                files = await pipes.feed(
                    context, lambda tar: unpack_context(tar, directory / "context", self._layers.limit)
                )
                return await _Build(self, build_id, directory, files, options, emit).run()
        finally:
            try:
                if directory.exists():
                    removing = asyncio.ensure_future(asyncio.to_thread(shutil.rmtree, directory))
                    await pipes.settled(removing)
                    removing.result()
            finally:
                self._running.discard(task)


def _cached(name: str, kind: str, what: str, size: int, used: bool, path: Path) -> Json:
    """A layer that an image has is shared with it: forgetting the cache frees nothing of it."""
    created = timestamps.render(path.stat().st_mtime_ns)
    told = {"ID": name, "Type": kind, "Description": what, "InUse": used, "Size": size}
    return {**told, "Shared": used and kind == "regular", "CreatedAt": created, "LastUsedAt": None}


class _Build:
    """One build while it runs."""

    def __init__(
        self,
        builder: Builder,
        build_id: str,
        directory: Path,
        context: Context,
        options: BuildOptions,
        emit: Callable[[Json], None],
    ) -> None:
        self._builder = builder
        self._id = build_id
        self._directory = directory
        self._context = context
        self._options = options
        self._emit = emit
        self._images = builder._images
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
        snapshots = SnapshotStore(self._directory / "steps", self._builder._layers)
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
            await pipes.settled(asyncio.gather(*tasks.values(), return_exceptions=True))
        for task in failed:
            task.result()

    @contextlib.asynccontextmanager
    async def _runner(self, stage: PlannedStage) -> AsyncIterator[Runner]:
        """For the RUN steps of one stage: they share a network of their own."""
        builder = self._builder
        network = self._id if stage.index == 0 else secrets.token_hex(32)
        runner = Runner(network, builder._config, builder._networks, builder._spawner, self._options.limits)
        try:
            yield runner
        finally:
            await pipes.settled(closing := asyncio.ensure_future(runner.close()))
            closing.result()

    def _surroundings(
        self,
        planned: Plan,
        stage: PlannedStage,
        snapshots: SnapshotStore,
        runner: Runner,
        epoch: int | None,
    ) -> Surroundings:
        return Surroundings(
            snapshots,
            self._directory / "steps",
            self._builder.cache,
            runner,
            Sources(
                self._context,
                self._trees(planned, stage, snapshots),
                self._builder.cache_mounts,
                self._options.session,
                self._builder.private,
            ),
            self._given,
            dict(planned.arguments),
            self._options.no_cache,
            self._reused,
            self._flights,
            self._cache_sources,
            self._readers,
            epoch,
            limit=self._builder._layers.limit,
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
        layer = squash(snapshots, self._builder._layers, secrets.token_hex(32), base, above)
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
        ignored = read_text(context, f"{name}.dockerignore") or read_text(context, ".dockerignore")
        if ignored:
            drop_ignored(self._context, Ignore.parse(ignored))
        return [typed(node) for node in parse(text)]

    async def _stage(self, planned: PlannedStage, around: Surroundings, progress: Progress) -> State:
        progress.begin(planned.start)
        state, shown, size = await self._base(planned)
        self._bases[planned.index] = state.diff_ids
        triggers = state.config.get("OnBuild") or []
        state = state.with_config(OnBuild=None)
        progress.base(shown, size)
        stage = Stage(state, around, progress)
        progress.triggers(len(triggers))
        for text in triggers:
            await stage.trigger(typed(parse(text)[0]))
        around.readers.done(planned.start)
        for instruction in planned.steps:
            await stage.step(instruction)
        return stage.state

    async def _base(self, planned: PlannedStage) -> tuple[State, str, int]:
        """The state to begin with; the short ID to show; bytes of its layers."""
        if isinstance(planned.base, int):
            state = self._states[planned.base]
            return State(state.document), state.short_id, sum(map(self._size, state.diff_ids))
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
            image = await self._builder._puller.pull(reference, wanted, auth, self._emit)
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

    def _size(self, diff_id: str) -> int:
        layer = self._builder._layers.get(diff_id)
        return layer.size if layer else 0

    def _warn_of_unused(self, planned: Plan, instructions: list[Instruction], transcript: Transcript) -> None:
        declared = {name for each in instructions if isinstance(each, Arg) for name, _ in each.defaults}
        unused = sorted(set(self._given) - declared - PROXIES - {EPOCH})
        if unused:
            transcript.warn(f"One or more build-args {json.dumps(unused)} were not consumed")
