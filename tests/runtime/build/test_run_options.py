"""RUN's options: mounts of every type, network, security, and here-documents that are programs."""

import asyncio
import base64
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.build.options import BuildOptions
from dockmagic_runtime.build.sessions import Session, Sessions
from dockmagic_runtime.build.stage import StepFailed
from dockmagic_runtime.errors import InvalidParameter

from .conftest import Bench, chunks, context

CLIENT = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un at = {AF_UNIX};
    unsigned char ask[] = {0, 0, 0, 1, 11}, told[512];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(at.sun_path, getenv("SSH_AUTH_SOCK"));
    if (connect(fd, (struct sockaddr *)&at, sizeof at)) return perror("connect"), 1;
    write(fd, ask, sizeof ask);
    if (read(fd, told, sizeof told) < 9) return 1;
    printf("answer %d, %d keys\n", told[4], told[8]);
    return 0;
}
"""


def names(bench: Bench, image: Any) -> list[str]:
    layer = bench.layers.get(image.diff_ids[-1])
    assert layer
    return sorted(str(path.relative_to(layer.path)) for path in layer.path.rglob("*"))


async def test_bind_the_context(bench: Bench) -> None:
    dockerfile = """FROM base
WORKDIR /w
RUN --mount=type=bind,target=/src --mount=target=one,source=a.txt cat /src/a.txt one > /out; ! touch /src/no
RUN --mount=target=/src/b,source=dir/.,rw echo more >> /src/b/b.txt && cat /src/b/b.txt > /two
"""
    files = {"a.txt": "A\n", "dir/b.txt": "B\n"}
    image = await bench.build(dockerfile, files)
    assert bench.sh(image, "cat /out /two; ls / | grep -c src || true") == "A\nA\nB\nmore\n0\n"
    assert names(bench, image) == ["two"], "no mount point is part of a layer"
    await bench.build(dockerfile, {**files, "unread": "x"})
    assert bench.states == ["cached", "cached", "built", "built"], "the whole context has changed"
    again = await bench.build(dockerfile, files)
    assert again.id == image.id and bench.states == ["cached"] * 4


async def test_bind_of_stages_and_images(bench: Bench) -> None:
    image = await bench.build(
        """FROM base AS one
RUN mkdir -p /made/deep && echo file > /made/deep/f && ln -s /made/deep /made/link
FROM base AS two
RUN echo later > /l
FROM base
RUN --mount=from=one,target=/all --mount=from=one,source=/made/link/f,target=/run/f \
    --mount=from=two,source=/l,target=/l,rw --mount=from=base,source=etc/passwd,target=/p \
    cat /all/made/deep/f /run/f /l > /out; echo changed > /l; sed -n 1p /p >> /out
RUN --mount=from=one,target=/all,rw rm /all/made/link && ls /all/made > /ls
"""
    )
    assert bench.sh(image, "cat /out /ls") == "file\nfile\nlater\nroot:x:0:0::/root:/bin/sh\ndeep\n"
    assert names(bench, image) == ["ls"]
    assert len(image.diff_ids) == 3


async def test_mount_points_are_no_part_of_the_layer_and_keep_what_they_are_in(bench: Bench) -> None:
    image = await bench.build(
        """FROM base
RUN mkdir -m 711 /top && chown me:others /top && mkdir -p /real && ln -s /real /alias && mkdir /gone && echo
RUN rm -r /gone
RUN --mount=type=tmpfs,target=/top/in/deep --mount=type=tmpfs,target=/alias/x \
    --mount=type=tmpfs,target=/gone/again --mount=type=tmpfs,target=/dev/mine,size=1m \
    touch /top/in/deep/f /alias/x/f /gone/again/f /dev/mine/f && stat -c '%a %U' /top > /out
"""
    )
    assert names(bench, image) == ["out"]
    assert bench.sh(image, "cat /out; ls /real /top; ls -d /gone || true") == "711 me\n/real:\n\n/top:\n"


async def test_a_cache_outlives_the_build_and_no_layer_has_it(bench: Bench) -> None:
    step = "RUN --mount=type=cache,target=/c,mode=0700,uid=1000 echo x >> /c/count; wc -l < /c/count > /n"
    for expected in (1, 2):
        image = await bench.build(f"FROM base\n{step}\n", no_cache=True)
        assert bench.sh(image, "cat /n") == f"{expected}\n"
        assert names(bench, image) == ["n"]
    image = await bench.build(
        f"FROM base\n{step}\nRUN --mount=type=cache,target=/c stat -c '%a %u' /c > /s; ls /c >> /s\n"
    )
    assert bench.sh(image, "cat /s") == "755 0\n", "with another mode it is another cache"
    (await bench.builder.prune())
    image = await bench.build(f"FROM base\n{step}\n", no_cache=True)
    assert bench.sh(image, "cat /n") == "1\n"


async def test_a_cache_filled_from_a_stage(bench: Bench) -> None:
    image = await bench.build(
        """FROM base AS seed
