"""What goes into a build context."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from dockmagic_runtime.build.ignore import Ignore
from dockmagic_runtime.errors import InvalidParameter
from hypothesis import given
from hypothesis import strategies as st

from dockmagic.errors import DockmagicError
from dockmagic.grammar.build_context import context_files, ignore_rules, ignored, write_context


@pytest.mark.parametrize(
    ("patterns", "path", "out"),
    [
        ("*.pyc", "a.pyc", True),
        ("*.pyc", "sub/a.pyc", False),
        ("**/*.pyc", "sub/deep/a.pyc", True),
        ("**/*.pyc", "a.pyc", True),
        ("node_modules", "node_modules/x/y.js", True),
        ("node_modules/", "node_modules/x/y.js", True),
        ("/dist", "dist/a", True),
        ("*\n!keep", "keep", False),
        ("*\n!keep", "drop", True),
        ("!keep\n*", "keep", True),
        ("docs/*.md", "docs/a.md", True),
        ("docs/*.md", "docs/sub/a.md", False),
        ("fil?.[ch]", "file.c", True),
        ("# a comment\n\nx", "# a comment", False),
        ("./dist", "dist/a", True),
        ("x/../dist/", "dist/a", True),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("**ist", "a/ist", True),
        ("**ist", "a/dist", False),
        ("*\n!a/b", "a/b/c", False),
        ("[^a]b", "ab", False),
        ("\ufeffx", "x", True),
    ],
)
def test_dockerignore(tmp_path: Path, patterns: str, path: str, out: bool) -> None:
    (tmp_path / ".dockerignore").write_text(patterns)
    assert ignored(path, ignore_rules(tmp_path)) is out


def test_a_dockerfile_may_have_an_ignore_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("one\n")
    (tmp_path / "Other.dockerignore").write_text("two\n")
    for name in ("one", "two"):
        (tmp_path / name).touch()
    kept = {inside for inside, _ in context_files(tmp_path, tmp_path / "Other")}
    assert "one" in kept and "two" not in kept
    assert "two" in {inside for inside, _ in context_files(tmp_path, tmp_path / "Dockerfile")}


def test_the_context_is_what_is_not_ignored_and_the_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_text("x")
    (tmp_path / "secret").write_text("never")
    (tmp_path / "link").symlink_to("sub/file")
    (tmp_path / ".dockerignore").write_text("secret\n")
    assert {inside for inside, _ in context_files(tmp_path)} == {".dockerignore", "link", "sub", "sub/file"}
    out = io.BytesIO()
    write_context(out, tmp_path, "FROM x\n")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(out.getvalue()))) as tar:
        members = {member.name: member for member in tar}
        assert members["link"].issym() and members["sub/file"].uid == 0
        dockerfile = tar.extractfile(".dockmagic.Dockerfile")
        assert dockerfile is not None and dockerfile.read() == b"FROM x\n"
    assert "secret" not in members


def test_the_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    first, second = io.BytesIO(), io.BytesIO()
    write_context(first, tmp_path, "FROM x\n")
    write_context(second, tmp_path, "FROM x\n")
    assert first.getvalue() == second.getvalue()


@pytest.mark.parametrize("pattern", ["[", "a[]", "!", "[z-a]", "a\\"])
def test_a_pattern_that_is_none_is_told(tmp_path: Path, pattern: str) -> None:
    (tmp_path / ".dockerignore").write_text(pattern)
    with pytest.raises(DockmagicError, match="pattern"):
        ignore_rules(tmp_path)


TEXTS = st.text("ab*?[]^-\\!./#", max_size=8)


@given(
    patterns=st.lists(TEXTS, max_size=4), path=st.lists(st.text("ab!#", min_size=1, max_size=3), min_size=1)
)
def test_both_halves_read_dockerignore_alike(
    tmp_path_factory: pytest.TempPathFactory, patterns: list[str], path: list[str]
) -> None:
    """The engine reads it again, for other clients do not: what it would take away must not be sent."""
    directory, text = tmp_path_factory.getbasetemp() / "ignore", "\n".join(patterns)
    directory.mkdir(exist_ok=True)
    (directory / ".dockerignore").write_text(text)
    try:
        engines = Ignore.parse(text).excludes("/".join(path))
    except InvalidParameter:
        with pytest.raises(DockmagicError):
            ignore_rules(directory)
    else:
        assert ignored("/".join(path), ignore_rules(directory)) is engines
