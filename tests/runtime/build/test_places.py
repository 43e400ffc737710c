"""Where an error is: line and column, in the exception and in the step's record, beside Docker's sentence.

In the Dockerfiles of these tests ▸ stands before what is at fault.
"""

import tarfile
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from dockmagic_runtime.build.parser import DockerfileError
from dockmagic_runtime.errors import EngineError, InvalidParameter, NotImplementedHere

from tests.web import served

from .conftest import Bench


def broken_tar() -> bytes:
    """One that ends too early."""
    info = tarfile.TarInfo("x")
    info.size = 10_000
    return info.tobuf() + b"x"


FILES: dict[str, str | bytes] = {"a": "A\n", "b": "B\n", "dir/c": "C\n", "absent.txt": "no\n"}
FILES["broken.tar"] = broken_tar()
MISSING = "failed: file not found in build context or excluded by .dockerignore: stat"
NO_USER = "unable to find user nobody-here: no matching entries in passwd file"
DIRECTORY = "with more than one source file, the destination must be a directory and end with a /"

MISTAKES: dict[str, tuple[str, str]] = {
    "FROM of no reference": ("ARG X\nFROM ▸base:nope@\n", "invalid reference format"),
    "FROM of no image": ("FROM \\\n  ▸127.0.0.1:9/absent AS x\n", "127.0.0.1:9"),
    "FROM of no platform": ("FROM --platform=▸$NONE base\n", "empty platform value from expression $NONE"),
    "FROM without a variable": ("FROM ba${B-se}▸${X:?}\n", "X: is not allowed to be unset"),
    "ARG without a variable": ("FROM base\nARG A=1 B=b▸${X:?no X}\n", "X: no X"),
    "ENV without a variable": ("FROM base\nENV A=1 \\\n# why\n   B=${C:-▸${X:?}}$D\n", "X: is not allowed"),
    "ENV without a name": ("FROM base\nENV A=1 ▸$NONE=2\n", "ENV names can not be blank"),
    "ENV of a bad name": ("FROM base\nENV A=${B-b} B=▸${B^^}\n", "unsupported modifier (^)"),
    "LABEL of open quotes": ('FROM base\nLABEL a=1 \\\n\n  b=▸"x\n', "looking for matching double-quote"),
    "EXPOSE of no port": ("FROM base\nARG P=99999\nEXPOSE 80 \\\n\t▸$P\n", "invalid containerPort: 99999"),
    "WORKDIR of a file": (
        "FROM base\nWORKDIR \\\n ▸/etc/passwd/x\n",
        "cannot copy to non-directory: /etc/passwd",
    ),
    "WORKDIR without a variable": ("FROM base\nWORKDIR /a/▸${X:?no X}/b\n", "X: no X"),
    "USER without a variable": ("FROM base\nUSER ▸${X?no X}\n", "X: no X"),
    "STOPSIGNAL of no signal": ("FROM base\nSTOPSIGNAL ▸NOPE\n", "Invalid signal: NOPE"),
    "COPY of nothing": (
        "FROM base\nCOPY a dir \\\n  ▸absent /x/\n",
        f"COPY {MISSING} absent: file does not exist",
    ),
    "COPY of what others are called like": (
        "FROM base AS cop\nFROM base\nCOPY --from=cop --chown=cop /etc /etc/group* ▸cop /cop/\n",
        f"COPY {MISSING} cop: file does not exist",
    ),
    "COPY of nothing, as JSON": (
        'FROM base\nCOPY ["a", \\\n "▸a b", "/x/"]\n',
        f"COPY {MISSING} a b: file does not exist",
    ),
    "COPY after a comment": (
        "FROM base\nCOPY a \\\n# one\n\n# two\n  ▸gone \\\n  /x/\n",
        f"COPY {MISSING} gone: file",
    ),
    "COPY without a variable": ("FROM base\nCOPY a b ▸${X:?no X} /x/\n", "X: no X"),
    "COPY to no variable": ("FROM base\nCOPY a /▸${X:?no X}\n", "X: no X"),
    "COPY of several to a file": ("FROM base\nCOPY a b ▸b\n", f"When using COPY {DIRECTORY}"),
    "COPY of several matches": ("FROM base\nCOPY [ab] ▸/x\n", f"When using COPY {DIRECTORY}"),
    "COPY into a file": ("FROM base\nCOPY a ▸/etc/passwd/\n", "cannot copy to non-directory: /etc/passwd"),
    "COPY for nobody": ("FROM base\nCOPY --link --chown=▸nobody-here a /nobody-here\n", NO_USER),
    "COPY for a variable": ("FROM base\nCOPY --chown=me:▸${X:?} a /\n", "X: is not allowed to be unset"),
    "COPY of a bad mode": (
        "FROM base\nCOPY --chown=9 \\\n  --chmod=▸9 a /9\n",
        "invalid chmod parameter: '9'",
    ),
    "COPY without a pattern": ("FROM base\nCOPY --exclude=a --exclude=▸[b a /\n", "pattern"),
    "COPY from no stage": (
        "FROM base\nCOPY a /base\nCOPY --from=▸no:such@ a /\n",
        "invalid reference format",
    ),
    "COPY from a later stage": (
        "FROM base\nCOPY --from=▸1 1 /1\n",
        "invalid from flag value 1: refers to current",
    ),
    "COPY of nothing in a stage": (
        "FROM base AS one\nFROM base\nCOPY --from=one /etc/passwd ▸/one /\n",
        f"COPY {MISSING} /one: file does not exist",
    ),
    "COPY of a here-document": (
        "FROM base\nCOPY a <<one <<-two /x/\nfine $HOME\none\n\tfine\n\t\tand ▸${X:?no X}\ntwo\n",
        "X: no X",
    ),
    "ADD of nothing": ("FROM base\nADD a ▸gone /x/\n", f"ADD {MISSING} gone: file does not exist"),
    "ADD of a repository": (
        "FROM base\nADD ▸https://example.com/x.git /x\n",
        "ADD from a Git repository is not supported by this builder",
    ),
    "ADD of nobody's URL": (
        "FROM base\nADD \\\n  a ▸http://127.0.0.1:9/x /x/\n",
        "ADD failed: failed to GET http",
    ),
    "ADD of a bad checksum": (
        "FROM base\nADD --chown=md5:1 --checksum=▸md5:1 http://127.0.0.1:9/x /x\n",
        "ADD failed: invalid checksum digest format: md5:1",
    ),
    "ADD of a broken archive": ("FROM base\nADD a ▸broken.tar /x/\n", "unexpected EOF in tar stream"),
    "RUN that fails": (
        "FROM base\nRUN true\n  ▸RUN true && \\\n exit 3\n",
        "The command '/bin/sh -c true &&  exit 3' returned a non-zero code: 3",
    ),
    "RUN of no program": ('FROM base\n▸RUN ["/no/such"]\n', "/no/such"),
    "RUN of a here-document": ("FROM base\n▸RUN <<E\ntrue\nexit 4\nE\n", "returned a non-zero code: 4"),
    "RUN for nobody": ("FROM base\nUSER nobody-here\n▸RUN true\n", NO_USER),
    "RUN with a secret": (
        "FROM base\nRUN --mount=type=tmpfs,target=/t \\\n  ▸--mount=type=secret,id=k,required cat /k\n",
        "secret k: not found",
    ),
    "RUN with an agent": (
        "FROM base\nRUN ▸--mount=type=ssh,required true\n",
        "unset ssh forward key default",
    ),
    "RUN with a bad owner": (
        "FROM base\nRUN ▸--mount=type=cache,target=/c,uid=me true\n",
        "invalid value for uid: me",
    ),
    "RUN with a bad mode": (
        "FROM base\nRUN ▸--mount=type=cache,target=/c,mode=9 true\n",
        "invalid value for mode: 9",
    ),
    "RUN with a bad size": (
        "FROM base\nRUN ▸--mount=type=tmpfs,target=/t,size=x true\n",
        "invalid value for size: x",
    ),
    "RUN with nothing to bind": (
        "FROM base\nRUN ▸--mount=target=/t,source=no true\n",
        f"RUN --mount {MISSING} no",
    ),
    "RUN with no such part of a stage": (
        "FROM base AS one\nFROM base\nRUN ▸--mount=from=one,source=/no,target=/t true\n",
        f"RUN --mount {MISSING} /no",
    ),
    "RUN with a variable": ("FROM base\nRUN --mount=target=/${A-a}▸${X:?X} echo ${X:?X}\n", "X: X"),
    "RUN with no image": (
        "FROM base\nRUN ▸--mount=from=no:such@,target=/t true\n",
        "invalid reference format",
    ),
    "RUN in the host's network": (
        "FROM base\nRUN --network=▸host host\n",
        "network.host is not allowed: build with --allow network.host to permit it",
    ),
    "RUN with all rights": (
        "FROM base\nRUN \\\n --security=▸insecure true\n",
        "security.insecure is not allowed: build with --allow security.insecure to permit it",
    ),
}