RUN mkdir /s && echo seed > /s/f && chown me /s/f
FROM base
RUN --mount=type=cache,target=/c,from=seed,source=/s cat /c/f > /o; stat -c %U /c/f >> /o; echo more >> /c/f
RUN --mount=type=cache,target=/c,from=seed,source=/s,ro cat /c/f >> /o; ! touch /c/x
"""
    )
    assert bench.sh(image, "cat /o") == "seed\nme\nseed\nmore\n"


async def test_stages_are_built_side_by_side(bench: Bench) -> None:
    """Each waits for what the other does: one after another they would wait for ever."""
    wait = "while [ ! -e /c/{} ]; do sleep 0.01; done"
    dockerfile = f"""FROM base AS one
RUN --mount=type=cache,id=meet,target=/c touch /c/one; {wait.format("two")}; echo first; touch /1
FROM base AS two
RUN --mount=type=cache,id=meet,target=/c touch /c/two; {wait.format("one")}; echo second; touch /2
FROM base AS unused
RUN false
FROM base
COPY --from=one /1 /
COPY --from=two /2 /
"""
    image = await asyncio.wait_for(bench.build(dockerfile), 30)
    assert bench.sh(image, "ls /1 /2") == "/1\n/2\n"
    places = [bench.text.index(f"Step {n}/7 :") for n in range(1, 8)]
    assert places == sorted(places), "told one after another"
    assert places[1] < bench.text.index("\nfirst\n") < places[2]
    assert places[3] < bench.text.index("\nsecond\n") < places[4]
    told = [message for message in bench.said if message.get("stream") == "second\n"]
    assert [message["dockmagic.step"] for message in told] == [4]


async def test_stages_that_do_the_same_do_it_once(bench: Bench) -> None:
    same = "RUN --mount=type=cache,target=/c echo x >> /c/n; wc -l < /c/n > /n"
    dockerfile = f"FROM base AS a\n{same}\nFROM base AS b\n{same}\nRUN touch /b\n"
    dockerfile += "FROM base\nCOPY --from=a /n /a\nCOPY --from=b /n /b\n"
    for no_cache in (False, True):
        image = await bench.build(dockerfile, no_cache=no_cache)
        assert bench.sh(image, "cat /a /b").split() == (["1", "1"] if not no_cache else ["2", "2"])


async def test_a_failing_stage_ends_the_others(bench: Bench) -> None:
    dockerfile = """FROM base AS slow
RUN --mount=type=cache,id=x,target=/c touch /c/here; sleep 1000
FROM base AS bad
RUN --mount=type=cache,id=x,target=/c while [ ! -e /c/here ]; do sleep 0.01; done; echo oh; exit 3
FROM base
COPY --from=slow / /
COPY --from=bad / /
"""
    with pytest.raises(StepFailed) as caught:
        await asyncio.wait_for(bench.build(dockerfile), 30)
    assert caught.value.code == 3
    assert "\noh\n" in bench.text, "what the failed stage said is told though an earlier one was at its turn"


@pytest.mark.parametrize("sharing", ["locked", "private"])
async def test_sharing(bench: Bench, sharing: str) -> None:
    """Two steps at once: locked they never meet, private they have one each."""
    step = (
        f"RUN --mount=type=cache,id=s,sharing={sharing},target=/c"
        " [ ! -e /c/busy ] && touch /c/busy && sleep 0.2 && rm /c/busy"
        " && echo {0} >> /c/log && cat /c/log > /{0}"
    )
    dockerfile = f"FROM base AS a\n{step.format('a')}\nFROM base AS b\n{step.format('b')}\n"
    dockerfile += "FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    image = await bench.build(dockerfile)
    lines = sorted(len(bench.sh(image, f"cat /{name}").split()) for name in "ab")
    assert lines == ([1, 2] if sharing == "locked" else [1, 1])


def session(**asked: Any) -> Session:
    sessions = Sessions()
    return sessions.take(sessions.open(asked))


async def test_secrets(bench: Bench) -> None:
    secret = base64.b64encode(b"Pssst-Pssst\n").decode()
    dockerfile = """FROM base
