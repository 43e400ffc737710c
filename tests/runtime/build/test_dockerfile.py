"""The parser, the words and the ignore patterns, without any build."""

import pytest
from dockmagic_runtime.build import words
from dockmagic_runtime.build.ignore import Ignore
from dockmagic_runtime.build.instructions import typed
from dockmagic_runtime.build.parser import DockerfileError, parse
from dockmagic_runtime.build.planner import plan
from dockmagic_runtime.errors import InvalidParameter


def test_lines_comments_continuations_and_flags() -> None:
    nodes = parse(
        "# escape=`\n# a comment\nfrom a AS b\n\nRUN one `\n  # inside\n\n  two\n"
        "  COPY --from=x --chown=1:2 a\\b c\n"
    )
    assert [(n.name, n.text, n.line, n.column) for n in nodes] == [
        ("FROM", "a AS b", 3, 1),
        ("RUN", "one   two", 5, 1),
        ("COPY", "a\\b c", 9, 3),
    ]
    assert nodes[2].flags == (("from", "x"), ("chown", "1:2")) and nodes[2].escape == "`"


def test_errors_carry_line_and_column() -> None:
    with pytest.raises(DockerfileError) as caught:
        [typed(node) for node in parse("FROM a\n\n   NOPE x\n")]
    assert (caught.value.line, caught.value.column) == (3, 4)
    with pytest.raises(DockerfileError, match="only one escape parser directive"):
        parse("# escape=`\n# escape=`\nFROM a\n")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$A", "1"),
        ("${A}b", "1b"),
        ("'$A'", "$A"),
        ('"$A b"', "1 b"),
        ("\\$A", "$A"),
        ("${NONE}", ""),
        ("${NONE:-x$A}", "x1"),
        ("${EMPTY-x}", ""),
        ("${EMPTY:-x}", "x"),
        ("${A:+set}", "set"),
        ("${NONE:+set}", ""),
        ("${NONE:-${A:-y}}", "1"),
        ("a$", "a$"),
        ("${P#*/}", "b/c.tar.gz"),
        ("${P##*/}", "c.tar.gz"),
        ("${P%.*}", "a/b/c.tar"),
        ("${P%%.*}", "a/b/c"),
        ("${P/b/x}", "a/x/c.tar.gz"),
        ("${P//./-}", "a/b/c-tar-gz"),
        ("${NONE#x}", ""),
        ('"say \\"hi\\""', 'say "hi"'),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert words.expand(text, {"A": "1", "EMPTY": "", "P": "a/b/c.tar.gz"}) == expanded


@pytest.mark.parametrize("text", ["'open", '"open', "${A", "${A%x", "${A^x}", "${}", "${NONE:?must be set}"])
def test_what_cannot_be_expanded(text: str) -> None:
    with pytest.raises(InvalidParameter):
        words.expand(text, {"A": "1"})


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        ("*.md", "a.md", True),
        ("*.md", "d/a.md", False),
        ("**/*.md", "d/e/a.md", True),
        ("**/*.md", "a.md", True),
        ("/d/", "d/x/y", True),
        ("d", "dd", False),
        ("d\n!d/x", "d/x", False),
        ("d\n!d/x\nd/x", "d/x", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "az", False),
        ("*\n!d", "d/x", False),
        ("**\n!d/x", "d/x", False),
        ("a\\[b\\]", "a[b]", True),
        ("\\#x", "#x", True),
        ("../x", "x", False),
        ("x/", "x", True),
        ("a/**/z", "a/b/c/z", True),
        ("?.t[xy]t", "a.tyt", True),
        ("?.t[^xy]t", "a.tyt", False),
        ("#x\n\n", "x", False),
    ],
)
def test_dockerignore(patterns: str, path: str, excluded: bool) -> None:
    assert Ignore.parse(patterns).excludes(path) is excluded


@pytest.mark.parametrize("pattern", ["!", "[a", "a[", "\\"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidParameter, match="pattern"):
        Ignore.parse(pattern)


def test_the_plan_leaves_out_what_the_target_does_not_need() -> None:
    text = "FROM a AS one\nFROM b AS two\nFROM one AS three\nCOPY --from=0 x y\nFROM two\n"
    instructions = [typed(node) for node in parse(text)]
    assert [stage.index for stage in plan(instructions, {}).stages] == [1, 3]
    assert [stage.index for stage in plan(instructions, {}, "three").stages] == [0, 2]
    with pytest.raises(DockerfileError, match="later build stage"):
        plan([typed(node) for node in parse("FROM a\nCOPY --from=1 x y\nFROM b\n")], {})
