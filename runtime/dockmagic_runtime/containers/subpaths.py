"""A directory of a volume as the source of a mount (`--mount type=volume,…,volume-subpath=DIR`).

What lies in a volume is its containers' doing: any part of the path may become a symbolic link at any moment.
So it is resolved inside the volume, openat2(2), and handed on as a descriptor, held until it is mounted.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dockmagic_runtime.containers.mountpoints import option
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel.paths import open_in_root, opened

Json = dict[str, Any]


@contextmanager
def held(points: list[Json], config: Json) -> Iterator[None]:
    """While it lasts, the OCI `config` mounts each subpath; raises InvalidParameter if there is none such."""
    with ExitStack() as opened:
        for point in points:
            if subpath := option(point, "Subpath"):
                descriptor = _open(point["Source"], subpath)
                opened.callback(os.close, descriptor)
                entry = next(each for each in config["mounts"] if each["destination"] == point["Destination"])
                entry["source"] = f"/proc/{os.getpid()}/fd/{descriptor}"
        yield


def _open(volume: str, subpath: str) -> int:
    with opened(volume) as root:
        try:
            return open_in_root(root, subpath)
        except OSError as error:
            raise InvalidParameter(f"cannot access path {volume}/{subpath}: {error.strerror}") from None
