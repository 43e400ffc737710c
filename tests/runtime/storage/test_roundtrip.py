"""Whatever a container does to its root, the layer made of it says exactly that: apply(diff) is the identity.

Random operations are done through a real overlay mount; the upper directory becomes a layer; its tar goes
into another store; the two merged views must be the same tree, and the diff ID the same.
"""

import contextlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from dockmagic_runtime.kernel.trees import remove_at
from dockmagic_runtime.storage.layers import LayerStore
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs
from dockmagic_runtime.storage.overlayform import is_portable, is_whiteout
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

NAMES = [b"a", b"b", b".c", "é".encode(), b"\xff", b"n" * 120]
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
picks = st.integers(0, 1000)
names = st.sampled_from(NAMES)
modes = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2770, 0o1777, 0o000])
owners = st.sampled_from([0, 1, 1000, 3_000_000])
times = st.sampled_from([0, 1, 1_700_000_000, 5_000_000_000])
# Each with a pick of what is there already: a directory to make something in, or something to change.
operations = st.one_of(
    st.tuples(st.just("file"), picks, names, st.binary(max_size=700), modes, owners, times),
    st.tuples(st.just("directory"), picks, names, modes, owners),
    st.tuples(st.just("symlink"), picks, names, st.sampled_from([b"a", b"/b", b"../.c", b"t" * 130])),
    st.tuples(st.just("link"), picks, names, picks),
    st.tuples(st.just("rename"), picks, names, picks),
    st.tuples(st.just("fifo"), picks, names, modes),
    st.tuples(st.just("device"), picks, names, modes),
    st.tuples(st.just("remove"), picks),
    st.tuples(st.just("replace"), picks),
    st.tuples(st.just("mode"), picks, modes),
    st.tuples(st.just("owner"), picks, owners),
    st.tuples(st.just("attribute"), picks, st.sampled_from(["user.x", "user.y"]), st.binary(max_size=200)),
    st.tuples(st.just("attribute"), picks, st.just("security.capability"), st.just(CAPABILITY)),
)
# Two layers of which the second has one of each, whatever the random ones have.
BELOW = [
    ("directory", 0, b"a", 0o755, 0),
    ("file", 1, b"b", b"1", 0o644, 0, 0),
    ("file", 0, b"b", b"2", 0o644, 0, 0),
]
ABOVE = [
    ("replace", 0),
    ("remove", 1),
    ("file", 0, b".c", b"3", 0o4755, 1, 1),
    ("link", 0, b"n" * 120, 0),
    ("attribute", 0, "user.x", b"x"),
    ("attribute", 0, "user.y", b""),
    ("attribute", 0, "security.capability", CAPABILITY),
]
EVERYTHING = {"whiteout", "opaque", "hard link", "user.x", "user.y", "security.capability", "set-user-ID"}


def perform(root: int, operation: tuple) -> None:
    """Do it if it can be done; what the kernel refuses (is a directory, another device) has no effect."""
    kind, pick, *rest = operation
    there = describe(root)
    paths = sorted(there)
    if kind in MAKING:
        directories = [b".", *(path for path in paths if stat.S_ISDIR(there[path][0]))]
        path = directories[pick % len(directories)] + b"/" + rest.pop(0)
    elif not paths:
        return
    else:
        path = paths[pick % len(paths)]
    if kind in ("link", "rename"):
        if not paths:
            return
        rest = [paths[rest[0] % len(paths)]]
    with contextlib.suppress(OSError):
        (MAKING | CHANGING)[kind](root, path, *rest)


def make_file(root: int, path: bytes, content: bytes, mode: int, owner: int, time: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags, dir_fd=root), "wb") as file:
        file.write(content)
        os.fchown(file.fileno(), owner, owner)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.utime(file.fileno(), (time, time))


def make_directory(root: int, path: bytes, mode: int, owner: int) -> None:
    os.mkdir(path, dir_fd=root)
    os.chown(path, owner, owner, dir_fd=root)
    os.chmod(path, mode, dir_fd=root)


def replace(root: int, path: bytes) -> None:
    remove_at(root, path)
    os.mkdir(path, dir_fd=root)


def set_attribute(root: int, path: bytes, name: str, value: bytes) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root)
    try:
        os.setxattr(fd, name, value)
    finally:
        os.close(fd)


