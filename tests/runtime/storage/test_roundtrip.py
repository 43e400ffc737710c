"""Whatever a container does to its root, the layer made of it says exactly that: apply(diff) is the identity.

Random operations are done through a real overlay mount; the upper directory becomes a layer; its tar goes
into another store; the two merged views must be the same tree, and the diff ID the same.
"""

import io
import os
import shutil
import stat
import tempfile
from pathlib import Path

from dockmagic_runtime.storage.layers import LayerStore
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs
from dockmagic_runtime.storage.unpack import remove_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = [b"a", b"b", b".c", "é".encode(), b"\xff", b"n" * 120]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
modes = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2770, 0o1777, 0o000])
owners = st.sampled_from([0, 1, 1000, 3_000_000])
times = st.sampled_from([0, 1, 1_700_000_000, 5_000_000_000])
operations = st.one_of(
    st.tuples(st.just("file"), paths, st.binary(max_size=700), modes, owners, times),
    st.tuples(st.just("directory"), paths, modes, owners),
    st.tuples(st.just("symlink"), paths, st.sampled_from([b"a", b"/b", b"../.c", b"t" * 130])),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.just("fifo"), paths, modes),
    st.tuples(st.just("device"), paths, modes),
    st.tuples(st.just("remove"), paths),
    st.tuples(st.just("replace"), paths),
    st.tuples(st.just("mode"), paths, modes),
    st.tuples(st.just("attribute"), paths, st.sampled_from(["user.x", "user.y"]), st.binary(max_size=200)),
)


def perform(root: int, operation: tuple) -> None:
    """Do it if it can be done; what the kernel refuses (no such file, is a directory) just has no effect."""
    kind, path, *rest = operation
    try:
        if kind == "file":
            content, mode, owner, time = rest
            fd = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root
            )
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                os.fchown(fd, owner, owner)
                os.fchmod(fd, mode)
                file.flush()
                os.utime(fd, (time, time))
        elif kind == "directory":
            mode, owner = rest
            os.mkdir(path, dir_fd=root)
            os.chown(path, owner, owner, dir_fd=root)
            os.chmod(path, mode, dir_fd=root)
        elif kind == "symlink":
            os.symlink(rest[0], path, dir_fd=root)
        elif kind == "link":
            os.link(rest[0], path, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
        elif kind == "fifo":
            os.mknod(path, stat.S_IFIFO | rest[0], dir_fd=root)
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR | rest[0], os.makedev(1, 3), dir_fd=root)
        elif kind == "remove":
            remove_tree(root, path)
        elif kind == "replace":
            remove_tree(root, path)
            os.mkdir(path, dir_fd=root)
        elif kind == "mode":
            os.chmod(path, rest[0], dir_fd=root, follow_symlinks=True)
        else:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root)
            try:
                os.setxattr(fd, rest[0], rest[1])
            finally:
                os.close(fd)
    except OSError:
        return


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
                attributes = {key: os.getxattr(file, key) for key in os.listxattr(file) if "user." in key}
                os.close(file)
            same = (
                first.setdefault(status.st_ino, path) if status.st_nlink > 1 and content is not None else path
            )
            facts = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, int(status.st_mtime))
            tree[path] = (*facts, content, attributes, same)
    return tree


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operations, max_size=20), st.lists(operations, max_size=20))
def test_apply_of_diff_is_identity(before: list[tuple], after: list[tuple]) -> None:
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
    finally:
        shutil.rmtree(scratch)
