"""Do mounts pass between host and container below a bind (`bind-propagation`), mount_namespaces(7)?

Only where the mount that holds the source takes part on the host: else the kernel would say nothing and pass
nothing. Docker refuses such a start, and so do we.
"""

import os
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import InvalidParameter

Json = dict[str, Any]

_SHARED, _SLAVE = ("shared", "rshared"), ("slave", "rslave")


def asked(points: list[Json]) -> bool:
    return any(point["Propagation"] in _SHARED + _SLAVE for point in points)


def check(points: list[Json]) -> None:
    """Raises InvalidParameter for a source whose mount does not propagate as asked."""
    for point in points:
        kind = point["Propagation"]
        if kind in _SHARED + _SLAVE:
            mount, tags = _mount_of(os.path.realpath(point["Source"]))
            if "shared" not in tags and (kind in _SHARED or "master" not in tags):
                what = "shared" if kind in _SHARED else "shared or slave"
                raise InvalidParameter(
                    f"path {point['Source']} is mounted on {mount} but it is not a {what} mount"
                )


def _mount_of(path: str) -> tuple[str, set[str]]:
    """The mount that holds a path, and its tags in /proc/self/mountinfo: `shared`, `master`."""
    found, tags = "/", set[str]()
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.partition(" - ")[0].split()
        mount = fields[4].encode().decode("unicode_escape") if "\\" in fields[4] else fields[4]
        if len(mount) >= len(found) and (path == mount or path.startswith(mount.rstrip("/") + "/")):
            found, tags = mount, {tag.partition(":")[0] for tag in fields[6:]}
    return found, tags