MAKING: dict[str, Callable[..., None]] = {
    "file": make_file,
    "directory": make_directory,
    "symlink": lambda root, path, target: os.symlink(target, path, dir_fd=root),
    "link": lambda root, path, to: os.link(to, path, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False),
    "rename": lambda root, path, old: os.rename(old, path, src_dir_fd=root, dst_dir_fd=root),
    "fifo": lambda root, path, mode: os.mknod(path, stat.S_IFIFO | mode, dir_fd=root),
    "device": lambda root, path, mode: os.mknod(path, stat.S_IFCHR | mode, os.makedev(1, 3), dir_fd=root),
}
CHANGING: dict[str, Callable[..., None]] = {
    "remove": remove_at,
    "replace": replace,
    "mode": lambda root, path, mode: os.chmod(path, mode, dir_fd=root),
    "owner": lambda root, path, owner: os.chown(path, owner, owner, dir_fd=root, follow_symlinks=False),
    "attribute": set_attribute,
}


def describe(root: int) -> dict[bytes, tuple]:
    """Everything about a tree that a layer must keep; hard links by the first of their names."""
    tree: dict[bytes, tuple] = {}
    first: dict[int, bytes] = {}
    pending = [b"."]
    while pending:
        directory = pending.pop()
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
        with os.scandir(fd) as entries:
            names = sorted(os.fsencode(entry.name) for entry in entries)
        os.close(fd)
        for name in names:
            path = directory + b"/" + name
            status = os.stat(path, dir_fd=root, follow_symlinks=False)
            content: object = None
            attributes: dict[str, bytes] = {}
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path, dir_fd=root)
            elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=root)
                if stat.S_ISREG(status.st_mode):
                    content = os.pread(file, 1 << 20, 0)
                attributes = {key: os.getxattr(file, key) for key in os.listxattr(file) if is_portable(key)}
                os.close(file)
            same = (
                first.setdefault(status.st_ino, path) if status.st_nlink > 1 and content is not None else path
            )
            facts = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, int(status.st_mtime))
            tree[path] = (*facts, content, attributes, same)
    return tree


def kinds_in(upper: Path) -> set[str]:
    """What of EVERYTHING an upper directory has."""
    kinds: set[str] = set()
    for folder, directories, files in os.walk(os.fsencode(upper)):
        for path in (os.path.join(folder, name) for name in (*directories, *files)):  # noqa: PTH118
            status = os.lstat(path)
            attributes = os.listxattr(path, follow_symlinks=False)
            kinds.update(attributes)
            kinds.update({"opaque"} if "trusted.overlay.opaque" in attributes else ())
            kinds.update({"whiteout"} if is_whiteout(status) else ())
            kinds.update({"hard link"} if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) else ())
            kinds.update({"set-user-ID"} if status.st_mode & stat.S_ISUID else ())
    return kinds


def test_apply_of_diff_is_identity() -> None:
    seen: set[str] = set()

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(operations, max_size=20), st.lists(operations, max_size=20))
    @example(BELOW, ABOVE)
    def same(before: list[tuple], after: list[tuple]) -> None:
        seen.update(round_trip(before, after))

    same()
    assert seen >= EVERYTHING, "else the random operations prove nothing of these"


def round_trip(before: list[tuple], after: list[tuple]) -> set[str]:
    """Two layers, each from operations on top of what was; what kinds of entries the second one had."""
    # Overlayfs needs a real file system below; not every /tmp is one.
    scratch = Path(tempfile.mkdtemp(prefix="dockmagic-test-", dir="/var/tmp"))
    try:
        layers, others = LayerStore(scratch / "layers"), LayerStore(scratch / "others")
        empty = scratch / "empty"
        empty.mkdir()
        chain: list[str] = []
        for step in (before, after):
            upper, work = scratch / "upper", scratch / "work"
            upper.mkdir()
            work.mkdir()
            below = tuple(map(str, layers.paths(chain)))
            mount = mount_rootfs(Rootfs((*below, str(empty)), str(upper), str(work)))
            try:
                for operation in step:
                    perform(mount, operation)
                expected = describe(mount)
            finally:
                os.close(mount)
            kinds = kinds_in(upper)
            layer = layers.commit(upper)
            shutil.rmtree(work)
            tar = io.BytesIO()
            layers.tar(layer.diff_id, tar)
            tar.seek(0)
            again = others.apply(layer.diff_id, tar)
            assert again.size == layer.size
            others.tar(layer.diff_id, io.BytesIO())
            chain.append(layer.diff_id)
        merged = mount_rootfs(Rootfs((*map(str, others.paths(chain)), str(empty))))
        try:
            assert describe(merged) == expected
        finally:
            os.close(merged)
        return kinds
    finally:
        shutil.rmtree(scratch)
