"""The reserved image `host`: the machine's own root file system as the lower layer of a container.

It has no layers, no blobs and no record; nobody can tag, push, save or remove it.
"""

import json
import os
from pathlib import Path

from dockmagic_runtime.images.image import UNDATED, Image
from dockmagic_runtime.oci.descriptor import sha256_digest
from dockmagic_runtime.oci.image import Platform
from dockmagic_runtime.oci.reference import Reference

NAME = Reference("docker.io", "library/host", "latest")
_PASSED_ON = ("PATH", "LANG", "VIRTUAL_ENV", "CONDA_PREFIX")
"""Of the engine's environment, what makes a command in the container find the programs it finds outside."""


def host_image() -> Image:
    """The image `host` of this machine. Its ID depends on the platform alone, so it outlives restarts."""
    platform = Platform.host()
    identity = {"os": platform.os, "architecture": platform.architecture, "rootfs": {"type": "host"}}
    shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
    config = {
        "created": UNDATED,
        **identity,
        "config": {
            "Env": [f"{name}={os.environ[name]}" for name in _PASSED_ON if name in os.environ],
            "Cmd": [shell],
            "WorkingDir": "/",
            "Labels": {"org.dockmagic.host": "true"},
        },
        "history": [{"created": UNDATED, "created_by": "the machine's own root file system"}],
    }
    return Image(
        id=sha256_digest(json.dumps(identity, sort_keys=True).encode()),
        config=config,
        diff_ids=(),
        origin="host",
        references=(NAME,),
        host=True,
    )
