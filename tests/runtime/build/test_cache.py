"""What a build may take over, from itself and from named images, and what not; squashing."""

import json
from typing import Any

import pytest
from dockmagic_runtime.build.stage import StepFailed
from dockmagic_runtime.images import removal
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.oci.reference import parse_reference

from .conftest import Bench

APP = "FROM base\nENV A=1\nCOPY f /f\nRUN echo made > /made\nUSER me\n"


async def forget(bench: Bench) -> None:
    """As on another machine: the images are there, and nothing of how they came about."""
    await bench.builder.prune()


async def test_a_named_image_is_a_source_and_others_are_not(bench: Bench) -> None:
    first = await bench.build(APP, {"f": "1"}, tags=["app"])
    await forget(bench)
    other = await bench.build(APP, {"f": "1"}, tags=["other"])
    assert bench.states == ["cached", "built", "built", "built", "built"] and other.id != first.id
    await removal.remove(bench.images, "other")
    await forget(bench)
    again = await bench.build(APP, {"f": "1"}, cache_from=["absent", "app"])
    assert again.id == first.id and bench.states == ["cached"] * 5
    changed = await bench.build(APP, {"f": "2"}, cache_from=["app"])
    assert bench.states == ["cached", "cached", "built", "built", "built"]
    assert bench.sh(changed, "cat /f") == "2"


async def test_what_the_history_does_not_say_is_taken_from_nowhere(bench: Bench) -> None:
    steps = [
        "COPY --chown=me f /f",
        "COPY --chmod=700 f /f",
        'RUN ["/bin/sh", "-c", "echo x > /x"]',
        "RUN --network=none echo x > /x",
        "RUN --mount=type=tmpfs,target=/t echo x > /x",
    ]
    for step, plain in zip(steps, ["COPY f /f", "COPY f /f", *["RUN echo x > /x"] * 3], strict=True):
        await bench.build(f"FROM base\n{plain}\n", {"f": "1"}, tags=["plain"])
        await forget(bench)
        await bench.build(f"FROM base\n{step}\n", {"f": "1"}, cache_from=["plain"])
        assert bench.states == ["cached", "built"], step
        await forget(bench)


def with_config(bench: Bench, **settings: Any) -> Image:
    """`base` again, with other settings and nothing else different: no file, no line of history."""
    base = bench.images.get("base")
    config = {**base.config, "config": {**base.config["config"], **settings}}
    return bench.images.add(json.dumps(config).encode(), base.diff_ids, [parse_reference("poisoned")])


async def test_the_whole_configuration_of_the_parent_counts(bench: Bench) -> None:
    """CVE-2024-24557: HEALTHCHECK and ONBUILD were not compared."""
    step = "RUN echo x > /x\n"
    for settings in (
        {"Healthcheck": {"Test": ["CMD", "evil"]}},
        {"OnBuild": ["ENV EVIL=1"]},
        {"Env": ["PATH=/bin", "LD_PRELOAD=/evil"]},
        {"User": "me"},
        {"StopSignal": "SIGKILL"},
        {"Shell": ["/evil", "-c"]},
    ):
        with_config(bench, **settings)
        await bench.build(f"FROM base\n{step}", tags=["honest"])
        await forget(bench)
        try:
            await bench.build(f"FROM poisoned\n{step}", tags=["evil"])
        except StepFailed:
            assert settings.keys() & {"User", "Shell"}, settings
        await bench.build(f"FROM base\n{step}")
        assert bench.states == ["cached", "built"], settings
        await forget(bench)


async def test_a_pulled_image_with_the_right_history_is_no_source(bench: Bench) -> None:
    """The image says that it is what the Dockerfile makes; only who names it believes that."""
    step = "RUN echo good > /x"
    told = "/bin/sh -c echo good > /x"
    evil = await bench.build("FROM base\nRUN echo evil > /x\n")
    document = json.loads(json.dumps(evil.config))
    document["history"][-1]["created_by"] = told
    bench.images.add(json.dumps(document).encode(), evil.diff_ids, [parse_reference("liar")])
    image = await bench.build(f"FROM base\n{step}\n")
    assert bench.sh(image, "cat /x") == "good\n"


