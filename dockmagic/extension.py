"""`%load_ext dockmagic` and `%unload_ext dockmagic`: everything that is registered is also unregistered.

Loading finds an engine or starts one (contexts.py), and registers: the magics, the transformer that lets
them await, two shell events, and displays for docker-py's objects. Imports are lazy: the docker SDK is
imported while the engine starts, pandas, matplotlib and ipywidgets when something first needs them.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from dockmagic import __version__
from dockmagic.contexts import Contexts
from dockmagic.errors import translate
from dockmagic.events import EventStream
from dockmagic.magics import Awaiting, DockerMagics

# docker-py's class -> the picture of it
CARDS = {
    "docker.models.containers.Container": "ContainerCard",
    "docker.models.images.Image": "ImageCard",
    "docker.models.networks.Network": "NetworkCard",
    "docker.models.volumes.Volume": "VolumeCard",
}


class Extension:
    """What one shell has of us."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.contexts = Contexts()
        self.events = EventStream(self.contexts)
        self.magics = DockerMagics(shell, self.contexts)
        self.awaiting = Awaiting(shell)
        self._shadowed: dict[str, dict[str, Any]] = {}

    def register(self) -> None:
        known = self.shell.magics_manager.magics
        # `%system` is also a magic of IPython's own (another word for `%sx`): it comes back on unload.
        self._shadowed = {
            kind: {name: known[kind][name] for name in names if name in known[kind]}
            for kind, names in self.magics.magics.items()
        }
        self.shell.register_magics(self.magics)
        self.shell.input_transformers_post.append(self.awaiting)
        self.shell.events.register("pre_execute", self.awaiting.pre_execute)
        self.shell.events.register("post_execute", self.awaiting.post_execute)
        formatter: Any = self.shell.display_formatter
        for kind, card in CARDS.items():
            formatter.mimebundle_formatter.for_type_by_name(*kind.rsplit(".", 1), self._bundle(card))
        container = "docker.models.containers.Container"
        formatter.ipython_display_formatter.for_type_by_name(*container.rsplit(".", 1), self._show_live)
        give_panel()

    def unregister(self) -> None:
        if not _loaded:
            take_panel()
        self.events.close()
        self.contexts.close()
        for kind, names in self.magics.magics.items():
            for name in names:
                self.shell.magics_manager.magics[kind].pop(name, None)
            self.shell.magics_manager.magics[kind].update(self._shadowed[kind])
        self.shell.magics_manager.registry.pop("DockerMagics", None)
        configurables: list[Any] = self.shell.configurables
        configurables.remove(self.magics)  # where the base class of magics puts every instance
        self.shell.input_transformers_post.remove(self.awaiting)
        self.shell.events.unregister("pre_execute", self.awaiting.pre_execute)
        self.shell.events.unregister("post_execute", self.awaiting.post_execute)
        formatter: Any = self.shell.display_formatter
        for kind in CARDS:
            formatter.mimebundle_formatter.pop(kind, None)
        formatter.ipython_display_formatter.pop("docker.models.containers.Container", None)

    def _bundle(self, card: str) -> Callable[..., dict[str, Any]]:
        """A mimebundle formatter for one class of docker-py."""

        def bundle(thing: Any, include: Any = None, exclude: Any = None) -> dict[str, Any]:
            return picture(thing, card).bundle()

        return bundle

    def _show_live(self, container: Any) -> None:
        """Show a container as a card that follows it, where somebody watches."""
        from dockmagic.views.view import watched

        card = picture(container, "ContainerCard") if watched() else None
        if card is None or not hasattr(card, "follow"):
            raise NotImplementedError  # IPython then takes the static bundle
        card.show()
        card.follow(self.events.subscribe)


def picture(thing: Any, card: str) -> Any:
    """The card of a docker-py object; of a container that is gone, its last known facts."""
    import docker.errors

    from dockmagic.views import cards
    from dockmagic.views.view import View

    try:
        return getattr(cards, card)(thing)
    except docker.errors.NotFound:
        if card == "ContainerCard":
            return View(*cards.container_parts(thing.attrs, removed=True))
        raise


def give_panel() -> None:
    """`web.panel()` on docker-py's containers: the live card with buttons."""
    from docker.models.containers import Container

    def panel(self: Any) -> Any:
        """The container as a live card with buttons, a widget."""
        from dockmagic.views.cards import ContainerCard

        return ContainerCard(self).panel()

    container: Any = Container
    container.panel = panel


def take_panel() -> None:
    """Undo `give_panel`, and end the panels that are open."""
    from docker.models.containers import Container

    container: Any = Container
    if "panel" in vars(Container):
        del container.panel
    panels = sys.modules.get("dockmagic.views.panel")
    if panels is not None:
        panels.close_all()


_loaded: dict[int, Extension] = {}


def load(shell: InteractiveShell) -> None:
    """Register everything; with no engine to talk to, raises DockmagicError and registers nothing."""
    extension = Extension(shell)
    threading.Thread(target=__import__, args=("docker",), name="dockmagic-import", daemon=True).start()
    try:
        client = extension.contexts.client()
        server = client.version()
    except Exception as error:  # noqa: BLE001 - raised again
        raise translate(error) or error from None
    extension.register()
    _loaded[id(shell)] = extension
    engine = (server.get("Platform") or {}).get("Name") or "engine"
    assert extension.contexts.current is not None
    sys.stdout.write(
        f"dockmagic {__version__}: {engine} {server['Version']} at {extension.contexts.current.host}\n"
    )


def unload(shell: InteractiveShell) -> None:
    """Undo `load`. Containers and the engine stay."""
    extension = _loaded.pop(id(shell), None)
    if extension is not None:
        extension.unregister()
