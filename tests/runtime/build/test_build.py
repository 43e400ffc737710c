"""Whole builds: files, configs, cache, stages, failures, interrupts; the stream a client sees."""

import asyncio
import io
import json
import re
import tarfile

import pytest
from dockmagic_runtime.build.options import BuildOptions
from dockmagic_runtime.build.parser import DockerfileError
from dockmagic_runtime.build.stage import StepFailed
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.images import describe, removal
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.oci.reference import parse_reference

from .conftest import Bench, chunks, context, machine


async def test_the_stream_is_dockers(bench: Bench) -> None:
    image = await bench.build("FROM base\nRUN echo hello; echo world > /f\nENV A=b\n", tags=["me/app", "x:1"])
    step = r"[0-9a-f]{12}"
    expected = (
        rf"Step 1/3 : FROM base\n ---> {step}\n"
        rf"Step 2/3 : RUN echo hello; echo world > /f\n ---> Running in {step}\nhello\n"
        rf" ---> Removed intermediate container {step}\n ---> {step}\n"
        rf"Step 3/3 : ENV A=b\n ---> {step}\n"
        rf"Successfully built {image.id[7:19]}\nSuccessfully tagged me/app:latest\nSuccessfully tagged x:1\n"
    )
    assert re.fullmatch(expected, bench.text), bench.text
    assert {"aux": {"ID": image.id}} in bench.said
    assert image.repo_tags == ["me/app:latest", "x:1"]
    assert bench.sh(image, "cat /f") == "world\n"
    assert bench.states == ["cached", "built", "built"]


async def test_a_layer_has_what_the_step_wrote_and_no_mount_points(bench: Bench) -> None:
    image = await bench.build("FROM base\nRUN touch /one\n")
    layer = bench.layers.get(image.diff_ids[-1])
    assert layer and [path.name for path in layer.path.iterdir()] == ["one"]