async def test_squash(bench: Bench) -> None:
    dockerfile = """FROM base
RUN mkdir /d && echo 1 > /d/one && echo 2 > /d/two && ln /d/one /d/hard && ln -s one /d/soft
RUN rm /d/two && echo 3 > /d/three && rm -r /home && chmod 700 /tmp
ENV A=b
RUN rm -r /d && mkdir /d && echo again > /d/one && mkdir -m 711 /home && chown me /d
"""
    whole = await bench.build(dockerfile)
    image = await bench.build(dockerfile, squash=True)
    base = bench.images.get("base")
    assert len(image.diff_ids) == len(base.diff_ids) + 1
    look = (
        "cd /; for f in $(ls -A); do case $f in bin) ;; *) ls -ldn $f; ls -lAnR $f;; esac; done; cat /d/one"
    )
    assert bench.sh(image, look) == bench.sh(whole, look)
    history = image.config["history"]
    assert [bool(entry.get("empty_layer")) for entry in history] == [False, True, True, True, True, False]
    assert history[-1]["comment"].startswith("merge sha256:")
    assert image.config["config"]["Env"] == ["PATH=/bin", "A=b"]
    assert bench.text.endswith(f"Successfully built {image.id[7:19]}\n")
    nothing = await bench.build("FROM base\nENV A=b\n", squash=True)
    assert nothing.diff_ids == base.diff_ids


async def test_ulimits_and_security_options(bench: Bench) -> None:
    from dockmagic_runtime.build.run import Limits

    limits = Limits(host_config=(("Ulimits", [{"Name": "nofile", "Soft": 77, "Hard": 99}]),))
    image = await bench.build("FROM base\nRUN ulimit -Sn > /s; ulimit -Hn >> /s\n", limits=limits)
    assert bench.sh(image, "cat /s") == "77\n99\n"
    filters = "FROM base\nRUN sed -n 's/^Seccomp:.//p' /proc/self/status > /s\n"
    image = await bench.build(filters)
    assert bench.sh(image, "cat /s") == "2\n"
    limits = Limits(host_config=(("SecurityOpt", ["seccomp=unconfined"]),))
    image = await bench.build(filters, no_cache=True, limits=limits)
    assert bench.sh(image, "cat /s") == "0\n"


async def test_disk_use_tells_layers_and_cache_mounts(bench: Bench) -> None:
    await bench.build(
        "FROM base\nRUN --mount=type=cache,id=mine,target=/c echo 12345 > /c/f; echo 1 > /x\n", tags=["a"]
    )
    layer, mount = bench.builder.disk_use()
    assert (layer["Type"], layer["Size"], layer["InUse"], layer["Shared"]) == ("regular", 2, True, True)
    assert (mount["Type"], mount["Size"], mount["InUse"]) == ("exec.cachemount", 6, False)
    assert mount["Description"] == "cache mount mine"
    await removal.remove(bench.images, "a")
    assert [each["InUse"] for each in bench.builder.disk_use()] == [False, False]
    assert (await bench.builder.prune())["SpaceReclaimed"] == 8
    assert bench.builder.disk_use() == []


async def test_disk_use_while_the_cache_is_pruned(bench: Bench) -> None:
    """`docker system df` looks in a thread: a layer may go between two looks."""
    image = await bench.build("FROM base\nRUN echo 1 > /x")
    layer = bench.layers.get(image.diff_ids[-1])
    assert layer
    await bench.builder.settle()
    layer.path.rename(layer.path.with_name("elsewhere"))
    assert bench.builder.disk_use() == []
    layer.path.with_name("elsewhere").rename(layer.path)


async def test_the_steps_of_a_build_that_fails_come_to_the_disk_too(bench: Bench) -> None:
    await bench.build("FROM base\nRUN echo 1 > /x")
    await bench.builder.settle()
    with pytest.raises(StepFailed):
        await bench.build("FROM base\nRUN echo 1 > /x\nRUN echo 2 > /y\nRUN false", no_cache=True)
    await bench.builder.stop()
    assert list((bench.layers.root / "unwritten").iterdir()) == []
    assert list((bench.layers.root / "tmp").iterdir()) == []
