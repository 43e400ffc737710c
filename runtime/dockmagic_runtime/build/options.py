"""What a client asks of a build."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dockmagic_runtime.build.run import Limits
from dockmagic_runtime.build.sessions import Session


@dataclass(frozen=True)
class BuildOptions:
    """The parameters of POST /build, parsed. `auths` are credentials by registry host (X-Registry-Config)."""

    tags: Sequence[str] = ()
    dockerfile: str = "Dockerfile"
    build_arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    no_cache: bool = False
    pull: bool = False
    platform: str | None = None
    quiet: bool = False
    auths: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    cache_from: Sequence[str] = ()
    squash: bool = False
    session: Session = field(default_factory=Session)
