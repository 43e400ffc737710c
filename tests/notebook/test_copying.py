"""`%docker cp` beside the docker command's `cp`: the same files under the same names, the same refusals."""

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from dockmagic.grammar.values import Archive

from .conftest import IMAGE, Run

Tree = dict[str, tuple[object, ...]]


def entry(name: str, content: str | None = None, *, link: str | None = None) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    data = (content or "").encode()
    if link is not None:
        member.type, member.linkname = tarfile.SYMTYPE, link
    elif content is None:
        member.type = tarfile.DIRTYPE
    member.mode = 0o755 if member.isdir() else 0o640
    member.size = len(data)
    return member, data


INSIDE = [
    entry("w"),
    entry("w/file", "inside"),
    entry("w/dir"),
    entry("w/dir/one", "1"),
    entry("w/dir/sub"),
    entry("w/dir/sub/two", "2"),
    entry("w/dir/absolute", link="/etc/passwd"),
    entry("w/to-file", link="file"),
    entry("w/to-dir", link="/w/dir"),
]


@pytest.fixture
def boxes(docker_host: str) -> Iterator[Callable[[], Container]]:
    """Makes containers with the tree INSIDE; none of them is ever started."""
    client = docker.DockerClient(base_url=docker_host)
    made: list[Container] = []
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as tar:
        for member, data in INSIDE:
            tar.addfile(member, io.BytesIO(data))

    def make() -> Container:
        made.append(client.containers.create(IMAGE, "true", network_mode="none"))
        assert made[-1].put_archive("/", spool.getvalue())
        return made[-1]

    yield make
    for box in made:
        box.remove(force=True)
    client.close()


def outside(folder: Path) -> Path:
    """The files of this machine that a case begins with."""
    (folder / "dir").mkdir(parents=True)
    (folder / "dir/inner").write_text("inner")
    (folder / "dir/link").symlink_to("/etc/hostname")
    (folder / "file").write_text("outside")
    os.chown(folder / "file", 1234, 1234)
    (folder / "to-file").symlink_to("file")
    return folder


def tree_of_machine(folder: Path) -> Tree:
    def described(path: Path) -> tuple[object, ...]:
        mode = path.lstat().st_mode
        if path.is_symlink():
            return "link", str(path.readlink())
        return ("directory",) if path.is_dir() else ("file", path.read_text(), stat.S_IMODE(mode) & 0o700)

    return {str(path.relative_to(folder)): described(path) for path in sorted(folder.rglob("*"))}


def tree_of(box: Container) -> Tree:
    chunks, _ = box.get_archive("/w")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        found: Tree = {}
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            data = content.read() if content else b""
            found[member.name] = (member.type, member.linkname, data, member.mode, member.uid, member.gid)
    return found


def refused(text: str, box: Container, folder: Path) -> str:
    """The last words of a refusal, without the names of what is not the same for both commands."""
    words = text.strip().splitlines()[-1].rpartition(": ")[2]
    return words.replace(str(box.id), "BOX").replace(str(folder), "FOLDER")


OUT = [
    "BOX:/w/file new",
    "BOX:/w/file dir",
    "BOX:/w/file dir/",
    "BOX:/w/file file",
    "BOX:/w/file missing/",
    "BOX:/w/file missing/new",
    "BOX:/w/dir new",
    "BOX:/w/dir new/",
    "BOX:/w/dir dir",
    "BOX:/w/dir/. dir",
    "BOX:/w/dir/. new",
    "BOX:/w/dir file",
    "BOX:/w/to-file new",
    "-L BOX:/w/to-file new",
    "-L BOX:/w/to-file dir",
    "BOX:/w/to-dir dir",
    "-L BOX:/w/to-dir dir",
    "-L BOX:/w/to-dir new",
    "BOX:/w/nosuch new",
]
IN = [
    "file BOX:/w/new",
    "file BOX:/w/dir",
    "file BOX:/w/dir/",
    "file BOX:/w/file",
    "file BOX:/w/missing/",
    "file BOX:/w/missing/new",
    "file BOX:/w/to-file",
    "file BOX:/w/to-dir",
    "dir BOX:/w/new",
    "dir BOX:/w/new/",
    "dir BOX:/w/dir",
    "dir/. BOX:/w/dir",
    "dir/. BOX:/w/new",
    "dir BOX:/w/file",
    "to-file BOX:/w/new",
    "-L to-file BOX:/w/new",
    "-L to-file BOX:/w/dir",
    "-a file BOX:/w/new",
    "nosuch BOX:/w/new",
]


