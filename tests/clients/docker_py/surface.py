"""docker-py's public surface, and which of it these tests have used.

`Recorder` puts itself around every public method and property of `APIClient`, `DockerClient` and the models,
for as long as the tests of this folder run, and keeps the names of those that have returned without an
error: a call that the engine refused counts as not exercised. What is refused for good is listed in
`refusals.py`, with the reason.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import docker
import requests
from docker.models import (
    configs,
    containers,
    images,
    networks,
    nodes,
    plugins,
    resource,
    secrets,
    services,
    swarm,
    volumes,
)

_MODULES = (configs, containers, images, networks, nodes, plugins, secrets, services, swarm, volumes)
_INTERNAL = {"prepare_model"}  # makes the object that every `get` and `list` returns
_HTTP = frozenset(dir(requests.Session))


def classes() -> list[type]:
    """The client, the low-level client, and every model and collection."""
    models = [
        member
        for module in _MODULES
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, resource.Model | resource.Collection)
        and member.__module__ == module.__name__
    ]
    return [docker.APIClient, docker.DockerClient, *models]


def public(kind: type) -> Iterator[str]:
    """The names of what a user of `kind` calls or reads, with what it inherits from docker-py."""
    for name in dir(kind):
        if name.startswith("_") or name in _INTERNAL or (kind is docker.APIClient and name in _HTTP):
            continue
        member = inspect.getattr_static(kind, name)
        if isinstance(member, property | classmethod) or (callable(member) and not inspect.isclass(member)):
            yield name


def surface() -> set[str]:
    """`Class.name` for all of it. The older name `Client` of DockerClient is the same class."""
    return {f"{kind.__name__}.{name}" for kind in classes() for name in public(kind)}


class Recorder:
    """Used names while it is put in; `used` afterwards."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self._restore: list[Callable[[], None]] = []

    def put_in(self) -> None:
        for kind in classes():
            for name in public(kind):
                before = vars(kind).get(name)
                setattr(
                    kind, name, self._around(f"{kind.__name__}.{name}", inspect.getattr_static(kind, name))
                )
                if before is None:
                    self._restore.append(functools.partial(delattr, kind, name))
                else:
                    self._restore.append(functools.partial(setattr, kind, name, before))

    def take_out(self) -> None:
        for restore in reversed(self._restore):
            restore()
        self._restore.clear()

    def _around(self, name: str, member: Any) -> Any:
        if isinstance(member, property):
            return property(self._noting(name, member.fget), member.fset)
        if isinstance(member, classmethod):
            return classmethod(self._noting(name, member.__func__))
        return self._noting(name, member)

    def _noting(self, name: str, function: Any) -> Callable[..., Any]:
        @functools.wraps(function)
        def noted(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self.used.add(name)
            return result

        return noted