RUN --mount=type=secret,id=key stat -c '%a %u' /run/secrets/key > /o; wc -c < /run/secrets/key >> /o
RUN --mount=type=secret,id=key,target=/root/k,mode=0444,uid=1000 stat -c '%a %U' /root/k >> /o
RUN --mount=type=secret,id=key,env=KEY [ "$KEY" = "Pssst-Pssst" ] && ls /run >> /o || true
RUN --mount=type=secret,id=other ls -A / | grep run || true
"""
    image = await bench.build(dockerfile, session=session(Secrets={"key": secret}))
    assert bench.sh(image, "cat /o").splitlines()[:3] == ["400 0", "12", "444 me"]
    found = subprocess.run(
        ["grep", "-rl", "Pssst-Pssst", str(bench.config.data_root)],
        capture_output=True,
        text=True,
        check=False,
    )
    # The word is in the Dockerfile's own test of it, and so in the history.
    assert not any("/layers/" in line for line in found.stdout.splitlines())
    assert not list(bench.builder.private.glob("*"))
    with pytest.raises(InvalidParameter, match=r"^secret absent: not found$"):
        await bench.build("FROM base\nRUN --mount=type=secret,id=absent,required true\n")
    with pytest.raises(InvalidParameter, match="no active session"):
        bench.builder.sessions.take("nothing")


async def test_an_ssh_agent(bench: Bench, tmp_path: Path) -> None:
    agent = shutil.which("ssh-agent")
    assert agent, "apt-get install openssh-client"
    (tmp_path / "client.c").write_text(CLIENT)
    subprocess.run(["gcc", "-static", "-o", "client", "client.c"], cwd=tmp_path, check=True)
    place = tmp_path / "agent"
    with subprocess.Popen([agent, "-D", "-a", str(place)], stdout=subprocess.PIPE) as running:
        assert running.stdout
        running.stdout.readline()  # says where it listens, once it does
        try:
            image = await bench.build(
                "FROM base\nCOPY --chmod=755 client /\n"
                "RUN --mount=type=ssh /client > /o && stat -c '%a %u' $SSH_AUTH_SOCK >> /o\n"
                "USER me\nRUN --mount=type=ssh,uid=1000,target=/tmp/a --mount=type=ssh /client > /tmp/o\n",
                {"client": (tmp_path / "client").read_bytes()},
                session=session(Agents={"default": str(place)}),
            )
        except StepFailed:
            raise AssertionError(bench.text) from None
        finally:
            running.terminate()
    assert bench.sh(image, "cat /o").startswith("answer 12, 0 keys\n600 0\n")
    assert names(bench, image) == ["tmp", "tmp/o"]
    with pytest.raises(InvalidParameter, match="unset ssh forward key default"):
        await bench.build("FROM base\nRUN --mount=type=ssh,required true\n")


async def test_network(bench: Bench) -> None:
    image = await bench.build(
        "FROM base\nRUN --network=none ip link > /none\nRUN --network=default ip link > /own\n"
    )
    links = {name: bench.sh(image, f"grep -c : /{name} || true").strip() for name in ("none", "own")}
    assert bench.sh(image, "grep -c eth0 /none || true") == "0\n", links
    assert bench.sh(image, "grep -c eth0 /own") == "1\n"
    step = "FROM base\nRUN --network=host ip link > /l\n"
    with pytest.raises(InvalidParameter, match=r"^network.host is not allowed: build with --allow"):
        await bench.build(step)
    image = await bench.build(step, session=session(Allow=["network.host"]))
    for name in os.listdir("/sys/class/net"):  # noqa: PTH208
        assert f" {name}" in bench.sh(image, "cat /l")


async def test_security(bench: Bench) -> None:
    step = "FROM base\nRUN --security=insecure grep CapBnd /proc/self/status > /c; ls -A /sys/firmware > /f\n"
    with pytest.raises(InvalidParameter, match=r"^security.insecure is not allowed"):
        await bench.build(step)
    image = await bench.build(step, session=session(Allow=["security.insecure"]))
    status = Path("/proc/self/status").read_text()
    mine = next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd"))
    assert bench.sh(image, "cat /c").split()[1] == mine
    image = await bench.build("FROM base\nRUN grep CapBnd /proc/self/status > /c\n")
    assert bench.sh(image, "cat /c").split()[1] != mine
    with pytest.raises(InvalidParameter, match="invalid entitlement"):
        session(Allow=["all"])


async def test_a_here_document_can_be_a_program(bench: Bench) -> None:
    image = await bench.build(
        'FROM base\nSHELL ["/bin/false"]\n'
        "RUN <<PROGRAM\n#!/bin/sh\necho $0 > /o\nls /dev/pipes >> /o\nPROGRAM\n"
    )
    assert bench.sh(image, "cat /o") == "/dev/pipes/PROGRAM\nPROGRAM\n"


async def test_a_source_stays_in_its_tree(bench: Bench) -> None:
    """CVE-2024-23651: a path below a cache that another step can swap at any moment."""
    secret = bench.config.data_root / "secret"
    secret.write_text("the host's\n")
    away = f"../../../../../../../../{secret}"
    with pytest.raises(InvalidParameter, match="RUN --mount failed"):
        await bench.build(f"FROM base\nRUN --mount=target=/x,source={away} cat /x\n")
    swap = "while [ ! -e /c/done ]; do rm -rf /c/in; ln -s / /c/in; rm -f /c/in; mkdir /c/in; done"
    swapper = f"FROM base\nRUN --mount=type=cache,id=c,target=/c mkdir /c/in; echo swaps; {swap}\n"
    said: list[dict[str, Any]] = []
    swapping = asyncio.create_task(
        bench.builder.build(chunks(context({}, swapper)), BuildOptions(), said.append)
    )
    while not any(message.get("stream") == "swaps\n" for message in said):
        await asyncio.sleep(0.01)
        assert not swapping.done()
    look = "[ ! -e /m/proc/1 ] && [ ! -e /m/var/tmp ] || exit 9; echo"
    ended: list[str] = []
    for number in range(60):
        try:
            await bench.build(f"FROM base\nRUN --mount=type=cache,id=c,source=in,target=/m {look} {number}\n")
            ended.append("inside")
        except (InvalidParameter, StepFailed) as error:
            # For a moment there was nothing, or what was there was removed: a clear error, and no way out.
            assert "RUN --mount failed" in str(error) or "No such file or directory" in str(error), error
            ended.append("refused")
    await bench.build("FROM base\nRUN --mount=type=cache,id=c,target=/c touch /c/done\n")
    await asyncio.wait_for(swapping, 60)
    assert set(ended) == {"inside", "refused"}, "the swaps were not seen"


async def test_a_place_of_a_mount_is_not_taken_away_through_a_link(bench: Bench) -> None:
    """CVE-2024-23652: where the place was, a link to the host's files. It cannot even be put there."""
    victim = bench.config.data_root / "victim"
    (victim / "deep").mkdir(parents=True)
    (victim / "file").touch()
    image = await bench.build(
        "FROM base\nRUN --mount=type=tmpfs,target=/gone/deep --mount=type=secret,id=k,target=/gone/file"
        " rm -rf /gone; busybox mv /gone /moved;"
        f" ln -sT {victim} /gone && echo put > /out || echo no > /out\n",
        session=session(Secrets={"k": "cw=="}),
    )
    assert (victim / "deep").is_dir() and (victim / "file").exists()
    assert bench.sh(image, "cat /out; [ -e /gone ] || echo none") == "no\nnone\n"