@pytest.mark.parametrize("line", [*OUT, *IN])
def test_the_same_as_the_docker_command(
    run: Run, boxes: Callable[[], Container], docker_host: str, tmp_path: Path, line: str
) -> None:
    theirs, ours = outside(tmp_path / "theirs"), outside(tmp_path / "ours")
    their_box, our_box = boxes(), boxes()
    done = subprocess.run(
        ["docker", "cp", *line.replace("BOX", str(their_box.id)).split()],
        cwd=theirs,
        env={**os.environ, "DOCKER_HOST": docker_host},
        capture_output=True,
        text=True,
        check=False,
    )
    run(f"%cd -q {ours}")
    ran = run(f"%docker cp {line.replace('BOX', str(our_box.id))}")
    assert (ran.error is None) is (done.returncode == 0), (ran.error, done.stderr)
    if ran.error is not None:
        assert refused(str(ran.error), our_box, ours) == refused(done.stderr, their_box, theirs)
    assert tree_of_machine(ours) == tree_of_machine(theirs)
    assert tree_of(our_box) == tree_of(their_box)


def test_an_archive_as_a_value(run: Run, boxes: Callable[[], Container]) -> None:
    ran = run(f"%docker cp {boxes().id}:/w/dir -")
    assert isinstance(ran.value, Archive)
    with tarfile.open(fileobj=io.BytesIO(ran.value)) as tar:
        assert "dir/sub/two" in tar.getnames()
    assert "dir/sub/two" in repr_of(ran.value)


def repr_of(value: object) -> str:
    from IPython.lib.pretty import pretty

    return str(pretty(value))


def test_what_was_copied_is_said_unless_quiet(
    run: Run, boxes: Callable[[], Container], tmp_path: Path
) -> None:
    box = boxes()
    ran = run(f"%docker cp {box.id}:/w/file {tmp_path}/copy")
    assert ran.value == tmp_path / "copy"
    assert ran.stdout.startswith("Successfully copied ") and ran.stdout.endswith(f" to {tmp_path}/copy\n")
    quiet = run(f"%docker cp -q {tmp_path}/copy {box.id}:/w/again")
    assert quiet.stdout == "" and quiet.value.id == box.id


def test_an_archive_can_not_write_elsewhere(tmp_path: Path) -> None:
    """A container's `/w/x` may be a link to anywhere by the time the archive is made."""
    from dockmagic.errors import DockmagicError
    from dockmagic.grammar.copying import _unpack

    (tmp_path / "into").mkdir()
    (tmp_path / "victim").write_text("safe")
    (tmp_path / "into/hard").write_text("")
    hard = tarfile.TarInfo("x/hard")
    hard.type, hard.linkname = tarfile.LNKTYPE, "x/../../victim"
    device = tarfile.TarInfo("x/null")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
    for members in (
        [entry("x"), entry("x/up", link=".."), entry("x/up/victim", "bad")],
        [entry("x"), entry("x/victim", link=str(tmp_path / "victim")), entry("x/victim", "bad")],
        [entry("x"), entry("x/../../victim", "bad")],
        [entry("x"), (hard, b"")],
        [entry("x"), (device, b"")],
    ):
        spool = io.BytesIO()
        with tarfile.open(fileobj=spool, mode="w") as tar:
            for member, data in members:
                tar.addfile(member, io.BytesIO(data))
        spool.seek(0)
        with pytest.raises(DockmagicError, match="not copied"):
            _unpack(spool, "/x/.", str(tmp_path / "into"), keep_owners=False)
        assert (tmp_path / "victim").read_text() == "safe"
        for left in (tmp_path / "into").iterdir():
            if left.is_symlink():
                left.unlink()
