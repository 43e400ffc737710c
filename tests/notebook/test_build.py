"""What goes into a build context."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

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
    kept = {inside for _, inside in context_files(tmp_path, tmp_path / "Other")}
    assert "one" in kept and "two" not in kept
    assert "two" in {inside for _, inside in context_files(tmp_path, tmp_path / "Dockerfile")}


def test_the_context_is_what_is_not_ignored_and_the_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_text("x")
    (tmp_path / "secret").write_text("never")
    (tmp_path / "link").symlink_to("sub/file")
    (tmp_path / ".dockerignore").write_text("secret\n")
    assert {inside for _, inside in context_files(tmp_path)} == {".dockerignore", "link", "sub", "sub/file"}
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
