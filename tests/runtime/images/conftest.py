"""An image store of its own for each test, with a registry client."""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.pull import Puller
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci.image import Platform
from dockmagic_runtime.oci.reference import parse_reference
from dockmagic_runtime.registry.client import Registry
from dockmagic_runtime.storage.content import ContentStore
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.storage.layers import LayerStore

from tests.runtime.images.made import Made


@dataclass
class Bench:
    """What a test of images works with."""

    root: Path
    config: EngineConfig
    images: ImageStore
    registry: Registry
    puller: Puller
    messages: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def at(cls, root: Path, **settings: Any) -> "Bench":
        root.mkdir(exist_ok=True)
        config = EngineConfig(data_root=root, **settings)
        content, layers = ContentStore(root / "images"), LayerStore(root / "layers")
        images = ImageStore(Database(root / "engine.db"), content, layers)
        registry = Registry(config)
        return cls(root, config, images, registry, Puller(images, registry))

    async def pull(self, name: str, platform: str | None = None, auth: dict[str, str] | None = None) -> Image:
        wanted = Platform.parse(platform) if platform else None
        return await self.puller.pull(parse_reference(name), wanted, auth, self.messages.append)

    def add(self, made: Any, *names: str, **options: Any) -> Image:
        """An image whose layers are unpacked here, and which has no blobs."""
        for layer in made.layers:
            self.images.layers.apply(None, io.BytesIO(layer))
        references = [parse_reference(name) for name in names]
        return self.images.add(made.config, made.diff_ids, references, **options)

    def build(self, *texts: str, names: tuple[str, ...] = ()) -> Made:
        """An image as a build makes it: directories became its layers, and there are no blobs."""
        layers = []
        for i, text in enumerate(texts):
            upper = self.root / "upper"
            upper.mkdir()
            (upper / f"layer{i}").write_text(text)
            out = io.BytesIO()
            self.images.layers.tar(self.images.layers.commit(upper).diff_id, out)
            layers.append(out.getvalue())
        made = Made(layers)
        self.images.add(made.config, made.diff_ids, [parse_reference(name) for name in names])
        return made

    def statuses(self, layer: str) -> list[str]:
        return [message["status"] for message in self.messages if message.get("id") == layer]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench.at(tmp_path / "root")
    yield bench
    await bench.registry.close()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transport", "repository"):
        monkeypatch.setattr(f"dockmagic_runtime.registry.{module}.FIRST_PAUSE", 0.01)
