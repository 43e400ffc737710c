"""The life of a snapshot; `docker diff`, compared with Docker itself; export; what a crash leaves."""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from dockmagic_runtime.errors import Conflict, NotFound
from dockmagic_runtime.storage.layers import Layer, LayerStore
from dockmagic_runtime.storage.overlay import mount_rootfs
from dockmagic_runtime.storage.snapshots import SnapshotStore

BASE = """
mkdir -p bin etc/network/if.d var/spool var/www home/me root tmp usr/lib
cp /bin/busybox bin/busybox
for name in sh rm mkdir touch chmod chown mv ln echo cat mkfifo cp sed; do ln -s busybox bin/$name; done
echo root:x:0:0::/root:/bin/sh > etc/passwd; echo root:x:0: > etc/group; echo x > etc/shadow
echo 1 > etc/network/if.d/one; echo 2 > var/www/index.html; echo 3 > usr/lib/a; echo 4 > usr/lib/b
touch -d '2020-01-01 00:00:00.5' etc/* usr/lib/* var/www/*
"""
SCENARIO = """
rm -rf /etc/network; mkdir /etc/network; touch /etc/network/new
echo x >> /etc/passwd; mkdir -p /a/b/c; touch /a/b/c/f; chmod 700 /var/spool; ln -s /etc /lnk
rm -rf /var/www; touch /tmp/z; rm /tmp/z; mkfifo /p; rm -rf /home; echo hi > /home; mv /root /root2
chown 1 /etc/shadow; rm /etc/group; mkdir /etc/group; touch /etc/group/x; rm /usr/lib/a
cat /usr/lib/b > /tmp/copy; chmod 755 /var
"""
KINDS = ["C", "A", "D"]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """On a file system that overlayfs accepts."""
    path = Path(tempfile.mkdtemp(prefix="dockmagic-test-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def layers(scratch: Path) -> LayerStore:
    return LayerStore(scratch / "layers")


@pytest.fixture
def snapshots(scratch: Path, layers: LayerStore) -> SnapshotStore:
    return SnapshotStore(scratch / "containers", layers)


@pytest.fixture
def base_tar(scratch: Path) -> bytes:
    tree = scratch / "base"
    tree.mkdir()
    subprocess.run(["sh", "-ec", BASE], cwd=tree, check=True)
    return subprocess.run(["tar", "-c", "-C", tree, "."], capture_output=True, check=True).stdout


@pytest.fixture
def base(layers: LayerStore, base_tar: bytes) -> Layer:
    return layers.apply(None, io.BytesIO(base_tar))


def run_in(root: int, script: str) -> None:
    subprocess.run(
        ["/bin/busybox", "sh", "-ec", f"cd /proc/self/fd/{root} && exec chroot . /bin/sh -ec '{script}'"],
        pass_fds=[root],
        check=True,
    )


def changed(snapshots: SnapshotStore, key: str) -> list[str]:
    return [f"{KINDS[kind]} {path}" for kind, path in snapshots.changes(key)]


def test_a_life(snapshots: SnapshotStore, layers: LayerStore, base: Layer) -> None:
    rootfs = snapshots.prepare("one", [base.diff_id])
    assert snapshots.get("one") == rootfs
    assert snapshots.changes("one") == [] and snapshots.usage("one").size == 0
    with pytest.raises(Conflict):
        snapshots.prepare("one", [base.diff_id])
    with snapshots.mounted("one", writable=True) as root:
        run_in(root, "echo hello > /new; rm /etc/passwd")
    assert changed(snapshots, "one") == ["C /etc", "D /etc/passwd", "A /new"]
    assert snapshots.usage("one").size == 6

    copied = snapshots.commit("one")
    moved = snapshots.commit("one", move=True)
    assert copied == moved
    with pytest.raises(NotFound):
        snapshots.get("one")

    view = mount_rootfs(snapshots.view([base.diff_id, moved.diff_id]))
    try:
        assert os.stat("new", dir_fd=view).st_size == 6
        with pytest.raises(FileNotFoundError):
            os.stat("etc/passwd", dir_fd=view)
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("x", dir_fd=view)
    finally:
        os.close(view)


def test_missing_layers_and_snapshots(snapshots: SnapshotStore) -> None:
    with pytest.raises(NotFound):
        snapshots.prepare("one", ["sha256:" + "0" * 64])
    with pytest.raises(NotFound):
        snapshots.get("one")
    snapshots.remove("one")


def test_mount_points_are_not_changes(snapshots: SnapshotStore, layers: LayerStore) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, mode in (("etc", 0o750), ("etc/hosts", 0o600)):
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.mtime = mode, 5, 1234
            info.type = tarfile.DIRTYPE if name == "etc" else tarfile.REGTYPE
            archive.addfile(info)
    tar.seek(0)
    layer = layers.apply(None, tar)
    snapshots.prepare("one", [layer.diff_id])
    with snapshots.mounted("one") as root:
        for path in ("proc", "sys", "dev/pts", "dev/shm", "dev/console", "etc/resolv.conf", "etc/hostname"):
            os.stat(path, dir_fd=root)
        etc = os.stat("etc", dir_fd=root)
        assert (etc.st_mode & 0o7777, etc.st_uid, etc.st_mtime) == (0o750, 5, 1234)
        assert os.stat("etc/hosts", dir_fd=root).st_mode & 0o777 == 0o600
        assert os.readlink("etc/mtab", dir_fd=root) == "/proc/mounts"
    assert snapshots.changes("one") == []


def test_an_image_of_nothing(snapshots: SnapshotStore) -> None:
    snapshots.prepare("one", [])
    with snapshots.mounted("one", writable=True) as root:
        os.mkdir("data", dir_fd=root)
    assert changed(snapshots, "one") == ["A /data"]
    os.close(mount_rootfs(snapshots.view([])))


def test_the_host_as_image(snapshots: SnapshotStore, scratch: Path) -> None:
    snapshots.prepare("one", [], host=True)
    with snapshots.mounted("one", writable=True) as root:
        assert os.stat("etc/passwd", dir_fd=root).st_size == Path("/etc/passwd").stat().st_size
        os.mkdir("dockmagic-test", dir_fd=root)
    assert changed(snapshots, "one") == ["A /dockmagic-test"]
    assert not Path("/dockmagic-test").exists()


@pytest.mark.usefixtures("real_docker")
def test_diff_says_what_docker_says(snapshots: SnapshotStore, base: Layer, base_tar: bytes) -> None:
    snapshots.prepare("one", [base.diff_id])
    with snapshots.mounted("one", writable=True) as root:
        run_in(root, SCENARIO)
    name = f"dockmagic-test-{uuid.uuid4().hex[:8]}"
    docker = ["docker"]
    subprocess.run([*docker, "import", "-", name], input=base_tar, check=True, capture_output=True)
    try:
        subprocess.run([*docker, "run", "--name", name, name, "sh", "-ec", SCENARIO], check=True)
        said = subprocess.run([*docker, "diff", name], capture_output=True, check=True, text=True).stdout
    finally:
        subprocess.run([*docker, "rm", "-f", name], capture_output=True, check=False)
        subprocess.run([*docker, "rmi", name], capture_output=True, check=False)
    assert changed(snapshots, "one") == sorted(said.splitlines(), key=lambda line: line[2:].split("/"))


def test_export_is_the_merged_tree(snapshots: SnapshotStore, base: Layer) -> None:
    snapshots.prepare("one", [base.diff_id])
    with snapshots.mounted("one", writable=True) as root:
        run_in(root, "rm /etc/passwd; echo hi > /etc/new; rm -rf /var; mkdir /var; touch /var/x")
    out = io.BytesIO()
    snapshots.export("one", out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        names = archive.getnames()
        content = archive.extractfile("etc/new")
        assert content and content.read() == b"hi\n"
    assert {"etc/new", "var/x", "bin/busybox", "proc", "usr/lib/a"} <= set(names)
    assert not {"etc/passwd", "var/www", "var/spool"} & set(names)


def test_export_of_a_running_root_leaves_mounts_out(snapshots: SnapshotStore, base: Layer) -> None:
    rootfs = snapshots.prepare("one", [base.diff_id])
    options = f"lowerdir={':'.join(rootfs.lower)},upperdir={rootfs.upper},workdir={rootfs.work}"
    script = (
        "mount -t overlay overlay -o $1 $2 && mount -t proc proc $2/proc && mount -t tmpfs none $2/tmp"
        " && echo secret > $2/tmp/secret && mount --bind $2/tmp/secret $2/etc/hosts"
        " && echo up && exec sleep 60"
    )
    with tempfile.TemporaryDirectory() as target:
        running = subprocess.Popen(
            ["unshare", "-m", "sh", "-ec", script, "sh", options, target], stdout=subprocess.PIPE
        )
        try:
            assert running.stdout and running.stdout.readline() == b"up\n"
            seen = os.open(f"/proc/{running.pid}/root{target}", os.O_PATH | os.O_DIRECTORY)
            out = io.BytesIO()
            snapshots.export("one", out, root=seen)
            os.close(seen)
        finally:
            running.kill()
            running.wait()
            assert running.stdout
            running.stdout.close()
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        names = archive.getnames()
        assert archive.getmember("etc/hosts").size == 0
    assert {"proc", "tmp", "etc/passwd"} <= set(names)
    assert not any(name.startswith(("proc/", "tmp/")) for name in names)


def test_a_crash_leaves_nothing_that_stays(scratch: Path, layers: LayerStore, base: Layer) -> None:
    snapshots = SnapshotStore(scratch / "containers", layers)
    snapshots.prepare("kept", [base.diff_id])
    snapshots.prepare("half-made", [base.diff_id])
    (scratch / "containers/half-made/snapshot.json").unlink()
    (scratch / "layers/tmp/layer-dead/fs/d").mkdir(parents=True)
    (scratch / "layers/init/tmp-dead/etc").mkdir(parents=True)

    layers.sweep()
    snapshots.sweep(["kept"])
    assert [path.name for path in (scratch / "containers").iterdir()] == ["kept"]
    assert list((scratch / "layers/tmp").iterdir()) == []
    assert not list((scratch / "layers/init").glob("tmp-*"))
    assert layers.diff_ids() == [base.diff_id]
    snapshots.get("kept")


def test_the_same_changes_are_one_layer(snapshots: SnapshotStore, layers: LayerStore, base: Layer) -> None:
    for key in ("one", "two"):
        snapshots.prepare(key, [base.diff_id])
        with snapshots.mounted(key, writable=True) as root:
            run_in(root, "echo hello > /new; touch -d @1000 /new")
    first = snapshots.commit("one", move=True)
    assert snapshots.commit("two", move=True) == first
    assert sorted(layers.diff_ids()) == sorted([base.diff_id, first.diff_id])
    layers.remove(first.diff_id)
    layers.remove(first.diff_id)
    assert layers.get(first.diff_id) is None