REFUSED: dict[str, tuple[str, str]] = {
    "unknown instruction": ("FROM base\n  ▸FOO\n", "unknown instruction: FOO"),
    "unknown flag": ("FROM base\nCOPY --link \\\n ▸--frm=x a /--frm\n", "unknown flag: --frm"),
    "flag of BuildKit": (
        "FROM base\nRUN --network=none ▸--device=x true\n",
        "RUN --device is not supported by this builder",
    ),
    "flag given twice": ("FROM base\nCOPY --chown=1 ▸--chown=2 a /\n", "duplicate flag specified: --chown"),
    "network": ("FROM base\nRUN --security=sandbox --network=▸what what\n", 'invalid network mode "what"'),
    "mount": (
        "FROM base\nRUN ▸--mount=type=what,target=/x echo type=what\n",
        'unsupported mount type "what"',
    ),
    "mount's switch": ("FROM base\nRUN --mount=target=/x,▸ro=7 echo ro=7\n", "invalid value for readonly: 7"),
    "mount of a later stage": (
        "FROM base\nRUN --mount=target=/1,from=▸1 true\n",
        "invalid from flag value 1",
    ),
    "variable in --from": (
        "FROM base\nCOPY --from=▸$A $A /\n",
        "variable expansion is not supported for --from",
    ),
    "no pair": ("FROM base\nENV A=1 \\\n  ▸A B=2\n", 'can\'t find = in "A"'),
    "no list of strings": (
        'FROM base\nHEALTHCHECK CMD ▸["a", 1]\n',
        "arrays must be comprised of strings only",
    ),
    "here-document without an end": ("FROM base\nRUN <<A cat \\\n ▸<<B\nA\nx\n", "no line 'B' ends it"),
    "here-document of half a name": ("FROM base\nCOPY <<▸'E /x\nE\n", "looking for matching single-quote"),
    "quotes": ("FROM base\nCOPY a ▸'b /\n", "looking for matching single-quote"),
}


