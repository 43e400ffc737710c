"""Instruction by instruction: what a Dockerfile says, and what the image then has.

Each row is a Dockerfile (on `base`), and a command in the image with what it prints, or a setting with its
value.
"""

import io
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from dockmagic_runtime.build.options import BuildOptions
from dockmagic_runtime.errors import EngineError, InvalidParameter
from dockmagic_runtime.oci.image import Platform

from tests.web import served

from .conftest import Bench, chunks

FILES: dict[str, str | bytes] = {
    "a.txt": "A\n",
    "b.md": "B\n",
    "dir/one": "1\n",
    "dir/sub/two": "2\n",
    "dir/sub/deep/three": "3\n",
    "with space": "S\n",
    "links/named": "-> ../a.txt",
}
HOST = Platform.host()

FILE_ROWS = [
    # COPY: targets
    ("COPY a.txt /x", "cat /x", "A\n"),
    ("COPY a.txt /x/", "cat /x/a.txt", "A\n"),
    ("WORKDIR /w\nCOPY a.txt .", "cat /w/a.txt", "A\n"),
    ("WORKDIR /w\nCOPY a.txt sub/dir/", "cat /w/sub/dir/a.txt", "A\n"),
    ("COPY a.txt b.md /x/", "cat /x/a.txt /x/b.md", "A\nB\n"),
    ("COPY *.txt /x/", "ls /x", "a.txt\n"),
    ("COPY ?.m[cd] /x/", "ls /x", "b.md\n"),
    ("COPY dir /x", "cat /x/one /x/sub/two", "1\n2\n"),
    ("COPY a.txt none* *.none /x/", "ls /x", "a.txt\n"),
    ("COPY none* /x/", "[ -e /x ] || echo none", "none\n"),
    ("COPY ../dir/../../a.txt /x", "cat /x", "A\n"),
    ("COPY links/n* /x/", "cat /x/named", "A\n"),
    ("RUN echo > /old; ln -s old /x\nCOPY a.txt /x", "[ -h /x ] && cat /old", "A\n"),
    ("RUN mkdir /d; ln -s /d/new /x\nCOPY a.txt /x", "[ -h /x ] && cat /d/new", "A\n"),
    ("RUN ln -s ../../../../etc/y /x\nCOPY a.txt /x", "cat /etc/y", "A\n"),
    ("RUN mkdir /d; echo > /d/a; ln /d/a /d/b; ln /d/a /c\nFROM base\nCOPY --from=0 /d /d",
     "stat -c %h /d/a; [ /d/a -ef /d/b ] && echo one", "2\none\n"),
    ('COPY ["with space", "/x y"]', "cat '/x y'", "S\n"),
    ("COPY with\\ space /x", "cat /x", "S\n"),
    ("ARG N=a\nCOPY ${N}.txt /${N}", "cat /a", "A\n"),
    # COPY: flags
    ("COPY --chmod=600 a.txt /x", "stat -c %a /x", "600\n"),
    ("ARG M=711\nCOPY --chmod=$M a.txt /x", "stat -c %a /x", "711\n"),
    ("COPY --chown=me a.txt /x", "stat -c %U:%G /x", "me:me\n"),
    ("COPY --chown=me:others a.txt /x", "stat -c %U:%G /x", "me:others\n"),
    ("COPY --chown=7:8 a.txt /x", "stat -c %u:%g /x", "7:8\n"),
    ("COPY --chown=7 a.txt /x", "stat -c %u:%g /x", "7:7\n"),
    ("RUN echo you:x:9:2000::/:/bin/sh >> /etc/passwd\nCOPY --chown=you a.txt /x", "stat -c %u:%g /x",
     "9:2000\n"),
    ("COPY --parents dir/sub/two /x/", "cat /x/dir/sub/two", "2\n"),
    ("COPY --parents dir/./sub/two /x/", "cat /x/sub/two", "2\n"),
    ("COPY --parents **/two **/three /x/", "cat /x/dir/sub/two /x/dir/sub/deep/three", "2\n3\n"),
    ("COPY --exclude=sub dir /x", "ls /x", "one\n"),
    ("COPY --exclude=*.md --exclude=dir . /x/", "ls /x", "Dockerfile\na.txt\nlinks\nwith space\n"),
    ("COPY --link a.txt /x/y/", "cat /x/y/a.txt", "A\n"),
    ("COPY --from=base /etc/passwd /p", "sed -n 1p /p", "root:x:0:0::/root:/bin/sh\n"),
    ("COPY <<E /x\none $HOME\nE", "cat /x", "one \n"),
    ("ENV V=v\nCOPY <<E <<'F' /x/\n$V\nE\n$V\nF", "cat /x/E /x/F", "v\n$V\n"),
    ("COPY <<-E /x\n\tno tab\n\tE", "cat /x", "no tab\n"),
    # ADD
    ("ADD a.txt /x", "cat /x", "A\n"),
    ("ADD --chown=me --chmod=640 a.txt /x", "stat -c '%a %U' /x", "640 me\n"),
    # RUN
    ("RUN echo 1 && \\\n    # a comment in between\n    echo 2 > /x", "cat /x", "2\n"),
    ('RUN ["/bin/sh", "-c", "echo $0 > /x", "arg"]', "cat /x", "arg\n"),
    ("RUN <<E\necho 1 > /x\necho 2 >> /x\nE", "cat /x", "1\n2\n"),
    ("RUN cat <<E > /x && echo after >> /x\nheard\nE", "cat /x", "heard\nafter\n"),
    ("RUN cat <<A - <<B > /x\none\nA\ntwo\nB", "cat /x", "two\n"),
    ("SHELL [\"/bin/sh\", \"-ec\"]\nRUN false || echo x > /x", "cat /x", "x\n"),
    ("# escape=`\nFROM base\nRUN echo a `\n  b > /x", "cat /x", "a b\n"),
    ("USER me\nRUN id -un > /tmp/x", "cat /tmp/x", "me\n"),
    ("USER 1000:2000\nRUN id -u > /tmp/x; id -g >> /tmp/x", "cat /tmp/x", "1000\n2000\n"),
    ("WORKDIR /a/b\nRUN pwd > /x", "cat /x", "/a/b\n"),
    ("USER me\nWORKDIR /a/b\nRUN echo x > x", "stat -c %U:%G /a /a/b; cat /a/b/x", "me:me\nme:me\nx\n"),
    ("USER 7\nWORKDIR /a", "stat -c %u:%g /a", "7:7\n"),
    ("USER me:others\nWORKDIR /a", "stat -c %U:%G /a", "me:others\n"),
    ("USER nobody-here\nWORKDIR /a", "stat -c %U:%G /a", "root:root\n"),
    ("WORKDIR /a\nWORKDIR b\nWORKDIR ../c\nRUN pwd > /x", "cat /x", "/a/c\n"),
    # variables
    ("ENV A=1\nENV A=2 B=$A\nRUN echo $A$B > /x", "cat /x", "21\n"),
    ("ENV A b c\nRUN echo $A > /x", "cat /x", "b c\n"),
    ("ARG A=arg\nENV A=env\nRUN echo $A > /x", "cat /x", "env\n"),
    ("ENV A=env\nARG A=arg\nRUN echo $A > /x", "cat /x", "env\n"),
    ("ARG A\nRUN echo [${A:-none}] > /x", "cat /x", "[none]\n"),
    ("ENV X=${Y:-d}${Y:+e}${Z-f} Q=\\$Y\nRUN echo $X$Q > /x", "cat /x", "df$Y\n"),
    ("ENV P=a/b/c.tar.gz\nENV A=${P##*/} B=${P%%.*} C=${P#*/} D=${P%.*}\nRUN echo $A $B $C $D > /x", "cat /x",
     "c.tar.gz a/b/c b/c.tar.gz a/b/c.tar\n"),
    ("ENV P=a-b-c\nENV A=${P/-/+} B=${P//-/+}\nRUN echo $A $B > /x", "cat /x", "a+b-c a+b+c\n"),
    ("ARG TARGETPLATFORM\nARG TARGETARCH\nRUN echo $TARGETPLATFORM $TARGETARCH > /x", "cat /x",
     f"{HOST} {HOST.architecture}\n"),
    ("RUN echo [$TARGETPLATFORM] > /x", "cat /x", "[]\n"),
    ("FROM base AS two\nARG A=1\nFROM two\nRUN echo [$A] > /x", "cat /x", "[1]\n"),
    ("ARG A=1\nFROM base\nRUN echo [$A] > /x", "cat /x", "[]\n"),
    # stages
    ("FROM base AS two\nCOPY --from=0 /bin/sh /x\nFROM two\nRUN [ -e /x ] && echo y > /y", "cat /y", "y\n"),
    ("RUN echo 1 > /x\nFROM base\nCOPY --from=0 /x /y", "cat /y", "1\n"),
    ("FROM base as Mixed\nRUN echo m > /m\nFROM base\nCOPY --from=MIXED /m /x", "cat /x", "m\n"),
    ("FROM --platform=$BUILDPLATFORM base\nRUN echo p > /x", "cat /x", "p\n"),
    ("# check=skip=all;error=true\nFROM base\nRUN echo c > /x", "cat /x", "c\n"),
    ("# syntax=docker/dockerfile:1\nFROM base\nRUN echo s > /x", "cat /x", "s\n"),
]  # fmt: skip


