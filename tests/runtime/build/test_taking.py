"""The last COPY takes the context's directories away: nobody may notice but by the time it takes."""

import io
import os
import random
import tarfile
from pathlib import Path

import pytest
from dockmagic_runtime.build.context import Context, tree, unpack_context
from dockmagic_runtime.build.entries import checksum
from dockmagic_runtime.build.options import BuildOptions
from dockmagic_runtime.errors import SystemFailure
from dockmagic_runtime.kernel import paths
from dockmagic_runtime.storage.written import Written

from .conftest import Bench, chunks

FILES: dict[str, str | bytes] = {
    "a.txt": "A\n",
    "dir/one": "1\n",
    "dir/sub/two": "2\n",
    "dir/sub/deep/three": "3\n",
    "etc/new": "N\n",
    "etc/more/four": "4\n",
}
TWICE = "FROM base AS one\nCOPY . /x/\nFROM base AS two\nCOPY dir /x/\nCOPY . /y/\nFROM base\n"

ROWS = [
    # the same again, with whatever reads the context before and after
    ("COPY dir /x\nCOPY dir /y", "cat /x/sub/two /y/sub/two /y/sub/deep/three", "2\n2\n3\n"),
    ("COPY dir /x\nRUN --mount=target=/c cat /c/dir/sub/two > /x/seen", "cat /x/seen", "2\n"),
    ("COPY dir /x\nADD dir/sub /y", "cat /x/sub/two /y/deep/three", "2\n3\n"),
    ("COPY dir /x\nRUN rm -r /x/sub\nCOPY dir /x", "cat /x/sub/deep/three", "3\n"),
    # what lies in what
    ("COPY dir/sub dir /x/", "cat /x/two /x/deep/three /x/sub/deep/three", "2\n3\n3\n"),
    ("COPY --parents dir/sub dir /x/", "cat /x/dir/sub/deep/three /x/dir/one", "3\n1\n"),
    ("COPY --parents dir/./sub /x/", "cat /x/sub/deep/three", "3\n"),
    (
        "COPY --parents --exclude=sub/deep dir dir/sub/deep /x/",
        "cat /x/dir/sub/two /x/dir/sub/deep/three",
        "2\n3\n",
    ),
    # what is there already
    ("COPY . /", "cat /etc/new /etc/more/four; grep -c root /etc/passwd", "N\n4\n1\n"),
    ("RUN mkdir -p /x/sub && echo old > /x/sub/old\nCOPY dir /x", "cat /x/sub/old /x/sub/two", "old\n2\n"),
    ("COPY etc/more /x/sub\nCOPY dir /x", "cat /x/sub/four /x/sub/two", "4\n2\n"),
    ("COPY --link dir /x", "cat /x/sub/two", "2\n"),
    ("COPY --exclude=**/two dir /x", "ls /x/sub", "deep\n"),
    ("COPY --chmod=700 dir /x", "stat -c %a /x/sub /x/sub/two", "700\n700\n"),
    ("COPY --chown=me dir /x", "stat -c %U /x/sub/two", "me\n"),
    # beside and after each other
    (f"{TWICE}COPY --from=one /x /x\nCOPY --from=two /y/dir /y", "cat /x/dir/sub/two /y/sub/two", "2\n2\n"),
]


@pytest.mark.parametrize(("steps", "script", "printed"), ROWS, ids=[row[0][:60] for row in ROWS])
async def test_every_reader_finds_it(bench: Bench, steps: str, script: str, printed: str) -> None:
    text = steps if steps.startswith("FROM") else f"FROM base\n{steps}"
    assert bench.sh(await bench.build(text, FILES), script) == printed


async def test_a_trigger_reads_before_and_another_stage_beside(bench: Bench) -> None:
    await bench.build("FROM base\nONBUILD COPY dir /triggered", FILES, tags=["onbuild:latest"])
    image = await bench.build(
        "FROM base AS one\nCOPY . /x\nFROM onbuild AS two\nCOPY dir /x\nFROM base\n"
        "COPY --from=one /x/dir/sub /a/\nCOPY --from=two /triggered/sub /b/\nCOPY --from=two /x/sub /c/",
        FILES,
    )
    assert bench.sh(image, "cat /a/two /b/two /c/two") == "2\n2\n2\n"


