"""Names, listing, inspect, history, removal and garbage, each as Docker has it."""

import io
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound
from dockmagic_runtime.images import describe, listing, removal
from dockmagic_runtime.images.blobs import blob_for
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.store import Use
from dockmagic_runtime.oci.reference import parse_reference

from tests.runtime.images.conftest import Bench
from tests.runtime.images.made import Made, digest, small

CONTAINER = "bf64c33ee6e7" + "0" * 52


def tag(bench: Bench, image: Image, name: str) -> None:
    bench.images.tag(image, parse_reference(name))


def digest_name(name: str) -> str:
    return f"{name}@sha256:{'ab' * 32}"


async def test_an_image_is_found_by_any_of_its_names(bench: Bench) -> None:
    made = small()
    bench.add(made, "thing:v1", "other.example/x")
    plain = made.id.removeprefix("sha256:")
    names = (
        "thing:v1",
        "docker.io/library/thing:v1",
        "other.example/x",
        made.id,
        plain,
        plain[:12],
        made.id[:20],
    )
    for name in names:
        assert bench.images.get(name).id == made.id, name


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("nope", NotFound, "No such image: nope:latest"),
        ("nope:v2", NotFound, "No such image: nope:v2"),
        ("0000", NotFound, "No such image: 0000:latest"),
        ("sha256:" + "0" * 64, NotFound, "No such image: sha256:" + "0" * 64),
        (
            "UPPER",
            InvalidParameter,
            "invalid reference format: repository name (library/UPPER) must be lowercase",
        ),
        ("", InvalidParameter, "invalid reference format"),
    ],
)
async def test_names_of_nothing(bench: Bench, name: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as raised:
        bench.images.get(name)
    assert str(raised.value) == sentence


async def test_a_name_moves(bench: Bench) -> None:
    one, two = bench.add(small("1"), "thing:v1"), bench.add(small("2"), "thing:v1")
    assert bench.images.get("thing:v1").id == two.id
    assert bench.images.get(one.id).repo_tags == []


async def test_tagging(bench: Bench) -> None:
    image = bench.add(small(), "thing:v1")
    tag(bench, image, "thing:v2")
    assert bench.images.get(image.id).repo_tags == ["thing:v1", "thing:v2"]
    with pytest.raises(InvalidParameter, match="refusing to create a tag with a digest reference"):
        tag(bench, image, digest_name("thing"))
    with pytest.raises(Conflict, match="'host' is a reserved name"):
        tag(bench, image, "host:v1")
    with pytest.raises(Conflict, match="'host' is a reserved name"):
        tag(bench, bench.images.get("host"), "mine")


async def test_everything_is_there_after_a_restart(bench: Bench) -> None:
    made = small()
    before = bench.add(made, "thing:v1", "thing:v2")
    again = Bench.at(bench.root).images
    assert again.get("thing:v2") == bench.images.get(before.id)
    assert listing.summaries(again, {}) == listing.summaries(bench.images, {})


async def test_host(bench: Bench) -> None:
    host = bench.images.get("host")
    assert host.host
    assert host.diff_ids == ()
    assert bench.images.get(host.id) == bench.images.get("host:latest") == host
    assert describe.inspect(bench.images, host)["RootFS"] == {"Type": "layers", "Layers": []}
    assert bench.images.list() == []
    with pytest.raises(Conflict, match="it is reserved"):
        await removal.remove(bench.images, "host", force=True)
    assert Bench.at(bench.root).images.get("host").id == host.id


async def test_inspect_and_history(bench: Bench) -> None:
    image = bench.add(small(settings={"Cmd": ["sh"], "Labels": {"a": "b"}}), "thing:v1")
    shown = describe.inspect(bench.images, image)
    assert shown["Config"]["Labels"] == {"a": "b"}
    assert shown["Config"]["Entrypoint"] is None
    assert shown["Size"] == len("one") + len("two")
    assert set(shown) >= {"GraphDriver", "Metadata", "RootFS", "DockerVersion", "Parent", "RepoDigests"}
    history = describe.history(bench.images, image)
    assert [row["CreatedBy"] for row in history] == [
        'CMD ["sh"]',
        "COPY layer1 / # buildkit",
        "COPY layer0 / # buildkit",
    ]
    assert [row["Id"] for row in history] == [image.id, "<missing>", "<missing>"]
    assert [row["Tags"] for row in history] == [["thing:v1"], None, None]
    assert [row["Size"] for row in history] == [0, 3, 3]
    assert history[0]["Created"] == 1714979289


async def test_layers_say_who_shares_them(bench: Bench) -> None:
    image = bench.add(small("base", "more"), "app:v1")
    bench.add(small("base"), "base:v1")
    rows = describe.layers(bench.images, image)
    assert [row["instruction"] for row in rows] == ["COPY layer0 /", "COPY layer1 /", 'CMD ["sh"]']
    assert [row["shared_with"] for row in rows] == [["base:v1"], [], []]
    assert [row["empty"] for row in rows] == [False, False, True]
    assert [row["size"] for row in rows] == [4, 4, 0]


def listed(bench: Bench, filters: dict[str, Any], **options: bool) -> list[list[str]]:
    return [row["RepoTags"] for row in listing.summaries(bench.images, filters, **options)]


async def test_filters(bench: Bench) -> None:
    bench.add(small("1", created="2024-01-01T00:00:00Z", settings={"Labels": {"k": "1"}}), "old:v1")
    bench.add(small("2", created="2024-01-02T00:00:00Z", settings={"Labels": {"k": "2"}}), "mid:v1", "mid:v2")
    bench.add(small("3", created="2024-01-03T00:00:00Z"), "a.example/new:v1")
    bench.add(small("4", created="2024-01-04T00:00:00Z"))
    assert listed(bench, {}) == [[], ["a.example/new:v1"], ["mid:v1", "mid:v2"], ["old:v1"]]
    assert listed(bench, {"dangling": ["true"]}) == [[]]
    assert listed(bench, {"dangling": {"false": True}}) == listed(bench, {})[1:]
    assert listed(bench, {"label": ["k"]}) == [["mid:v1", "mid:v2"], ["old:v1"]]
    assert listed(bench, {"label": ["k=1"]}) == [["old:v1"]]
    assert listed(bench, {"reference": ["mid:*2"]}) == [["mid:v2"]]
    assert listed(bench, {"reference": ["mid"]}) == [["mid:v1", "mid:v2"]]
    assert listed(bench, {"reference": ["*/new"]}) == [["a.example/new:v1"]]
    assert listed(bench, {"before": ["mid:v1"]}) == [["old:v1"]]
    assert listed(bench, {"since": ["mid:v1"]}) == [[], ["a.example/new:v1"]]
    assert listed(bench, {"until": ["2024-01-01T12:00:00"]}) == [["old:v1"]]
    assert listed(bench, {"until": ["1h30m"]}) == listed(bench, {})
    with pytest.raises(InvalidParameter, match="invalid filter 'colour'"):
        listed(bench, {"colour": ["red"]})
    with pytest.raises(NotFound, match="No such image: none:latest"):
        listed(bench, {"before": ["none"]})


async def test_shared_size(bench: Bench) -> None:
    bench.add(small("base", "more"), "app:v1")
    bench.add(small("base"), "base:v1")
    assert [row["SharedSize"] for row in listing.summaries(bench.images, {}, shared_size=True)] == [4, 4]


async def test_removal_untags_then_deletes(bench: Bench) -> None:
    made = small()
    image = bench.add(made, "thing:v1", "thing:v2")
    bench.images.name(image, parse_reference(digest_name("thing")))
    assert await removal.remove(bench.images, "thing:v2") == [{"Untagged": "thing:v2"}]
    records = await removal.remove(bench.images, "thing:v1")
    assert records[:3] == [
        {"Untagged": "thing:v1"},
        {"Untagged": digest_name("thing")},
        {"Deleted": made.id},
    ]
    assert [list(record) for record in records[3:]] == [["Deleted"], ["Deleted"]]
    assert records[-1] == {"Deleted": made.diff_ids[0]}
    assert bench.images.list() == []
    assert bench.images.layers.diff_ids() == []
    assert bench.images.content.digests() == []
    assert Bench.at(bench.root).images.list() == []


async def test_shared_layers_survive(bench: Bench) -> None:
    bench.add(small("base", "more"), "app:v1")
    base = small("base")
    bench.add(base, "base:v1")
    records = await removal.remove(bench.images, "base:v1")
    assert records == [{"Untagged": "base:v1"}, {"Deleted": base.id}]
    assert len(bench.images.layers.diff_ids()) == 2
    records = await removal.remove(bench.images, "app:v1")
    assert len(records) == 4
    assert bench.images.layers.diff_ids() == []


async def test_removal_by_id(bench: Bench) -> None:
    made = small()
    image = bench.add(made, "one:v1", "two:v1")
    short = image.short_id
    with pytest.raises(Conflict) as several:
        await removal.remove(bench.images, short)
    assert str(several.value) == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    records = await removal.remove(bench.images, short, force=True)
    assert {"Untagged": "one:v1"} in records and {"Untagged": "two:v1"} in records
    assert {"Deleted": made.id} in records


async def test_images_in_use(bench: Bench) -> None:
    image = bench.add(small(), "thing:v1")
    short, uses = image.short_id, [Use(CONTAINER, running=False)]
    bench.images.in_use = lambda image_id: uses if image_id == image.id else []
    with pytest.raises(Conflict) as by_name:
        await removal.remove(bench.images, "thing:v1")
    assert str(by_name.value) == (
        'conflict: unable to remove repository reference "thing:v1" (must force) - '
        f"container bf64c33ee6e7 is using its referenced image {short}"
    )
    with pytest.raises(Conflict) as by_id:
        await removal.remove(bench.images, short)
    assert str(by_id.value) == (
        f"conflict: unable to delete {short} (must be forced) - "
        "image is being used by stopped container bf64c33ee6e7"
    )
    uses[0] = Use(CONTAINER, running=True)
    with pytest.raises(Conflict) as running:
        await removal.remove(bench.images, short, force=True)
    assert str(running.value) == (
        f"conflict: unable to delete {short} (cannot be forced) - "
        "image is being used by running container bf64c33ee6e7"
    )
    assert await removal.remove(bench.images, "thing:v1", force=True) == [{"Untagged": "thing:v1"}]
    assert bench.images.get(image.id)


async def test_a_stopped_containers_layers_survive_its_image(bench: Bench) -> None:
    made = small()
    image = bench.add(made, "thing:v1")
    bench.images.in_use = lambda image_id: [Use(CONTAINER, running=False)]
    bench.images.held_layers = lambda: made.diff_ids
    records = await removal.remove(bench.images, "thing:v1", force=True)
    assert records == [{"Untagged": "thing:v1"}, {"Deleted": image.id}]
    assert sorted(bench.images.layers.diff_ids()) == sorted(made.diff_ids)
    bench.images.held_layers = lambda: ()
    await bench.images.collect()
    assert bench.images.layers.diff_ids() == []


async def test_parents(bench: Bench) -> None:
    below, middle, top = small("1"), small("1", "2"), small("1", "2", "3")
    bench.add(below, "base:v1")
    bench.add(middle, parent=below.id)
    bench.add(top, "app:v1", parent=middle.id)
    assert [row["Id"] for row in describe.history(bench.images, bench.images.get("app:v1"))] == [
        top.id,
        middle.id,
        below.id,
        "<missing>",
    ]
    assert listed(bench, {}) == [["app:v1"], ["base:v1"]] or listed(bench, {}) == [["base:v1"], ["app:v1"]]
    assert len(listed(bench, {}, all_images=True)) == 3
    with pytest.raises(Conflict, match=r"cannot be forced.* - image has dependent child images"):
        await removal.remove(bench.images, middle.id, force=True)
    deleted = [record.get("Deleted") for record in await removal.remove(bench.images, "app:v1")]
    assert top.id in deleted and middle.id in deleted and below.id not in deleted


async def test_prune_ends_downloads_that_were_given_up(bench: Bench) -> None:
    with bench.images.content.writer(digest(b"hello"), 5) as writer:
        writer.write(b"he")
    (part,) = (bench.root / "images/ingest").iterdir()
    assert (await removal.prune(bench.images, {"until": ["1h"]}))["SpaceReclaimed"] == 0
    async with bench.images.adding():
        assert (await removal.prune(bench.images, {}))["SpaceReclaimed"] == 0 and part.exists()
    assert (await removal.prune(bench.images, {}))["SpaceReclaimed"] == 2 and not part.exists()


async def test_prune(bench: Bench) -> None:
    bench.add(small("kept"), "kept:v1")
    gone = small("gone" * 100)
    bench.add(gone)
    report = await removal.prune(bench.images, {})
    assert {"Deleted": gone.id} in report["ImagesDeleted"]
    assert report["SpaceReclaimed"] == 400
    assert await removal.prune(bench.images, {}) == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    report = await removal.prune(bench.images, {"dangling": ["false"]})
    assert report["ImagesDeleted"][0] == {"Untagged": "kept:v1"}
    assert bench.images.list() == []


async def test_nothing_is_collected_while_something_is_added(bench: Bench) -> None:
    made = small("one")
    async with bench.images.adding():
        bench.images.layers.apply(None, io.BytesIO(made.layers[0]))
        await bench.images.collect()
        assert bench.images.layers.diff_ids() == made.diff_ids
    assert bench.images.layers.diff_ids() == []


async def test_an_image_without_its_layers_is_refused(bench: Bench, tmp_path: Path) -> None:
    made = small()
    with pytest.raises(NotFound, match="layer does not exist"):
        bench.images.add(made.config, made.diff_ids)
    assert Bench.at(bench.root).images.list() == []


async def test_what_a_power_failure_took_takes_its_blob_along(bench: Bench) -> None:
    made = bench.build("stays", "goes", names=("lost",))
    async with bench.images.adding():
        kept, lost = [await blob_for(bench.images, diff_id) for diff_id in made.diff_ids]
    bench.add(Made(made.layers[:1]), "kept")
    bench.images.layers.remove(made.diff_ids[1])
    bench.images.drop_incomplete()
    await bench.images.collect()
    assert [each.references[0].familiar() for each in bench.images.list()] == ["kept:latest"]
    assert set(bench.images.blobs()) == {kept.digest}
    assert bench.images.content.has(kept.digest) and not bench.images.content.has(lost.digest)


async def test_events(bench: Bench) -> None:
    seen: list[tuple[str, str]] = []
    bench.images.publish_event = lambda action, image_id, attributes: seen.append((action, image_id))
    image = bench.add(small(), "thing:v1")
    tag(bench, image, "thing:v2")
    await removal.remove(bench.images, "thing:v2")
    await removal.remove(bench.images, "thing:v1")
    assert [action for action, _ in seen] == ["tag", "untag", "untag", "delete"]