def unmarked(dockerfile: str) -> tuple[str, int, int]:
    """The Dockerfile, and the line and column of the mark."""
    before, mark, after = dockerfile.partition("▸")
    assert mark and "▸" not in after
    return before + after, before.count("\n") + 1, len(before) - before.rfind("\n")


def failed_records(bench: Bench) -> list[dict[str, Any]]:
    told = [message.get("aux", {}).get("dockmagic.step") for message in bench.said]
    return [step for step in told if step and step["state"] == "failed"]


@pytest.mark.parametrize(("dockerfile", "sentence"), MISTAKES.values(), ids=MISTAKES.keys())
async def test_a_mistake(bench: Bench, dockerfile: str, sentence: str) -> None:
    text, line, column = unmarked(dockerfile)
    with pytest.raises(EngineError) as caught:
        await bench.build(text, FILES)
    error = caught.value
    assert (error.line, error.column) == (line, column), str(error)
    assert sentence in str(error)
    told = failed_records(bench)
    assert [(step["line"], step["column"]) for step in told] in ([(line, column)], []), "none before the plan"
    assert bool(told) == any("dockmagic.plan" in message.get("aux", {}) for message in bench.said)
    if not isinstance(error, DockerfileError):
        assert told and not str(error).startswith(("line ", "dockerfile")), "the place is beside the sentence"


@pytest.mark.parametrize(("dockerfile", "sentence"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_refused_before_anything_is_done(bench: Bench, dockerfile: str, sentence: str) -> None:
    """Here the sentence says where: nothing else is sent."""
    text, line, column = unmarked(dockerfile)
    with pytest.raises((DockerfileError, NotImplementedHere)) as caught:
        await bench.build(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    place = f"dockerfile parse error on line {line}, column {column}: "
    assert str(caught.value).startswith(place) and sentence in str(caught.value)
    assert bench.said == []


@pytest.mark.parametrize(
    "trigger",
    [
        "COPY gone /",
        "RUN false",
        "RUN --mount=type=secret,id=k,required true",
        "FOO bar",
        "COPY <<E /\n${X:?}\nE",
    ],
)
async def test_a_trigger_fails_where_its_image_is_named(bench: Bench, trigger: str) -> None:
    await bench.build(f"FROM base\nONBUILD {trigger}\n", tags=["parent"])
    with pytest.raises(EngineError) as caught:
        await bench.build("FROM base\n\nFROM \\\n  parent AS x\n")
    assert (caught.value.line, caught.value.column) == (4, 3)
    assert (failed_records(bench)[0]["line"], failed_records(bench)[0]["column"]) == (4, 3)
    assert "line 1" not in str(caught.value)


class Nothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


async def test_add_of_a_url(bench: Bench) -> None:
    digest = "sha256:" + "0" * 64
    with served(Nothing) as website:
        for dockerfile, sentence in (
            (f"FROM base\nADD --link {website}/there \\\n  ▸{website}/gone /x/\n", "status 404"),
            (f"FROM base\nADD --checksum=▸{digest} {website}/there /x/\n", "ADD failed: digest mismatch"),
            (
                f"FROM base\nARG P=gone\nADD a ▸{website}/$P /x/\n",
                f"ADD failed: failed to GET {website}/gone",
            ),
        ):
            text, line, column = unmarked(dockerfile)
            with pytest.raises(InvalidParameter) as caught:
                await bench.build(text, FILES)
            assert (caught.value.line, caught.value.column) == (line, column)
            assert sentence in str(caught.value)


async def test_the_record_of_a_step_that_goes_well_has_no_column(bench: Bench) -> None:
    await bench.build("FROM base\n\nRUN \\\n true\n")
    told = [
        message["aux"]["dockmagic.step"]
        for message in bench.said
        if "dockmagic.step" in message.get("aux", {})
    ]
    assert {step["line"] for step in told} == {1, 3} and not any("column" in step for step in told)


async def test_what_the_kernel_refuses_is_about_the_instruction(bench: Bench) -> None:
    with pytest.raises(OSError, match="File name too long"):
        await bench.build(f"FROM base\n  COPY a /{'long' * 100}\n", FILES)
    assert [(step["line"], step["column"]) for step in failed_records(bench)] == [(2, 3)]