async def test_an_interrupt_gives_cache_and_secret_back(bench: Bench) -> None:
    sessions = session(Secrets={"k": base64.b64encode(b"s").decode()})
    dockerfile = (
        "FROM base\nRUN --mount=type=secret,id=k --mount=type=cache,sharing=locked,target=/c"
        " echo here; exec sleep 1000\n"
    )
    seen = asyncio.Event()
    options = BuildOptions(session=sessions)
    task = asyncio.create_task(
        bench.builder.build(
            chunks(context({}, dockerfile)),
            options,
            lambda m: seen.set() if m.get("stream") == "here\n" else None,
        )
    )
    await asyncio.wait_for(seen.wait(), 20)
    assert list(bench.builder.private.glob("*"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list(bench.builder.private.glob("*"))
    await asyncio.wait_for(
        bench.build("FROM base\nRUN --mount=type=cache,sharing=locked,target=/c true\n"), 20
    )


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("type=bind", "a mount of type bind needs a target"),
        ("type=what,target=/x", 'unsupported mount type "what"'),
        ("type=cache,target=/x,sharing=no", 'unsupported sharing value "no"'),
        ("type=cache,target=/x,mode=9", "invalid value for mode: 9"),
        ("type=cache,target=/x,uid=me", "invalid value for uid: me"),
        ("type=tmpfs,target=/x,size=much", "invalid value for size: much"),
        ("type=bind,target=/x,source=absent", "RUN --mount failed"),
        ("type=tmpfs,target=/x,id=1", "unexpected key 'id' for mount type 'tmpfs'"),
        ("target=/x,from=$A", "'from' doesn't support variable expansion"),
    ],
)
async def test_bad_mounts(bench: Bench, flag: str, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await bench.build(f"FROM base\nRUN --mount={flag} true\n")
    assert sentence in str(caught.value) and caught.value.line == 2
