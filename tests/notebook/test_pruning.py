"""Prunes show first what would go and how much that frees, and ask; what they said is what they do."""

import builtins
import re
from collections.abc import Callable

import docker
import pytest

from tests.conftest import EngineProcess

from .conftest import Run

Answers = Callable[[str], list[str]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What will be typed; returns the list of questions that come."""

    def typed(text: str) -> list[str]:
        asked: list[str] = []

        def ask(question: str = "") -> str:
            asked.append(question)
            return text

        monkeypatch.setattr(builtins, "input", ask)
        return asked

    return typed


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that are displayed, as text."""
    import IPython.display

    found: list[str] = []
    monkeypatch.setattr(IPython.display, "display", lambda view: found.append(view.text()))
    return found


@pytest.fixture
def rubbish(run: Run, name: str, engine: EngineProcess) -> str:
    """Something of every kind that nobody needs, and beside it what is needed."""
    run(f"%container run --name {name}-old --label LABEL IMAGE sh -c 'head -c 3000 /dev/zero > /written'")
    run(f"%network create {name}-net")
    run(f"%container create --name {name}-gone -v /anonymous -v {name}-named:/n --label LABEL IMAGE true")
    run(f"%container rm {name}-gone")
    run(f"%container run -d --name {name} -v /used --stop-signal KILL --label LABEL IMAGE sleep 1000")
    run(f"%%docker build -q -t {name} -\nFROM IMAGE\nRUN head -c 70000 /dev/zero > /one\n")
    run(f"%%docker build -q -t {name} -\nFROM IMAGE\nRUN head -c 5000000 /dev/zero > /two\n")
    return name


def everything(client: docker.DockerClient) -> tuple[set[str], ...]:
    return (
        {each.name for each in client.containers.list(all=True)},
        {each.name for each in client.networks.list()},
        {each.name for each in client.volumes.list()},
        {each.id for each in client.images.list(all=True)},
    )


def test_no_is_no(
    run: Run, rubbish: str, answers: Answers, shown: list[str], client: docker.DockerClient
) -> None:
    before = everything(client)
    for answer in ("n", "", "what?"):
        asked = answers(answer)
        ran = run("%system prune --all --volumes")
        assert (ran.value, ran.stdout) == ([], "Total reclaimed space: 0B\n")
        assert asked == ["Are you sure you want to continue? [y/N] "]
    assert everything(client) == before
    picture = shown[0]
    for words in (
        f"{rubbish}-old",
        f"{rubbish}-net",
        "anonymous",
        "no name, no container",
        "What would be removed",
    ):
        assert words in picture
    assert f"{rubbish}-named" not in picture  # named volumes stay, as with Docker
    assert not re.search(rf"\b{rubbish} ", picture.replace(f"{rubbish}:latest ", ""))


@pytest.mark.parametrize("options", ["", "--volumes", "--all", "--all --volumes", "--filter label=nosuch"])
def test_what_was_said_is_what_happens(
    run: Run, rubbish: str, answers: Answers, shown: list[str], client: docker.DockerClient, options: str
) -> None:
    answers("y")
    before = everything(client)
    ran = run(f"%system prune {options}")
    gone = tuple(old - new for old, new in zip(before, everything(client), strict=True))
    picture = shown[0]
    kinds = ("container", "network", "volume", "image")
    for kind, names in zip(kinds, gone, strict=True):
        rows = [line for line in picture.splitlines() if line.startswith(kind + " ")]
        assert len(rows) == len(names)
        if kind != "image":
            assert {row.split()[1] for row in rows} == names
    assert rubbish in {each.name for each in client.containers.list()}
    together = re.search(r"Together (.*)\.$", picture)
    said = together[1] if together else "0B"
    assert ran.stdout == f"Total reclaimed space: {said}\n"
    # And now there is nothing left to ask about.
    asked = answers("y")
    again = run(f"%system prune {options}")
    assert (again.value, again.stdout, asked) == ([], "Total reclaimed space: 0B\n", [])
    assert "Nothing is unused." in shown[-1]


def test_force_does_not_ask(run: Run, rubbish: str, answers: Answers, client: docker.DockerClient) -> None:
    asked = answers("n")
    ran = run("%system prune -f")
    assert asked == [] and f"{rubbish}-net" in ran.value
    assert f"{rubbish}-net" not in {each.name for each in client.networks.list()}


@pytest.mark.parametrize("noun", ["container", "image", "network", "volume", "builder"])
def test_each_noun_asks_for_its_own(
    run: Run, rubbish: str, answers: Answers, shown: list[str], client: docker.DockerClient, noun: str
) -> None:
    asked = answers("y")
    before = everything(client)
    command = f"%docker {noun} prune" if noun == "builder" else f"%{noun} prune"
    assert run(command).error is None
    assert len(asked) == 1
    gone = [old - new for old, new in zip(before, everything(client), strict=True)]
    touched = [
        kind for kind, names in zip(("container", "network", "volume", "image"), gone, strict=True) if names
    ]
    assert touched == ([noun] if noun != "builder" else [])


def test_where_nobody_can_be_asked(run: Run, notebook: Callable[..., object], rubbish: str) -> None:
    """A notebook that is executed in a batch has no stdin; neither has a test."""
    error = str(run("%container prune").error)
    assert error == "nobody can be asked here: say --force (-f) if it is to be done without a question"
    book = notebook("%container prune")
    assert error in str(book.cells[1].outputs)  # type: ignore[attr-defined]


def test_a_real_docker_gives_its_own_warning(run: Run, real_docker: None, answers: Answers) -> None:
    run("%docker context use default")
    answers("n")
    ran = run("%system prune --all --volumes")
    assert ran.stdout.splitlines()[:6] == [
        "WARNING! This will remove:",
        "  - all stopped containers",
        "  - all networks not used by at least one container",
        "  - all anonymous local volumes not used by at least one container",
        "  - all images without at least one container associated to them",
        "  - unused build cache",
    ]
