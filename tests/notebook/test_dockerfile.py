"""%%dockerfile: the plan that fills in, explanations, what a build is lent; the files of layers."""

from pathlib import Path

import pytest
from docker.models.images import Image

from dockmagic.errors import DockmagicError
from dockmagic.views.view import View
from tests.conftest import EngineProcess
from tests.notebook.conftest import IMAGE, Run
from tests.notebook.views.reading import check_says_the_same

TWO_STAGES = """FROM IMAGE AS build
RUN echo compiling; echo done > /app
FROM IMAGE AS unused
RUN exit 9
FROM IMAGE
COPY --from=build /app /app
"""


def same(view: View) -> None:
    """As text and as HTML it says the same."""
    check_says_the_same(view.text(), view.html())


def test_explained(run: Run, tmp_path: Path, engine: EngineProcess) -> None:
    (tmp_path / "Dockerfile").write_text("FROM node\nCOPY . .\nCMD node app.js\n")
    ran = run(f"%image explain {tmp_path}")
    assert ran.error is None, ran.error
    text = ran.value.text()
    assert "Begins a stage with the files and settings of the image node." in text
    assert "A container runs `node app.js`, through /bin/sh -c" in text
    for rule in ("PinnedBaseImage", "CopyBeforeWorkdir", "MissingDockerignore", "JSONArgsRecommended"):
        assert rule in text
    assert 'write CMD ["node", "app.js"]' in text
    same(ran.value)
    (tmp_path / "Dockerfile.dockerignore").write_text(".git\n")
    assert "MissingDockerignore" not in run(f"%image explain {tmp_path}").value.text(), (
        "it has one of its own"
    )
    cell = run("%%dockerfile --explain -t never\nFROM node:18\nUSER me\n")
    assert cell.error is None and "✓ Every check passes." in cell.value.text()
    assert not engine.docker("images", "-q", "never").stdout
    bad = run("%%dockerfile --explain\nFROM node:18\nRUNN\n")
    assert "dockerfile parse error on line 2, column 1: unknown instruction: RUNN" in str(bad.error)
    missing = run(f"%image explain {tmp_path}/absent")
    assert str(missing.error) == f"{tmp_path}/absent: No such file or directory"


def test_the_plan_and_what_became_of_it(run: Run, engine: EngineProcess) -> None:
    from dockmagic.views import progress

    seen: list[list[str]] = []
    feed = progress.BuildProgress.feed

    def watched(self: progress.BuildProgress, message: dict[str, object]) -> None:
        feed(self, message)
        seen.append([step.state for step in self.steps])
        last.append(self)

    last: list[progress.BuildProgress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.BuildProgress, "feed", watched)
        built = run(f"%%dockerfile -t dockmagic-test/planned --no-cache\n{TWO_STAGES}")
        assert isinstance(built.value, Image), built.error
        view = last[-1]
        assert seen[0] == ["waiting"] * 4, "the plan is there before anything is done"
        assert [step.state for step in view.steps] == ["base", "built", "base", "built"]
        text = view.text()
        assert "Not built, for nothing needs it: unused." in text
        assert "Step 2, 1 line of output\n    compiling" in text
        assert view.steps[1].bytes == 5
        same(view)
        failed = run("%%dockerfile\n# first\nFROM IMAGE\nRUN echo why; exit 3\nRUN true\n")
        view = last[-1]
        assert "exit 3" in str(failed.error)
        assert [step.state for step in view.steps] == ["base", "failed", "not run"]
        assert "It is line 3 of the Dockerfile" in view.text() and "why" in view.text()
        failed = run("%%dockerfile\nFROM IMAGE\nCOPY \\\n  gone /\n")
        view = last[-1]
        assert str(failed.error).startswith("COPY failed: file not found in build context")
        assert view.text().endswith("    ▶  3   gone /\n           ^")
        same(view)
    run("%docker rmi dockmagic-test/planned")


def test_what_is_refused_is_one_line(run: Run, tmp_path: Path, engine: EngineProcess) -> None:
    for source, words in (
        ("%%dockerfile\n\n", "the Dockerfile cannot be empty"),
        ("%%dockerfile\nRUN x\n", "no build stage in current context"),
        ("%%dockerfile\nFROM IMAGE\nCOPY --frm=a b c\n", "on line 2, column 6: unknown flag: --frm"),
        ("%%dockerfile --frobnicate\nFROM IMAGE\n", "unknown flag: --frobnicate"),
        (f"%%dockerfile --context {tmp_path}/absent\nFROM IMAGE\n", f'path "{tmp_path}/absent" not found'),
        ("%%dockerfile -t 'No Name'\nFROM IMAGE\n", "invalid reference format"),
        (
            f"%%dockerfile --iidfile {tmp_path}/a/b\nFROM IMAGE\n",
            f"{tmp_path}/a/b: No such file or directory",
        ),
    ):
        error = run(source).error
        assert isinstance(error, DockmagicError), source
        assert words in str(error) and "\n" not in str(error)