def whole(dockerfile: str) -> str:
    """A row that has a FROM of its own before anything else is a whole file."""
    return dockerfile if dockerfile.startswith(("#", "FROM --")) else f"FROM base\n{dockerfile}\n"


@pytest.mark.parametrize(("dockerfile", "command", "printed"), FILE_ROWS, ids=[row[0] for row in FILE_ROWS])
async def test_files(bench: Bench, dockerfile: str, command: str, printed: str) -> None:
    image = await bench.build(whole(dockerfile), FILES)
    assert bench.sh(image, command) == printed


SETTING_ROWS: list[tuple[str, str, Any]] = [
    ("ENV A=1 B=\"x y\" C=x\\ y D='$A'", "Env", ["PATH=/bin", "A=1", "B=x y", "C=x y", "D=$A"]),
    ("LABEL a=1 \"b c\"=d\nLABEL a=2", "Labels", {"a": "2", "b c": "d"}),
    ("EXPOSE 80 53/UDP 7-8/tcp", "ExposedPorts", {"80/tcp": {}, "53/udp": {}, "7/tcp": {}, "8/tcp": {}}),
    ("ARG P=9\nEXPOSE $P", "ExposedPorts", {"9/tcp": {}}),
    ("EXPOSE 8080:80 127.0.0.1::81/udp", "ExposedPorts", {"80/tcp": {}, "81/udp": {}}),
    ("VOLUME /a /b", "Volumes", {"/a": {}, "/b": {}}),
    ('VOLUME ["/a b"]', "Volumes", {"/a b": {}}),
    ("USER me:others", "User", "me:others"),
    ("USER me\nUSER $NONE", "User", ""),
    ("WORKDIR /x/../y/", "WorkingDir", "/y"),
    ("WORKDIR /x\nWORKDIR $NONE", "WorkingDir", "/x"),
    ("CMD echo $A", "Cmd", ["/bin/sh", "-c", "echo $A"]),
    ('CMD ["a", "$A"]', "Cmd", ["a", "$A"]),
    ("CMD [a, b]", "Cmd", ["/bin/sh", "-c", "[a, b]"]),
    ('SHELL ["/bin/sh", "-x"]\nCMD a', "Cmd", ["/bin/sh", "-x", "a"]),
    ('CMD ["x"]\nENTRYPOINT ["e"]', "Cmd", ["x"]),
    ('CMD ["x"]\nFROM base\nENTRYPOINT ["e"]', "Cmd", None),
    ('FROM base AS below\nCMD ["x"]\nFROM below\nENTRYPOINT ["e"]', "Cmd", None),
    ('ENTRYPOINT ["e"]', "Cmd", None),
    ("CMD", "Cmd", ["/bin/sh", "-c", ""]),
    ('ENTRYPOINT ["e"]\nCMD ["x"]', "Cmd", ["x"]),
    ("ENTRYPOINT exec top", "Entrypoint", ["/bin/sh", "-c", "exec top"]),
    ("ENTRYPOINT []", "Entrypoint", None),
    ("STOPSIGNAL 9", "StopSignal", "9"),
    ("SHELL [\"/bin/sh\", \"-ec\"]", "Shell", ["/bin/sh", "-ec"]),
    ("ONBUILD RUN a\nONBUILD COPY . /", "OnBuild", ["RUN a", "COPY . /"]),
    ("HEALTHCHECK NONE", "Healthcheck", {"Test": ["NONE"]}),
    ('HEALTHCHECK --timeout=1m30s --start-period=2s --start-interval=100ms CMD ["a"]', "Healthcheck",
     {"Test": ["CMD", "a"], "Timeout": 90 * 10**9, "StartPeriod": 2 * 10**9, "StartInterval": 10**8}),
    ("HEALTHCHECK --interval=.5s --timeout=0 --retries=3 cmd\ta  b", "Healthcheck",
     {"Test": ["CMD-SHELL", "a  b"], "Interval": 5 * 10**8, "Timeout": 0, "Retries": 3}),
    ("FROM scratch\nENV A=b", "WorkingDir", "/"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("dockerfile", "setting", "value"), SETTING_ROWS, ids=[row[0] for row in SETTING_ROWS]
)
async def test_settings(bench: Bench, dockerfile: str, setting: str, value: Any) -> None:
    image = await bench.build(whole(dockerfile), FILES)
    assert image.config["config"].get(setting) == value


async def test_the_author(bench: Bench) -> None:
    assert (await bench.build("FROM base\nMAINTAINER me <me@x>\n")).config["author"] == "me <me@x>"


async def test_onbuild_with_stages_and_here_documents(bench: Bench) -> None:
    await bench.build(
        "FROM base\nONBUILD COPY <<E /heard\nheard\nE\n"
        "ONBUILD COPY --from=base /etc/group /g\nONBUILD RUN echo x > /x\n",
        tags=["trigger"],
    )
    image = await bench.build("FROM trigger\nRUN cat /heard /x > /out\n")
    assert bench.sh(image, "cat /out; sed -n 1p /g") == "heard\nx\nroot:x:0:\n"
    assert "# Executing 3 build triggers\n" in bench.text and "Step 2/2 : RUN" in bench.text
    assert "OnBuild" not in image.config["config"]


IGNORES = [
    ("*.md", "b.md", False),
    ("*.md\n!b.md", "b.md", True),
    ("dir", "dir/sub/two", False),
    ("dir\n!dir/sub/two", "dir/sub/two", True),
    ("**/two", "dir/sub/two", False),
    ("dir/**/three", "dir/sub/deep/three", False),
    ("/a.txt", "a.txt", False),
    ("# a.txt", "a.txt", True),
    ("./dir/../a.txt", "a.txt", False),
    ("di?/on[a-f]", "dir/one", False),
    ("**\n!a.txt", "a.txt", True),
    ("**\n!a.txt", "dir/one", False),
]


@pytest.mark.parametrize(("rules", "path", "there"), IGNORES)
async def test_dockerignore(bench: Bench, rules: str, path: str, there: bool) -> None:
    image = await bench.build("FROM base\nCOPY . /x/\n", {**FILES, ".dockerignore": rules})
    assert bench.sh(image, f"[ -e /x/{path} ] && echo yes || echo no") == ("yes\n" if there else "no\n")


async def test_a_dockerfile_may_have_an_ignore_file_of_its_own(bench: Bench) -> None:
    files = {**FILES, "Dockerfile.dockerignore": "a.txt", ".dockerignore": "b.md"}
    image = await bench.build("FROM base\nCOPY . /x/\n", files)
    assert bench.sh(image, "[ -e /x/b.md ] && [ ! -e /x/a.txt ] && echo right") == "right\n"
    image = await bench.build("FROM base\nCOPY . /x/\n", {**files, "Dockerfile.dockerignore": ""})
    assert bench.sh(image, "[ -e /x/b.md ] && [ -e /x/a.txt ] && echo right") == "right\n"


async def test_proxies_in_both_spellings(bench: Bench) -> None:
    show = "FROM base\nRUN echo $HTTP_PROXY $http_proxy $no_proxy > /x\n"
    image = await bench.build(show, build_arguments={"HTTP_PROXY": "http://p", "no_proxy": "n"})
    assert bench.sh(image, "cat /x") == "http://p http://p n\n"
    await bench.build(show, build_arguments={"HTTP_PROXY": "http://q"})
    assert bench.states == ["cached", "cached"], "a proxy is no part of the key"
    assert "http://p" not in str(image.config)


class Served(BaseHTTPRequestHandler):
    body = b"from afar\n"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/file.txt" else 404)
        self.send_header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def website() -> Iterator[str]:
    with served(Served) as address:
        yield address


async def test_add_from_a_url(bench: Bench, website: str) -> None:
    image = await bench.build(f"FROM base\nADD {website}/file.txt /x/\n")
    assert bench.sh(image, "cat /x/file.txt; stat -c '%a %Y' /x/file.txt") == "from afar\n600 1700000000\n"
    await bench.build(f"FROM base\nADD {website}/file.txt /x/\n")
    assert bench.states == ["cached", "cached"]
    digest = "sha256:ab4eb18be4dde9cbd9caba3ad6eeb5d2a6f3a5e6d0e5b4dfb5e2bca3c8a2ae63"
    with pytest.raises(InvalidParameter, match=r"digest mismatch sha256:[0-9a-f]{64}: sha256:ab4eb18b"):
        await bench.build(f"FROM base\nADD --checksum={digest} {website}/file.txt /x\n")
    import hashlib

    good = hashlib.sha256(Served.body).hexdigest()
    image = await bench.build(f"FROM base\nADD --checksum=sha256:{good} {website}/file.txt /x\n")
    assert bench.sh(image, "cat /x") == "from afar\n"
    with pytest.raises(InvalidParameter, match="status 404"):
        await bench.build(f"FROM base\nADD {website}/nothing /x\n")
    with pytest.raises(EngineError, match="ADD from a Git repository is not supported"):
        await bench.build("FROM base\nADD https://example.com/x.git /x\n")


async def test_another_platform(bench: Bench) -> None:
    other = "linux/arm64" if HOST.architecture != "arm64" else "linux/amd64"
    image = await bench.build("FROM scratch\nCOPY a.txt /\n", FILES, platform=other)
    assert image.config["architecture"] == other.partition("/")[2]


def bomb(size: int) -> bytes:
    """A compressed tar with so many zeros."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("zeros")
        info.size = size
        tar.addfile(info, io.BytesIO(bytes(size)))
    return packed.getvalue()


async def test_bombs_in_a_build_are_refused(bench: Bench) -> None:
    """In an archive that ADD unpacks, and as the whole context: a small file that says it is a large one."""
    bench.layers.limit = 5_000_000
    files = {"fine.tgz": bomb(4_000_000), "bomb.tgz": bomb(50_000_000)}
    image = await bench.build("FROM base\nADD fine.tgz /x/\n", files)
    assert bench.sh(image, "stat -c %s /x/zeros") == "4000000\n"
    with pytest.raises(InvalidParameter, match="larger than 5000000 bytes when unpacked"):
        await bench.build("FROM base\nADD bomb.tgz /x/\n", files)
    with pytest.raises(InvalidParameter, match="larger than 5000000 bytes when unpacked"):
        await bench.builder.build(chunks(io.BytesIO(bomb(50_000_000))), BuildOptions(), lambda message: None)
