"""The options of the local driver, `docker volume create --opt type=… --opt device=… --opt o=…`: mount(8)'s.

    type=tmpfs  device=tmpfs            o=size=100m,uid=1000
    type=nfs    device=:/exported/path  o=addr=files.example.org,rw
    type=none   device=/a/directory     o=bind

What may be said is moby's `volume/local`; what is meant is the kernel's affair, mount(2), at the first use.
"""

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from dockmagic_runtime.errors import InvalidParameter, SystemFailure
from dockmagic_runtime.kernel import mounts

_NEEDS = {"type": ("device",), "device": ("type",), "o": ("device", "type"), "size": ()}
_NETWORKED = ("nfs", "cifs")

# word of `o` -> (whether it takes the flag away, the flag), mount(2); other words are the file system's.
_FLAGS = {
    "defaults": (False, 0),
    "rw": (True, mounts.MS_RDONLY),
    "ro": (False, mounts.MS_RDONLY),
    "nosuid": (False, mounts.MS_NOSUID),
    "suid": (True, mounts.MS_NOSUID),
    "nodev": (False, mounts.MS_NODEV),
    "dev": (True, mounts.MS_NODEV),
    "noexec": (False, mounts.MS_NOEXEC),
    "exec": (True, mounts.MS_NOEXEC),
    "sync": (False, mounts.MS_SYNCHRONOUS),
    "async": (True, mounts.MS_SYNCHRONOUS),
    "dirsync": (False, mounts.MS_DIRSYNC),
    "noatime": (False, mounts.MS_NOATIME),
    "atime": (True, mounts.MS_NOATIME),
    "nodiratime": (False, mounts.MS_NODIRATIME),
    "diratime": (True, mounts.MS_NODIRATIME),
    "relatime": (False, mounts.MS_RELATIME),
    "norelatime": (True, mounts.MS_RELATIME),
    "strictatime": (False, mounts.MS_STRICTATIME),
    "nostrictatime": (True, mounts.MS_STRICTATIME),
    "bind": (False, mounts.MS_BIND),
    "rbind": (False, mounts.MS_BIND | mounts.MS_REC),
}


def check(name: str, options: Mapping[str, str]) -> None:
    """Raises InvalidParameter in Docker's words for options that can't make a volume."""
    for option in options:
        if option not in _NEEDS:
            raise InvalidParameter(f'create {name}: invalid option: "{option}"')
    for option in options:
        for needed in _NEEDS[option]:
            if not options.get(needed) and not (needed == "type" and "type" in options):
                raise InvalidParameter(f'create {name}: missing required option: "{needed}"')
    if "size" in options:
        raise InvalidParameter(f"create {name}: quota size requested but no quota support")


def mount(options: Mapping[str, str], target: Path) -> None:
    """Mount what the options describe on `target`; may wait for another host. Raises SystemFailure."""
    try:
        _mount(options, target)
    except OSError as error:
        raise SystemFailure(f"error while mounting volume '{target}': {error.strerror}") from None


def _mount(options: Mapping[str, str], target: Path) -> None:
    device, kind = options["device"], options.get("type", "")
    words = [word for word in options.get("o", "").split(",") if word]
    if kind in _NETWORKED:
        words = [_resolved(word) for word in words]
    flags, data = 0, []
    for word in words:
        if word in _FLAGS:
            cleared, flag = _FLAGS[word]
            flags = flags & ~flag if cleared else flags | flag
        else:
            data.append(word)
    text = ",".join(data)
    try:
        mounts.mount(device, str(target), kind, flags, text)
        if flags & mounts.MS_BIND and flags & ~(mounts.MS_BIND | mounts.MS_REC):
            _change_bind(target, flags)  # the kernel takes no other flags along with a bind
    except OSError as error:
        shown = f", flags: {flags:#x}" if flags else ""
        shown += f", data: {text}" if text else ""
        reason = os.strerror(error.errno or 0).lower() + _hint(kind, error)
        raise OSError(
            error.errno, f"failed to mount local volume: mount {device}:{target}{shown}: {reason}"
        ) from None


def _change_bind(target: Path, flags: int) -> None:
    try:
        mounts.mount("", str(target), None, flags | mounts.MS_REMOUNT)
    except OSError:
        mounts.umount(str(target), mounts.MNT_DETACH)
        raise


def _hint(kind: str, error: OSError) -> str:
    if error.errno != errno.ENODEV:
        return ""
    known = {line.split("\t")[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    return "" if kind in known else f" (this kernel has no file system {kind}: modprobe {kind})"


def _resolved(word: str) -> str:
    """`addr=name` as `addr=address`: the kernel does not ask a name server."""
    key, _, value = word.partition("=")
    if key != "addr":
        return word
    try:
        return f"addr={socket.getaddrinfo(value, None, type=socket.SOCK_STREAM)[0][4][0]}"
    except OSError as error:
        raise OSError(
            error.errno, f"error resolving passed in network volume address: lookup {value}: {error.strerror}"
        ) from None
