"""`RUN --mount=type=cache`: directories that outlive a build, for the package managers of its steps.

Each is `<data_root>/build-mounts/<key>[-n]/`, with `data` to be mounted and `id` to be read by people. The
key is of the ID (by default the target), and of what it was first filled from and with which owner and
mode, so that one Dockerfile's cache is not another's by accident. No layer and no cache key depends on it.
"""

import asyncio
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dockmagic_runtime.kernel import trees


@dataclass(frozen=True)
class Kind:
    """What makes two cache mounts the same. `origin` names the tree that a new one is filled from."""

    id: str
    origin: str = ""
    mode: int = 0o755
    owner: tuple[int, int] = (0, 0)

    @property
    def key(self) -> str:
        told = json.dumps([self.id, self.origin, self.mode, *self.owner])
        return hashlib.sha256(told.encode()).hexdigest()[:32]


class CacheMounts:
    """All of one engine. Calls of `taken` may overlap."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)
        self._users: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}

    def sweep(self) -> None:
        """Remove what a crash left half-made or half-removed. At engine start."""
        for path in self._root.glob("tmp-*"):
            trees.remove(path)

    @asynccontextmanager
    async def taken(self, kind: Kind, sharing: str, fill: Callable[[Path], None]) -> AsyncIterator[Path]:
        """The directory to mount, made and filled if there was none.

        `sharing` is BuildKit's: `shared` with anybody; `locked`: one after another; `private`: another
        directory if the first is in use.
        """
        name = kind.key
        if sharing == "locked":
            async with self._locks.setdefault(name, asyncio.Lock()):
                async with self._used(name, kind, fill) as path:
                    yield path
            return
        if sharing == "private":
            number = 0
            while self._users[name]:
                number += 1
                name = f"{kind.key}-{number}"
        async with self._used(name, kind, fill) as path:
            yield path

    def listed(self) -> list[tuple[Path, str, int, bool]]:
        """Of each: place, ID, bytes, and whether a step is using it."""
        users = self._users
        return [
            (path, (path / "id").read_text().strip(), trees.sizes(path / "data"), bool(users[path.name]))
            for path in sorted(self._root.iterdir())
            if (path / "id").exists()
        ]

    def prune(self) -> int:
        """Remove those that no step uses; returns the bytes."""
        freed = 0
        for path in list(self._root.iterdir()):
            if not self._users[path.name]:
                freed += trees.sizes(path / "data")
                gone = path.rename(Path(tempfile.mkdtemp(prefix="tmp-", dir=self._root)) / path.name)
                trees.remove(gone.parent)
        return freed

    @asynccontextmanager
    async def _used(self, name: str, kind: Kind, fill: Callable[[Path], None]) -> AsyncIterator[Path]:
        self._users[name] += 1
        try:
            yield await asyncio.to_thread(self._made, name, kind, fill)
        finally:
            self._users[name] -= 1

    def _made(self, name: str, kind: Kind, fill: Callable[[Path], None]) -> Path:
        target = self._root / name
        if target.exists():
            return target / "data"
        temporary = Path(tempfile.mkdtemp(prefix="tmp-", dir=self._root))
        try:
            (temporary / "id").write_text(kind.id + "\n")
            data = temporary / "data"
            data.mkdir()
            fill(data)
            os.chown(data, *kind.owner)
            data.chmod(kind.mode)
            temporary.rename(target)
        except OSError:
            # Another step may have been faster; else it is a real error.
            if not target.exists():
                raise
        finally:
            if temporary.exists():
                trees.remove(temporary)
        return target / "data"
