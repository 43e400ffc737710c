"""Every picture says the same as text and as HTML, with hostile names in it, and stays a proper page."""

from collections.abc import Callable

import pytest

from dockmagic.views import cards, layers, namespaces, ports, progress, resources, tables, topology, trace
from dockmagic.views.parts import Cell, Column, Drawing, Facts, Fold, Note, Part, Table
from dockmagic.views.view import View
from tests.notebook.views import examples
from tests.notebook.views.reading import Page, check_says_the_same


def a_build(*, fails: bool) -> View:
    clock = iter(range(100))
    dockerfile = "# first\nFROM busybox\nRUN echo \\\n  <b>\n\nRUN false\n"
    build = progress.BuildProgress("Building <x>", dockerfile, clock=lambda: float(next(clock)))
    said = [
        "Step 1/3 : FROM busybox\n",
        " ---> 5442e0ca367c\n",
        "Step 2/3 : RUN echo   <b>\n",
        " ---> Using cache\n",
        " ---> 111111111111\nStep 3/3 : RUN fal",
        "se\n",
        " ---> Running in 222222222222\n",
        f"{examples.EVIL}\n\nmore\n",
    ]
    for words in said:
        build.feed({"stream": words})
    if fails:
        build.feed({"errorDetail": {"code": 1, "message": "no"}, "error": "The command 'false' <failed>"})
    else:
        build.feed({"aux": {"ID": "sha256:" + "1" * 64}})
        build.feed({"stream": "Successfully built 111111111111\n"})
        build.measure([{"Size": 7}, {"Size": 0}, {"Size": 1000}, {"Size": 980_000}])
    build.close()
    return build


def a_pull() -> View:
    pull = progress.Progress("Pulling <nginx>")
    messages = [
        {"status": "Pulling from library/nginx", "id": "latest"},
        {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaa"},
        {"status": "Downloading", "progressDetail": {"current": 5, "total": 10}, "id": "aaa"},
        {"status": "Pull complete", "progressDetail": {}, "id": "bbb"},
        {"status": "Digest: sha256:abc"},
        {"error": "unexpected <EOF>"},
    ]
    for message in messages:
        pull.feed(message)
    pull.close()
    return pull


def some_samples(count: int) -> list[resources.Sample]:
    taken = [
        resources.sample(examples.stats(at), examples.stats(at - 1), float(at)) for at in range(1, count + 1)
    ]
    return [one for one in taken if one is not None]


EVIL = examples.EVIL
PICTURES: dict[str, Callable[[], View]] = {
    "namespaces": lambda: View(*namespaces.parts(EVIL, examples.NAMESPACES)),
    "namespaces of a stopped one": lambda: View(*namespaces.parts(EVIL, {"pid": 0, "kinds": []})),
    "ports": lambda: View(*ports.parts(examples.PORTS, kernel=True)),
    "topology": lambda: View(*topology.parts(examples.TOPOLOGY, kernel=True)),
    "no topology": lambda: View(*topology.parts(examples.NO_TOPOLOGY, kernel=False)),
    "trace": lambda: View(*trace.parts(EVIL, "db", examples.HOPS)),
    "no ports": lambda: View(*ports.parts([], EVIL, kernel=False)),
    "layers of a container": lambda: View(*layers.parts(examples.LAYERS)),
    "layers of an image": lambda: View(*layers.parts({**examples.LAYERS, "writable": None})),
    "no layers": lambda: View(*layers.parts({"name": EVIL, "image": "", "layers": []})),
    "container": lambda: View(*cards.container_parts(examples.CONTAINER)),
    "removed container": lambda: View(*cards.container_parts(examples.CONTAINER, removed=True)),
    "image": lambda: View(*cards.image_parts(examples.IMAGE)),
    "network": lambda: View(*cards.network_parts(examples.NETWORK)),
    "volume": lambda: View(*cards.volume_parts(examples.VOLUME)),
    "resources": lambda: View(
        *resources.parts(EVIL, some_samples(5), {"NanoCpus": 500_000_000, "Memory": 1})
    ),
    "one reading": lambda: View(
        *resources.parts(EVIL, some_samples(1), {"CpuQuota": 25_000, "PidsLimit": 5})
    ),
    "no readings": lambda: View(*resources.parts(EVIL, [], {})),
    "build": lambda: a_build(fails=False),
    "failed build": lambda: a_build(fails=True),
    "build not begun": lambda: progress.BuildProgress("Building"),
    "pull": a_pull,
    "list": lambda: tables.table([{"NAMES": EVIL, "SIZE": "1B"}], ["NAMES", "SIZE"], EVIL).view(),
    "empty list": lambda: tables.table([], ["NAMES", "SIZE"], "Containers", empty="No containers.").view(),
    "every part": lambda: View(
        Table(EVIL, [Column(EVIL, code=True), Column("n", numeric=True)], [[EVIL, Cell("1", "bad", 0.5)]]),
        Facts(EVIL, [(EVIL, Cell(EVIL, "good"))]),
        Note(EVIL, "warn"),
        Fold(EVIL, [EVIL, ""], open=True),
        Drawing("<svg><text>axis</text></svg>", EVIL),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_text_and_html_say_the_same(name: str) -> None:
    picture = PICTURES[name]()
    bundle = picture._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    check_says_the_same(bundle["text/plain"], bundle["text/html"])
    assert repr(picture) == bundle["text/plain"]


def test_dollars_of_a_shell_are_no_formula() -> None:
    (tag, attributes), *_ = Page(View(Note("for i in $(seq 2); do echo $i")).html()).elements
    assert tag == "div"
    assert "mathjax_ignore" in (attributes["class"] or "").split()


def test_the_check_sees_a_difference() -> None:
    class Lying(Note):
        def text(self) -> str:
            return self.words + " indeed"

    liar: Part = Lying("true")
    with pytest.raises(AssertionError):
        check_says_the_same(View(liar).text(), View(liar).html())


def test_the_words_carry_what_the_colours_say() -> None:
    """Two rows that differ in colour differ in words too."""
    picture = View(*namespaces.parts("web", examples.NAMESPACES)).text()
    assert "= shared with the host" in picture
    assert "≠ its own" in picture
    assert "not known" in picture