def members(bench: Bench, diff_id: str) -> list[tuple[object, ...]]:
    """What a layer says; times only of files, for the context's directories are made on arrival."""
    out = io.BytesIO()
    bench.layers.tar(diff_id, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        return [(m.name, m.mode, m.uid, m.gid, m.size, m.isdir() or m.mtime) for m in tar if m.name != "x"]


async def test_taken_or_copied_is_the_same_layer(bench: Bench) -> None:
    taken = await bench.build("FROM base\nCOPY dir /x/", FILES)
    layer = bench.layers.get(taken.diff_ids[-1])
    assert layer
    assert (layer.path / "x/sub/two").stat().st_nlink == 1 and layer.size == 6
    says = members(bench, layer.diff_id)
    copied = await bench.build("FROM base\nCOPY --exclude=nothing dir /x/", FILES)
    assert members(bench, copied.diff_ids[-1]) == says
    assert [name for name, *_ in says] == ["x/one", "x/sub", "x/sub/two", "x/sub/deep", "x/sub/deep/three"]


def archive(*members: tuple[str, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_700_000_000
            tar.addfile(member, io.BytesIO(data))
    out.seek(0)
    return out


def test_what_was_hashed_on_arrival_is_what_is_there(tmp_path: Path) -> None:
    """Also of a file that is in the archive several times."""
    given_files = [(f"d/{n % 7}", os.urandom(n * 100)) for n in range(60)]
    given = unpack_context(archive(*given_files), tmp_path / "context")
    with paths.opened(given.path / "d") as directory:
        assert given.written.file(directory, b"3")  # the last one, and no other
    with tree(given, None) as known:
        told = checksum(known.find("d"))
    with tree(Context(given.path, Written()), None) as read:
        assert checksum(read.find("d")) == told


async def test_a_changed_byte_is_another_step(bench: Bench) -> None:
    async def build(data: bytes) -> list[str]:
        bench.said = []
        stream = archive(("Dockerfile", b"FROM base\nCOPY d /x"), ("d/f", data))
        await bench.builder.build(chunks(stream), BuildOptions(), bench.said.append)
        return bench.states

    assert "cached" not in (await build(b"one"))[1:]
    assert (await build(b"one"))[-1] == "cached"
    assert (await build(b"two"))[-1] != "cached"


def made_up(seed: int) -> tuple[dict[str, str | bytes], str]:
    """A context and a Dockerfile that copies from it, this way and that."""
    draw = random.Random(seed)
    folders = ["", *(f"{a}/" for a in "ab"), *(f"{a}/{b}/" for a in "ab" for b in "cd"), "a/c/e/"]
    files: dict[str, str | bytes] = {}
    for _ in range(draw.randint(4, 16)):
        name = draw.choice(folders) + draw.choice("uvwxyz")
        files[name] = draw.choice(("", "text\n", f"{draw.random()}\n", "-> u", bytes(70_000)))
    files |= {
        "a/c/kept": "1\n",
        "b/kept": "2\n",
        "it.tar": archive(("c/kept", b"3"), ("new/f", b"4")).getvalue(),
    }
    sources = [folder.rstrip("/") or "." for folder in folders if any(f.startswith(folder) for f in files)]
    sources += [name for name, content in files.items() if not str(content).startswith("->")]
    lines = ["FROM base"]
    for number in range(draw.randint(1, 5)):
        flags = draw.choice(
            ("", "", "", "--link ", "--parents ", "--exclude=**/kept ", "--chmod=640 ", "--chown=me ")
        )
        taken = draw.sample(sources, draw.choice((1, 1, 1, 2, 3)))
        name = draw.choice(("COPY", "COPY", "ADD"))
        if name == "ADD":
            flags, taken = "", [*taken, "it.tar"][-2:]
        lines.append(f"{name} {flags}{' '.join(taken)} {draw.choice(('/o/', '/o/c/', '/', '/p/q/'))}")
        if draw.random() < 0.3:
            lines += [
                f"FROM base AS s{number}" if draw.random() < 0.5 else "RUN --mount=target=/m ls -R /m > /seen"
            ]
    return files, "\n".join(lines)


@pytest.mark.parametrize("seed", range(60))
async def test_what_is_hashed_is_what_the_disk_says(bench: Bench, seed: int) -> None:
    """Whatever is copied in which way: `bench` compares all layers when it ends."""
    files, text = made_up(seed)
    image = await bench.build(text, files)
    again = await bench.build(text, files)
    assert again.id == image.id and set(bench.states) == {"cached"}


async def test_directories_as_deep_as_a_path_can_say(bench: Bench) -> None:
    """Nothing calls itself for each; with an epoch the deepest gets its time like the rest."""
    depth = 2040
    files: dict[str, str | bytes] = {"d/" * depth + "f": "1\n"}
    image = await bench.build("FROM base\nCOPY . /\nCOPY d /x/", files)
    assert members(bench, image.diff_ids[-1])[-1][0] == "x/" + "d/" * (depth - 1) + "f"
    image = await bench.build("FROM base\nCOPY d /", files, build_arguments={"SOURCE_DATE_EPOCH": "1000"})
    assert members(bench, image.diff_ids[-1])[-1][-1] == 1000


@pytest.mark.parametrize(
    "steps", ["COPY . /x/", "COPY deep /x/", "RUN --mount=target=/m true", "COPY Dockerfile /x/"]
)
async def test_deeper_ones_are_refused_in_a_short_line(bench: Bench, steps: str) -> None:
    """Made over a link that shortens the way. With the last step it is .dockerignore that goes down there."""
    half = ("d" * 100 + "/") * 21
    files: dict[str, str | bytes] = {f"deep/{half}f": "", "link": f"-> deep/{half}", f"link/{half}f": ""}
    if steps.startswith("COPY Dockerfile"):
        files[".dockerignore"] = "other"
    with pytest.raises(SystemFailure) as refused:
        await bench.build(f"FROM base\n{steps}", files)
    text = str(refused.value)
    assert text.startswith("cannot read ") and text.endswith("…: File name too long") and len(text) < 260