def test_lent(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.txt").write_text("whisper")
    monkeypatch.setenv("TOKEN", "murmur")
    text = (
        "FROM IMAGE\nRUN --mount=type=secret,id=key,required wc -c < /run/secrets/key > /n\n"
        "RUN --mount=type=secret,id=TOKEN,env=T [ $T = murmur ]\n"
    )
    secrets = f"--secret id=key,src={tmp_path}/key.txt --secret id=TOKEN"
    built = run(f"%%dockerfile -t dockmagic-test/lent {secrets}\n{text}")
    assert isinstance(built.value, Image), built.error
    assert run("%docker run --rm --network none dockmagic-test/lent cat /n").value.output == "7\n"
    refused = run(f"%%dockerfile --secret id=key,src={tmp_path}/absent\n{text}")
    assert f"{tmp_path}/absent: No such file or directory" in str(refused.error)
    nobody = run("%%dockerfile --ssh default=/dev/null\nFROM IMAGE\n")
    assert "is not the socket of an agent" in str(nobody.error)
    host = "FROM IMAGE\nRUN --network=host true\n"
    assert "build with --allow network.host" in str(run(f"%%dockerfile\n{host}").error)
    assert run(f"%%dockerfile --allow network.host\n{host}").error is None
    run("%docker rmi dockmagic-test/lent")


def test_the_files_of_layers(run: Run) -> None:
    text = "FROM IMAGE\nRUN head -c 100000 /dev/zero > /big && echo a > /a\n"
    text += "RUN rm /big && echo b > /a\n"
    assert run(f"%%dockerfile -t dockmagic-test/files\n{text}").error is None
    view = run("%image layers dockmagic-test/files").value
    told = view.text()
    assert "100kB are hidden by later layers: they are in the image, and no container sees them." in told
    assert (
        "Layer 2: 2 files added, 100kB hidden by later layers\n"
        "    added     100kB  /big, hidden by a later layer\n"
        "    added        2B  /a, hidden by a later layer\n" in told
    )
    assert "Layer 3: 1 file changed, 1 removed\n    removed   100kB  /big\n    changed      2B  /a" in told
    same(view)
    run("%docker rmi dockmagic-test/files")


def test_names_of_files_that_are_no_text(run: Run) -> None:
    text = "FROM IMAGE\nRUN touch \"/a$(printf '\\nb')\" \"/c$(printf '\\377')\" '/<script>x'\n"
    assert run(f"%%dockerfile -t dockmagic-test/names\n{text}").error is None
    view = run("%image layers dockmagic-test/names").value
    for shown in ("/a\\nb\n", "/c\ufffd\n", "/<script>x\n"):
        assert shown in view.text() + "\n", view.text()
    same(view)
    run("%docker rmi dockmagic-test/names")


def test_a_context_is_as_docker_sends_it(run: Run, tmp_path: Path) -> None:
    """Nothing of ours is in it: a cell's text is no part of what is copied, nor of the cache's key."""
    (tmp_path / "file").write_text("x\n")
    look = "%docker run --rm --network none dockmagic-test/context ls -A /c"
    cell = f"%%dockerfile -t dockmagic-test/context --context {tmp_path}\nFROM IMAGE\nCOPY . /c\n"
    first = run(cell)
    assert run(look).stdout == "file\n"
    again = run(f'{cell}CMD ["true"]\n')
    assert first.value.attrs["RootFS"] == again.value.attrs["RootFS"]
    run("%docker rmi dockmagic-test/context")


def test_the_ignore_file_of_a_dockerfile_is_the_only_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("keep\n")
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY . /c\n")
    (tmp_path / "Dockerfile.dockerignore").write_text("./drop\nDockerfile*\n")
    for name in ("drop", "keep"):
        (tmp_path / name).write_text("")
    assert run(f"%docker build -t dockmagic-test/ignore {tmp_path}").error is None
    look = "%docker run --rm --network none dockmagic-test/ignore ls -A /c"
    assert run(look).stdout == ".dockerignore\nkeep\n"
    run("%docker rmi dockmagic-test/ignore")