async def test_config(bench: Bench) -> None:
    image = await bench.build(
        """FROM base
ARG WHO=world
ENV GREETING="hello $WHO" X=1
ENV Y=$X-${Z:-none} PATH=/opt/bin:$PATH
LABEL a.b="c d" e=f
EXPOSE 80 53/udp 8000-8001
VOLUME ["/data", "/more"]
USER me
WORKDIR /srv
WORKDIR app/
STOPSIGNAL SIGINT
CMD ["echo hi"]
ENTRYPOINT ["/bin/sh", "-c"]
HEALTHCHECK --interval=5s --retries=3 CMD true
""",
        build_arguments={"WHO": "you"},
        labels={"given": "1"},
    )
    settings = image.config["config"]
    assert settings["Env"] == ["PATH=/opt/bin:/bin", "GREETING=hello you", "X=1", "Y=1-none"]
    assert settings["Labels"] == {"a.b": "c d", "e": "f", "given": "1"}
    assert sorted(settings["ExposedPorts"]) == ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]
    assert settings["Volumes"] == {"/data": {}, "/more": {}}
    assert (settings["User"], settings["WorkingDir"], settings["StopSignal"]) == ("me", "/srv/app", "SIGINT")
    assert settings["Entrypoint"] == ["/bin/sh", "-c"] and settings["Cmd"] == ["echo hi"]
    assert settings["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9, "Retries": 3}
    assert bench.sh(image, "stat -c '%U %a' /srv/app") == "me 755\n"
    history = image.config["history"]
    assert [not entry.get("empty_layer") for entry in history].count(True) == len(image.diff_ids)


async def test_run_sees_user_directory_and_variables(bench: Bench) -> None:
    image = await bench.build(
        """FROM base
ARG A=1
ARG B
ENV C=3
RUN mkdir /out && chmod 777 /out
USER me
WORKDIR /out
RUN echo "$A $B $C $(pwd) $(id -u):$(id -g)" > seen
RUN ["/bin/sh", "-c", "echo exec $C > exec"]
SHELL ["/bin/sh", "-ec"]
RUN false || true; echo shell > shell
""",
        build_arguments={"B": "two"},
    )
    assert bench.sh(image, "cat /out/seen /out/exec /out/shell") == "1 two 3 /out 1000:1001\nexec 3\nshell\n"
    assert "B=two" not in image.config["config"]["Env"]


async def test_run_has_the_network(bench: Bench) -> None:
    image = await bench.build("FROM base\nRUN ip -o addr | grep -c 'eth0.*inet ' > /n; cat /etc/hosts > /h\n")
    assert bench.sh(image, "cat /n") == "1\n"


FILES = {"a.txt": "A", "b.txt": "B", "d/x": "X", "d/sub/y": "Y", "link": "-> a.txt"}


async def test_copy(bench: Bench) -> None:
    image = await bench.build(
        """FROM base
COPY a.txt /one
COPY a.txt b.txt /two/
COPY *.txt /three/
COPY d /four
COPY d/ /four/deeper
WORKDIR /five
COPY a.txt .
COPY link linked
COPY --chown=me --chmod=600 d /six
COPY --chown=5:others a.txt /seven/
COPY a.txt /home/me
""",
        FILES,
    )
    listing = bench.sh(
        image,
        "cd /; cat one two/a.txt two/b.txt three/b.txt four/x four/sub/y four/deeper/x"
        " five/a.txt five/linked home/me/a.txt",
    )
    assert listing == "AABBXYXAAA"
    assert (
        bench.sh(image, "stat -c '%u:%g %a' /six/x /seven/a.txt /one")
        == "1000:1001 600\n5:2000 644\n0:0 644\n"
    )
    assert bench.sh(image, "stat -c '%Y' /one") == "1700000000\n"


async def test_copy_over_what_the_image_has(bench: Bench) -> None:
    """Written below the merged tree: directories merge with their attributes, all else is replaced."""
    image = await bench.build(
        """FROM base
RUN mkdir -p /d/x/deep /d/hidden /real && chmod 700 /d && chown me /d && echo old | \\
    sed -n 'w /d/x/keep' && echo old > /d/f && ln -s /real /d/l && ln -s /d /alias && rm -r /d/hidden
COPY tree /alias
COPY one /alias/f/again
COPY one two /d/x/
""",
        {"tree/x/new": "1", "tree/f/g": "2", "tree/l/h": "3", "tree/hidden/i": "4", "one": "5", "two": "6"},
    )
    told = bench.sh(
        image, "cd /d; for f in x/keep x/new f/g l/h hidden/i f/again x/one x/two; do cat $f; done"
    )
    assert told == "old\n1234556"
    assert bench.sh(image, "ls /real; ls -d /d/x/deep; stat -c '%a %U' /d/x; [ -L /alias ]") == (
        "/d/x/deep\n755 root\n"
    )
    layer = bench.layers.get(image.diff_ids[-3])
    await bench.builder.settle()
    assert layer and (layer.path / "d/x/new").stat().st_nlink == 1, "the context's link has gone"
    assert {path.name for path in (layer.path / "d").iterdir()} == {"x", "f", "l", "hidden"}


async def test_add_unpacks_archives_and_copy_does_not(bench: Bench) -> None:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        info = tarfile.TarInfo("inside/file")
        info.size, info.uid = 2, 7
        tar.addfile(info, io.BytesIO(b"in"))
    image = await bench.build(
        "FROM base\nADD t.tgz /added/\nCOPY t.tgz /copied/\nADD a.txt /added/\n",
        {"t.tgz": inner.getvalue(), "a.txt": "A"},
    )
    assert bench.sh(
        image, "cat /added/inside/file /added/a.txt; ls /copied; stat -c %u /added/inside/file"
    ) == ("inAt.tgz\n7\n")


async def test_copy_through_a_link_of_the_image_stays_inside(bench: Bench) -> None:
    image = await bench.build(
        "FROM base\nRUN ln -s /etc /l; ln -s ../../.. /up\nCOPY a.txt /l/\nCOPY a.txt /up/b\n", FILES
    )
    assert bench.sh(image, "cat /etc/a.txt /b") == "AA"


async def test_dockerignore(bench: Bench) -> None:
    image = await bench.build(
        "FROM base\nCOPY . /c/\n",
        {**FILES, "d/keep": "K", ".dockerignore": "# no\n*.txt\nd/**\n!d/keep\n!b.txt\n"},
    )
    assert bench.sh(image, "cd /c; ls -a d; ls").split() == [
        ".",
        "..",
        "keep",
        "Dockerfile",
        "b.txt",
        "d",
        "link",
    ]
    with pytest.raises(InvalidParameter, match="COPY failed: file not found in build context or excluded"):
        await bench.build("FROM base\nCOPY a.txt /\n", {**FILES, ".dockerignore": "*.txt"})


async def test_stages(bench: Bench) -> None:
    dockerfile = """ARG TAG=latest
FROM base:$TAG AS build
RUN echo made > /made; echo passwd > /secret
FROM base AS unused
RUN false
FROM scratch AS final
COPY --from=build /made /result
COPY --from=0 /made /second
COPY --from=base /etc/group /group
FROM final
LABEL last=1
"""
    image = await bench.build(dockerfile)
    layers = [bench.layers.get(diff_id) for diff_id in image.diff_ids]
    assert [[p.name for p in layer.path.iterdir()] for layer in layers if layer] == [
        ["result"],
        ["second"],
        ["group"],
    ]
    assert "unused" not in bench.text
    image = await bench.build(dockerfile, target="build")
    assert bench.sh(image, "cat /secret") == "passwd\n"
    with pytest.raises(InvalidParameter, match="failed to reach build target nowhere in Dockerfile"):
        await bench.build(dockerfile, target="nowhere")
    with pytest.raises(StepFailed):
        await bench.build(dockerfile, target="unused")


async def test_the_cache_is_of_content(bench: Bench) -> None:
    dockerfile = "FROM base\nARG A=1\nCOPY a.txt /\nRUN echo $A > /run\nENV X=1\n"
    first = await bench.build(dockerfile, {"a.txt": "A"})
    again = await bench.build(dockerfile, {"a.txt": "A", "other": "file"})
    assert again.id == first.id and bench.states == ["cached"] * 5
    assert " ---> Using cache\n" in bench.text

    await bench.build(dockerfile, {"a.txt": "changed"})
    assert bench.states == ["cached", "cached", "built", "built", "built"]
    await bench.build(dockerfile, {"a.txt": "A"}, build_arguments={"A": "2"})
    assert bench.states == ["cached", "built", "built", "built", "built"]
    await bench.build(dockerfile.replace("X=1", "X=2"), {"a.txt": "A"})
    assert bench.states == ["cached"] * 4 + ["built"]
    await bench.build(dockerfile, {"a.txt": "A"}, no_cache=True)
    assert bench.states == ["cached"] + ["built"] * 4
    # What stands in the config is seen by RUN, so it is in the key of all that follow.
    await bench.build("FROM base\nENV N=1\nRUN echo $N > /n\n")
    image = await bench.build("FROM base\nENV N=2\nRUN echo $N > /n\n")
    assert bench.sh(image, "cat /n") == "2\n"


async def test_times_do_not_count(bench: Bench) -> None:
    """As after a fresh clone: the same files, all of them younger."""
    ids = []
    for time in (1_600_000_000, 1_700_000_000):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as packed:
            for name, text in {"Dockerfile": "FROM base\nCOPY d /d\nRUN echo x > /x\n", "d/f": "1"}.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(text), time
                packed.addfile(member, io.BytesIO(text.encode()))
        tar.seek(0)
        bench.said.clear()
        ids.append(await bench.builder.build(chunks(tar), BuildOptions(), bench.said.append))
    assert ids[0] == ids[1] and bench.states == ["cached"] * 3


async def test_a_build_packs_no_layer(bench: Bench) -> None:
    """A tar is made of a layer when somebody asks for one."""
    blobs = bench.config.data_root / "images/blobs/sha256"
    before = set(blobs.iterdir())
    image = await bench.build("FROM base\nCOPY a.txt /\nRUN echo x > /x\n", {"a.txt": "A"})
    assert {path.name for path in set(blobs.iterdir()) - before} == {image.id.removeprefix("sha256:")}


async def test_an_image_says_which_layers_its_last_build_took_from_the_cache(bench: Bench) -> None:
    def origins(image: Image) -> list[str]:
        return [row["origin"] for row in describe.layers(bench.images, image) if row["diff_id"]]

    dockerfile = "FROM base\nRUN echo 1 > /one\nRUN echo 2 > /two\n"
    first = await bench.build(dockerfile)
    base = origins(first)[:-2]
    assert origins(first) == [*base, "built", "built"]
    changed = await bench.build(dockerfile.replace("echo 2", "echo 3"))
    assert origins(changed) == [*base, "cached", "built"]
    again = await bench.build(dockerfile)
    assert again.id == first.id and origins(again) == [*base, "cached", "cached"]
    assert origins(await bench.build(dockerfile, no_cache=True)) == [*base, "built", "built"]


async def test_the_cache_keeps_layers_until_it_is_pruned(bench: Bench) -> None:
    image = await bench.build("FROM base\nRUN echo kept > /k\n", tags=["gone"])
    await removal.remove(bench.images, "gone")
    await bench.images.collect()
    assert bench.layers.get(image.diff_ids[-1])
    again = await bench.build("FROM base\nRUN echo kept > /k\n")
    assert bench.states == ["cached", "cached"] and again.id == image.id
    await removal.remove(bench.images, again.id)
    answer = await bench.builder.prune()
    assert answer["CachesDeleted"] and answer["SpaceReclaimed"] == 5
    assert bench.layers.get(image.diff_ids[-1]) is None


async def test_steps_that_do_the_same_share_one_layer(bench: Bench) -> None:
    image = await bench.build("FROM base\nRUN true\nRUN true # again\nRUN echo x > /x\n")
    assert image.diff_ids[1] == image.diff_ids[2]
    assert bench.sh(image, "cat /x") == "x\n"


async def test_a_failing_command(bench: Bench) -> None:
    with pytest.raises(
        StepFailed, match=r"^The command '/bin/sh -c echo out; exit 3' returned a non-zero code: 3$"
    ) as failed:
        await bench.build("FROM base\nRUN echo kept > /k\nRUN echo out; exit 3\n")
    assert failed.value.code == 3 and "out\n" in bench.text and bench.states[-1] == "failed"
    assert len(bench.images.list()) == 1
    await bench.build("FROM base\nRUN echo kept > /k\n")
    assert bench.states == ["cached", "cached"]
    with pytest.raises(StepFailed) as failed:
        await bench.build('FROM base\nRUN ["/no/such/program"]\n')
    assert failed.value.code == 127


async def test_an_interrupt_leaves_nothing_but_the_cache(bench: Bench) -> None:
    task = asyncio.create_task(bench.build("FROM base\nRUN echo done > /d\nRUN echo started; sleep 1000\n"))
    while "started" not in bench.text:
        await asyncio.sleep(0.01)
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(bench.images.list()) == 1
    await bench.build("FROM base\nRUN echo done > /d\n")
    assert bench.states == ["cached", "cached"]


async def test_onbuild(bench: Bench) -> None:
    await bench.build("FROM base\nONBUILD COPY a.txt /trigger\nONBUILD RUN echo t > /t\n", tags=["parent"])
    image = await bench.build("FROM parent\nLABEL x=y\n", FILES)
    assert bench.sh(image, "cat /trigger /t") == "At\n"
    assert "# Executing 2 build triggers" in bench.text and "OnBuild" not in image.config["config"]


@pytest.mark.parametrize(
    ("dockerfile", "error", "sentence"),
    [
        ("", InvalidParameter, "the Dockerfile cannot be empty"),
        ("# only\n", InvalidParameter, "the Dockerfile cannot be empty"),
        ("RUN x\n", DockerfileError, "on line 1, column 1: no build stage in current context"),
        ("FROM base\n\n  FOO bar\n", DockerfileError, "on line 3, column 3: unknown instruction: FOO"),
        ("FROM base\nCOPY x\n", DockerfileError, "line 2, column 1: COPY requires at least two arguments"),
        ("FROM base\nCOPY --frm=x a /\n", DockerfileError, "line 2, column 6: unknown flag: --frm"),
        ("FROM base\nENV A\n", DockerfileError, "ENV must have two arguments"),
        ("FROM base\nEXPOSE 99999\n", DockerfileError, "invalid containerPort: 99999"),
        ("FROM base\nLABEL a=${\n", DockerfileError, "bad substitution"),
        ("FROM base\nCOPY ../x /\n", InvalidParameter, "file not found in build context or excluded"),
        ("FROM base\nUSER nobody-here\nRUN true\n", InvalidParameter, "unable to find user nobody-here"),
        ("FROM base:nope@\n", InvalidParameter, "invalid reference format"),
        ("FROM --platform=foo base\n", DockerfileError, 'column 17: "foo": unknown operating system or arch'),
        ("FROM base\nRUN []\n", DockerfileError, "line 2, column 5: RUN requires at least one argument"),
        ("FROM base\nENV $X=b\n", DockerfileError, "ENV names can not be blank"),
        ('FROM base\nCMD ["a", 1]\n', DockerfileError, "arrays must be comprised of strings only"),
        ("FROM base\nVOLUME []\n", DockerfileError, "VOLUME requires at least one argument"),
        ("FROM base\nSTOPSIGNAL NOPE\n", DockerfileError, "line 2, column 12: Invalid signal: NOPE"),
        ("FROM base\nHEALTHCHECK NONE x\n", DockerfileError, "column 18: HEALTHCHECK NONE takes no arg"),
        ("FROM base\nHEALTHCHECK CMD []\n", DockerfileError, "Missing command after HEALTHCHECK CMD"),
        ("FROM base\nHEALTHCHECK --interval=1us CMD a\n", DockerfileError, "cannot be less than 1ms"),
        (
            "FROM base\nHEALTHCHECK --interval=5 CMD a\n",
            DockerfileError,
            'column 13: time: invalid duration "5"',
        ),
        ("FROM base\nHEALTHCHECK --retries=-1 CMD a\n", DockerfileError, "column 13: --retries must be"),
        ("FROM base\nHEALTHCHECK FOO\n", DockerfileError, 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("FROM base\nEXPOSE 80/foo 9-7\n", DockerfileError, "column 8: invalid containerPort: 80/foo"),
        ("FROM base\nONBUILD onbuild RUN a\n", DockerfileError, "Chaining ONBUILD via `ONBUILD ONBUILD`"),
        ("FROM base\nONBUILD FROM x\n", DockerfileError, "column 9: FROM isn't allowed as an ONBUILD tr"),
        ("FROM base\nSHELL /bin/sh\n", DockerfileError, "SHELL requires the arguments to be in JSON form"),
        ("FROM base AS 1b\n", DockerfileError, 'column 14: invalid name for build stage: "1b"'),
        ("FROM base AS\n", DockerfileError, "FROM requires either one or three arguments"),
        ("FROM $X\n", DockerfileError, "line 1, column 6: base name ($X) should not be blank"),
        ("FROM base\nCOPY --from=1 /x /y\n", DockerfileError, "column 13: invalid from flag value 1"),
        (
            "FROM base\nCOPY --chmod=9 Dockerfile /\n",
            DockerfileError,
            "column 14: invalid chmod parameter: '9'",
        ),
        ("FROM base\nENV A=1 \\\n  B\n", DockerfileError, "line 3, column 3: Syntax error - can't find = in"),
        ("FROM base\nRUN <<E\nx\n", DockerfileError, "unterminated heredoc"),
    ],
)
async def test_bad_dockerfiles(bench: Bench, dockerfile: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        await bench.build(dockerfile or "\n")


async def test_missing_dockerfile_and_hostile_context(bench: Bench) -> None:
    with pytest.raises(InvalidParameter, match="Cannot locate specified Dockerfile: Other"):
        await bench.builder.build(
            chunks(context({}, "FROM base\n")), BuildOptions(dockerfile="Other"), bench.said.append
        )
    with pytest.raises(InvalidParameter, match="outside of the archive's root"):
        await bench.build("FROM base\n", {"../evil": "x"})
    with pytest.raises((InvalidParameter, NotFound)):
        await bench.build("FROM base\nCOPY l/passwd /x\n", {"l": "-> /etc"})


async def test_heredocs(bench: Bench) -> None:
    image = await bench.build(
        "FROM base\nENV WHO=me\nRUN <<END\necho one $WHO > /one\necho two > /two\nEND\n"
        "COPY <<first.txt <<-'second.txt' /files/\nhello ${WHO} 'and'\nfirst.txt\n\t$WHO\n\tsecond.txt\n"
    )
    assert bench.sh(image, "cat /one /two /files/*") == "one me\ntwo\nhello me 'and'\n$WHO\n"


async def test_copy_link_parents_exclude_and_owners_of_another_stage(bench: Bench) -> None:
    image = await bench.build(
        """FROM base AS other
RUN mkdir /o && touch /o/mine && chmod 700 /o/mine
USER me
RUN touch /tmp/his
FROM base
COPY --link a.txt /linked/
COPY --parents d/sub/y a.txt /p/
COPY --parents ./d/./sub/y /q/
COPY --exclude=*.txt --exclude=d/sub . /e/
COPY --from=other /tmp/his /his
""",
        FILES,
    )
    listing = bench.sh(image, "cat /linked/a.txt /p/d/sub/y /p/a.txt /q/sub/y; ls /e /e/d")
    assert listing.startswith("AYAY")
    assert listing[4:].split() == ["/e:", "Dockerfile", "d", "link", "/e/d:", "x"]
    assert bench.sh(image, "stat -c %u:%g /his") == "1000:1001\n"


async def test_the_same_epoch_gives_the_same_image(bench: Bench) -> None:
    dockerfile = "FROM base\nCOPY a.txt /\nRUN echo x > /x; mkdir /d\n"
    given = {"SOURCE_DATE_EPOCH": "1600000000"}
    first = await bench.build(dockerfile, FILES, build_arguments=given)
    again = await bench.build(dockerfile, FILES, build_arguments=given, no_cache=True)
    assert again.id == first.id and "built" in bench.states
    assert bench.sh(first, "stat -c %Y /a.txt /x /d") == "1600000000\n" * 3
    assert first.config["created"].startswith("2020-09-13T12:26:40")


async def test_the_same_epoch_gives_the_same_image_on_two_machines(bench: Bench) -> None:
    dockerfile = """FROM base
ARG SOURCE_DATE_EPOCH
WORKDIR /w
RUN echo $SOURCE_DATE_EPOCH > /x && mkdir /d && echo > /d/f && ln /x /d/hard && ln -s f /d/soft
COPY --chown=me dir /dir
ENV A=b
"""
    files = {"dir/one": "1", "dir/two": "2"}
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    here = await bench.build(dockerfile, files, build_arguments=epoch)
    async with machine() as other:
        # The base too is what an image is: the same bytes.
        config = json.dumps(bench.images.get("base").config)
        other.images.add(config.encode(), other.images.get("base").diff_ids, [parse_reference("base")])
        assert other.images.get("base").diff_ids == bench.images.get("base").diff_ids
        there = await other.build(dockerfile, dict(reversed(files.items())), build_arguments=epoch)
        assert there.id == here.id and there.diff_ids == here.diff_ids
    assert here.config["created"].startswith("2023-11-14T22:13:20")
    assert bench.sh(here, "stat -c %Y /x /d/f /dir/one").split() == ["1700000000"] * 3
