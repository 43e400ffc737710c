"""Who a container's process runs as: `-u` and `USER` resolved in the image's own passwd and group files.

A name that the files do not know is an error and never a number by accident: only a string of digits is a
uid, and it must fit 31 bits. (Docker's rules, `opencontainers/runc/libcontainer/user`; the attack this
answers is a user string that parses as 0.)
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel.paths import open_in_root
from dockmagic_runtime.storage.overlay import Rootfs

_HIGHEST = (1 << 31) - 1


@dataclass(frozen=True)
class Account:
    """Numeric identity of a process, and the home directory that `HOME` gets."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True)
class AccountFiles:
    """The text of /etc/passwd and /etc/group of one root file system; empty where there is none."""

    passwd: str
    group: str

    def resolve(self, user: str, extra_groups: tuple[str, ...] = ()) -> Account:
        """`name`, `uid`, `name:group`, `uid:gid` (empty: root); raises InvalidParameter if unknown."""
        who, separator, group = user.partition(":")
        entry = self._user(who or "0")
        if entry is None:
            if not _is_number(who or "0"):
                raise InvalidParameter(f"unable to find user {who}: no matching entries in passwd file")
            name, uid, gid, home = "", _number(who or "0"), 0, "/"
        else:
            name, uid, gid, home = entry
        groups: set[int] = set()
        if separator and group:
            gid = self._group(group)
        elif name:
            groups = {number for _, number, members in self._groups() if name in members}
        groups |= {self._group(extra) for extra in extra_groups}
        return Account(uid, gid, tuple(sorted(groups | {gid})), home)

    def _user(self, wanted: str) -> tuple[str, int, int, str] | None:
        for line in self.passwd.splitlines():
            fields = line.split(":")
            if len(fields) < 6 or not _is_number(fields[2]) or not _is_number(fields[3]):
                continue
            if fields[0] == wanted or (_is_number(wanted) and int(fields[2]) == _number(wanted)):
                return fields[0], _number(fields[2]), _number(fields[3]), fields[5] or "/"
        return None

    def _group(self, wanted: str) -> int:
        for name, number, _ in self._groups():
            if name == wanted:
                return number
        if not _is_number(wanted):
            raise InvalidParameter(f"unable to find group {wanted}: no matching entries in group file")
        return _number(wanted)

    def _groups(self) -> list[tuple[str, int, list[str]]]:
        found = []
        for line in self.group.splitlines():
            fields = line.split(":")
            if len(fields) >= 3 and _is_number(fields[2]):
                found.append((fields[0], _number(fields[2]), fields[3].split(",") if len(fields) > 3 else []))
        return found


def read_account_files(rootfs: Rootfs) -> AccountFiles:
    """Read both files through the layers of `rootfs`, topmost first, without mounting it."""
    layers = ([rootfs.upper] if rootfs.upper else []) + list(rootfs.lower)
    if rootfs.host:
        layers.append("/")
    return AccountFiles(_topmost(layers, "etc/passwd"), _topmost(layers, "etc/group"))


def _topmost(layers: list[str], path: str) -> str:
    for layer in layers:
        root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # NONBLOCK: the file is the image's, and could be a FIFO.
            descriptor = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            if _is_whiteout(Path(layer) / path):
                return ""
            continue
        finally:
            os.close(root)
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
            return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""
    return ""


def _is_whiteout(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str) -> int:
    number = int(text)
    if number > _HIGHEST:
        raise InvalidParameter("uids and gids must be in range 0-2147483647")
    return number
