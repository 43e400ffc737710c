"""A real registry on loopback, empty or with the stand-ins in it.

    with Registry() as registry:                      # the stand-ins, read-only
        start_engine(registry_mirrors=[registry.mirror_url])

    with Registry(storage=tmp_path) as registry:      # an empty one to push to
        ...

The stand-ins are built once and kept under the user's cache directory, one folder per recipe and version of
this package; later runs only start the registry. The registry process ends with the thread that started it,
however that ends (PR_SET_PDEATHSIG).
"""

import fcntl
import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO

from tests.images import layout, roots
from tests.images.layout import CREATED, Layout
from tests.images.recipes import RECIPES, Recipe

_COPY = ("skopeo", "copy", "--quiet", "--all", "--insecure-policy", "--dest-tls-verify=false")
_LISTENING = re.compile(r"listening on ([0-9.]+:\d+)")


class Registry:
    """Debian's `docker-registry` on a free loopback port (or `port`), as a context manager."""

    def __init__(self, storage: Path | None = None, port: int = 0) -> None:
        self._storage = storage
        self._port = port
        self._cleanup = ExitStack()
        self.address = ""

    @property
    def mirror_url(self) -> str:
        """What an engine is given as `--registry-mirror`."""
        return f"http://{self.address}"

    def __enter__(self) -> "Registry":
        with ExitStack() as stack:
            storage = self._storage or stand_ins()
            self.address = stack.enter_context(
                _serving(storage, read_only=self._storage is None, port=self._port)
            )
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()


def cache_directory() -> Path:
    """Where built stand-ins are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dockmagic" / "stand-ins"


def stand_ins() -> Path:
    """Build the stand-ins that are not in the cache yet; return the registry storage that holds them all."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    keys = _keys()
    storage = cache / ("registry-" + _hash(sorted(keys.values())))
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be building the same
        if not storage.exists():
            for recipe in RECIPES:
                if not (cache / keys[recipe.name]).exists():
                    _build(recipe, keys, cache)
            _fill(storage, [cache / keys[recipe.name] for recipe in RECIPES])
            _forget_all_but({storage.name, "apt", "lock", *keys.values()}, cache)
    return storage


def _keys() -> dict[str, str]:
    """A folder name per recipe, which changes with the recipe, its base, or the code that builds it."""
    code = [inspect.getsource(part) for part in (layout, roots, _config, _history)]
    keys: dict[str, str] = {}
    for recipe in RECIPES:
        base = keys[recipe.base] if recipe.base else None
        keys[recipe.name] = f"{recipe.name}-" + _hash([code, asdict(recipe), base, layout.architecture()])
    return keys


def _hash(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]


def _build(recipe: Recipe, keys: dict[str, str], cache: Path) -> None:
    """Make `<cache>/<key>`: the recipe's files (`root`), its image (`layout`), what others build on."""
    if os.geteuid() != 0:
        raise PermissionError(f"building the stand-in image {recipe.name} needs root: run this with sudo")
    print(f"building the stand-in for {recipe.name} ({recipe.about})", file=sys.stderr, flush=True)
    base = cache / keys[recipe.base] if recipe.base else None
    below = (
        json.loads((base / "parts.json").read_text())
        if base
        else {"layers": [], "diff_ids": [], "history": []}
    )
    started = time.time() - 1  # file times come from a coarser clock
    with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as temporary:
        new = Path(temporary) / "image"
        (new / "root").mkdir(parents=True)
        roots.make_root(recipe, new / "root", base / "root" if base else None, cache / "apt")
        image = Layout(new / "layout")
        for blob in (base / "layout/blobs/sha256").iterdir() if base else ():
            os.link(blob, image.root / "blobs/sha256" / blob.name)
        descriptor, diff_id = image.add_layer(new / "root", since=started)
        history = [*below["history"], *_history(recipe)]
        parts = {
            "layers": [*below["layers"], descriptor],
            "diff_ids": [*below["diff_ids"], diff_id],
            "history": history,
        }
        image.add_image(recipe.name, _config(recipe), parts["layers"], parts["diff_ids"], history)
        (new / "parts.json").write_text(json.dumps(parts))
        (new / "tags.json").write_text(json.dumps({"name": recipe.name, "tags": recipe.tags}))
        new.rename(cache / keys[recipe.name])


def _config(recipe: Recipe) -> dict[str, object]:
    labels = {
        "org.dockmagic.stand-in": "true",
        "org.opencontainers.image.description": f"Stand-in for the image {recipe.name}: {recipe.about}",
    }
    return {**recipe.config, "Labels": labels}


def _history(recipe: Recipe) -> list[dict[str, object]]:
    """What `docker history` shows: the layer, then the settings that have none."""
    made = f"RUN apt-get install {' '.join(recipe.packages)}" if recipe.packages else f"ADD {recipe.about}"
    steps: list[dict[str, object]] = [{"created": CREATED, "created_by": made, "comment": "stand-in"}]
    config = recipe.config
    settings = [f"EXPOSE {port}" for port in config.get("ExposedPorts", {})]
    settings += [f"ENTRYPOINT {json.dumps(config['Entrypoint'])}"] if "Entrypoint" in config else []
    settings += [f"CMD {json.dumps(config['Cmd'])}"] if "Cmd" in config else []
    for setting in settings:
        steps.append({"created": CREATED, "created_by": setting, "comment": "stand-in", "empty_layer": True})
    return steps


def _fill(storage: Path, built: list[Path]) -> None:
    """Push every built image under all its tags into a new registry at `storage`."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=storage.parent) as temporary:
        new = Path(temporary) / "registry"
        new.mkdir()
        with _serving(new, read_only=False) as address:
            for image in built:
                named = json.loads((image / "tags.json").read_text())
                for tag in named["tags"]:
                    source = f"oci:{image / 'layout'}:{named['name']}"
                    target = f"docker://{address}/library/{named['name']}:{tag}"
                    subprocess.run([*_COPY, source, target], check=True)
        new.rename(storage)


def _forget_all_but(names: set[str], cache: Path) -> None:
    """Old versions go once they are a day old: until then a running registry may still serve them."""
    for path in cache.iterdir():
        if path.name not in names and path.stat().st_mtime < time.time() - 24 * 3600:
            shutil.rmtree(path)


@contextmanager
def _serving(storage: Path, *, read_only: bool, port: int = 0) -> Iterator[str]:
    """Run docker-registry on `storage`; the value is its `address:port`, once it listens."""
    settings = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": read_only}},
        },
        "http": {"addr": f"127.0.0.1:{port}", "secret": "loopback"},
    }
    with tempfile.TemporaryDirectory() as temporary:
        config = Path(temporary) / "registry.json"  # every JSON document is a YAML one
        config.write_text(json.dumps(settings))
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "docker-registry", "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            yield _address(process.stderr)
        finally:
            process.terminate()
            process.wait()
            process.stderr.close()


def _address(messages: IO[str]) -> str:
    """The address from the registry's "listening on"; a thread reads on, so that its log never blocks it."""
    said: list[str] = []
    for line in messages:
        said.append(line)
        if listening := _LISTENING.search(line):
            threading.Thread(target=deque, args=(messages, 0), daemon=True).start()
            return listening[1]
    raise RuntimeError("docker-registry did not start: " + "".join(said).strip())
