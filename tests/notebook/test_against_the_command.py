"""Our grammar beside the docker command itself: its commands, its flags, its sentences for mistakes.

Nothing here needs an engine: help and mistakes are the command line's own.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import click
import pytest

from dockmagic.contexts import Context, Contexts
from dockmagic.errors import DockmagicError
from dockmagic.grammar import docker, syntax
from dockmagic.grammar.flags import Switch
from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import Refused, RefusedOption
from dockmagic.waiting import Cell

NOWHERE = "unix:///nonexistent/docker.sock"

# Flags of ours that `docker … --help` does not show: our own, and old spellings that Docker hides.
OURS = {"--no-check", "--allow", "--ssh", "--secret"}
# And those of one command: `container update` and `update`, `volume ls`.
MORE = {
    ("container", "update"): {"--publish", "--unpublish", "--volume", "--mount", "--unmount"},
    ("update",): {"--publish", "--unpublish", "--volume", "--mount", "--unmount"},
    ("volume", "ls"): {"--size"},
}
OLD = {"--net", "--net-alias", "--dns-opt", "--time"}

_FLAG = re.compile(r"^\s+(?:(-\w), )?(--[\w-]+)(?: (\S+))?(?:\s{2,}|$)")
_COMMAND = re.compile(r"^  ([\w-]+)\*?\s{2,}")

Path = tuple[str, ...]


def asked(*words: str) -> str:
    """What the docker command prints, without an engine."""
    if shutil.which("docker") is None:
        pytest.fail("the docker command is missing: apt-get install docker.io")
    environment = {**os.environ, "DOCKER_HOST": NOWHERE, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        ["docker", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout


def commands_of(text: str) -> Iterator[str]:
    """The names below the headings `Commands:`, `Management Commands:`… of a help."""
    listed = False
    for line in text.splitlines():
        if line and not line.startswith(" "):
            listed = line.endswith("Commands:")
        elif listed and (match := _COMMAND.match(line)):
            yield match[1]


@pytest.fixture(scope="module")
def helps() -> dict[Path, str]:
    """The help of every command of the docker command, by its words."""
    found: dict[Path, str] = {}
    wave: list[Path] = [()]
    with ThreadPoolExecutor(4) as pool:
        while wave:
            texts = pool.map(lambda path: asked(*path, "--help"), wave)
            found.update(zip(wave, texts, strict=True))
            wave = [(*path, name) for path in wave for name in commands_of(found[path])]
    return found


def ours(path: Path) -> click.Command | None:
    """Our command of that name; the refusal of a noun stands for all its verbs."""
    command: click.Command = docker
    for word in path:
        if isinstance(command, Refused):
            return command
        assert isinstance(command, click.Group)
        if word not in command.commands:
            return None
        command = command.commands[word]
    return command


def test_every_command_of_dockers_is_served_or_refused(helps: dict[Path, str]) -> None:
    assert len(helps) > 100, "the help was not understood"
    assert [" ".join(path) for path in helps if ours(path) is None] == []


def test_every_flag_of_dockers_is_served_or_refused(helps: dict[Path, str]) -> None:
    differences = []
    for path, text in helps.items():
        command = ours(path)
        if command is None or isinstance(command, Refused):
            continue
        known = {word: p for p in command.params if isinstance(p, click.Option) for word in p.opts}
        for line in text.splitlines():
            match = _FLAG.match(line)
            if match is None or match[2] in ("--help", "--version"):
                continue
            short, long, value = match.groups()
            place = f"docker {' '.join(path)} {long}"
            if long not in known or (short and known.get(short) is not known[long]):
                differences.append(f"{place} {short or ''} is missing")
            elif isinstance(known[long], Switch) is not (value is None):
                differences.append(f"{place} takes {value or 'no value'}")
    assert differences == []


def test_what_docker_does_not_have_is_ours_by_name(helps: dict[Path, str]) -> None:
    for path, text in helps.items():
        command = ours(path)
        assert command is not None
        theirs = {match[2] for line in text.splitlines() if (match := _FLAG.match(line))}
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                words = {word for word in parameter.opts if word.startswith("--")}
                assert words - theirs <= OURS | OLD | MORE.get(path, set()), path


def test_every_refusal_says_why() -> None:
    def refusals(command: click.Command) -> Iterator[str]:
        if isinstance(command, Refused):
            yield command.why
        for parameter in command.params:
            if isinstance(parameter, RefusedOption):
                yield parameter.why
        for below in getattr(command, "commands", {}).values():
            yield from refusals(below)

    reasons = list(refusals(docker))
    assert reasons and all(len(reason.split()) > 3 for reason in reasons)


def session() -> Session:
    """One whose engine does not exist: a command that asks it for something fails otherwise than expected."""
    contexts = Contexts()
    contexts.current = Context("nowhere", NOWHERE, "")
    return Session(contexts, Cell())


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("swarm init", "docker swarm: Swarm is for several machines"),
        ("service ls --format x", "docker service: Swarm is for several machines"),
        ("-H tcp://x ps", "docker --host: set the environment variable DOCKER_HOST"),
        ("--context other ps", "docker --context: use `%docker context use NAME`"),
        ("run --use-api-socket x", "docker run --use-api-socket: the engine's socket and"),
        ("start --checkpoint x y", "docker start --checkpoint: checkpoints need CRIU"),
        ("build --cache-to x .", "docker build --cache-to: this needs BuildKit"),
        ("volume create --availability active", "docker volume create --availability: cluster volumes"),
        ("images --tree", "docker images --tree: the engine keeps one platform"),
        ("cp - web:/x", "a cell's body is text and no archive"),
        ("save busybox", "cowardly refusing to save to a terminal. Use the -o flag or redirect"),
        ("export web", "cowardly refusing to save to a terminal. Use the -o flag or redirect"),
        ("load", "requested load from stdin, but stdin is empty"),
        ("login -u me", "Error: Cannot perform an interactive login from a non TTY device"),
    ],
)
def test_what_a_notebook_has_not_is_said(line: str, sentence: str) -> None:
    with pytest.raises(DockmagicError) as caught:
        syntax.run(docker, line.split(), session())
    assert str(caught.value).startswith(sentence)


MISTAKES = """
nosuch
container nosuch
--nosuch
ps -x
ps --rm
ps extra
ps --filter foo
run
run -x
run -ie
run --rm=maybe busybox
run --nosuch
run --name
run -mfoo x
run --memory=-1 x
run --memory-swap a x
run --cpus x b
run --cpus 0.12345678912 x
run --cpu-shares a x
run --blkio-weight a x
run --memory-swappiness a x
run --pids-limit a x
run --stop-timeout a x
run --shm-size a x
run --blkio-weight-device a x
run --blkio-weight-device a:1 x
run --blkio-weight-device /dev/sda:1 x
run --device-read-bps a x
run --device-read-bps a:1 x
run --device-read-bps /dev/sda:a x
run --device-read-iops /dev/sda:a x
run --device-cgroup-rule x y
run --ulimit a x
run --ulimit foo=1 x
run --ulimit nofile=a x
run --ulimit nofile= x
run --ulimit nofile=1:2:3 x
run --ulimit nofile=3:1 x
run --ulimit nofile=-1:5 x
run --pull sometimes x
run --health-interval 3 x
run --health-interval=-1s x
run --health-timeout 5x a
run --health-retries=-1 x
run --no-healthcheck --health-cmd true x
run --no-healthcheck=x x
run --restart on-failure:a x
run --rm --restart always x
run -a foo x
run --detach -a stdout x
run --add-host a x
run --add-host a:b x
run --add-host :1.2.3.4 x
run --dns a x
run -e =a x
run -l =a x
run --label 'a b=c' x
run --env-file /nosuch x
run --label-file /nosuch x
run --sysctl a x
run --sysctl foo=1 x
run --link a:b:c x
run --gpus a x
run --gpus foo=1 x
run --gpus count=1,count=2 x
run --log-driver none --log-opt a=b x
run --cgroupns foo x
run --userns foo x
run --pid foo x
run --uts foo x
run --security-opt foo x
run --security-opt seccomp=/nosuch x
run --cidfile /etc/passwd x
run --mac-address zz x
run --network '' x
run --network foo,bar=1 x
run --network alias=b x
run --network name=b,foo=1 x
run --network name=a,gw-priority=x x
run --network name=a,mac-address=x x
run --network name=a,driver-opt=x x
run --network name=a --network name=a x
run --network host --network foo x
run --network name=a,alias=b --network-alias c x
run --network name=a,ip=1.2.3.4 --ip 1.2.3.5 x
run --mount a x
run --mount type=bind,src=/x x
run --mount target=/x,colour=red x
run --mount type=bind,volume-nocopy=true,dst=/x x
run --mount type=bind,tmpfs-size=1m,dst=/x x
run --mount type=tmpfs,bind-propagation=rshared,dst=/x x
run --mount type=bind,dst=/x,image-subpath=a x
run --mount dst=/x,readonly=maybe x
run --mount dst=/x,tmpfs-mode=9 x
run --mount type=tmpfs,dst=/x,tmpfs-size=z x
run --mount type=bind,bind-recursive=foo,dst=/x x
run --mount type=bind,dst=/x,bind-recursive=writable x
run --mount type=bind,dst=/x,ro,bind-recursive=readonly x
run --mount dst=/x,volume-label x
run -p 70000:1 x
run -p 1:2:3:4 x
run -p a:80:80 x
run -p a:80 x
run -p 80:a x
run -p 80: x
run -p 80/foo x
run -p 80-82:90-91 x
run -p 82-80:90 x
run -p 80:91-90 x
run -p target=80,protocol=x x
run -p published=80 x
run --expose a x
run --expose 9-8 x
run --expose 1:2 x
run -p target=80,80 x
exec -d
exec -e =a b c
commit --pause=x a
rename a
rename a b c
tag a
cp a
cp a b
cp a:b c:d
port
logs
top
login a b
login --password-stdin
login -u a -p b --password-stdin
load -i /nosuch
pull -a x:y
system prune --filter a
events --filter a
network create --gateway 1.2.3.4 b
network create --aux-address a=1.2.3.4 b
network create --subnet 10.0.0.0/8 --gateway 11.0.0.1 b
network create --subnet 10.0.0.0/8 --ip-range x b
network create --subnet 10.0.0.0/8 --subnet 10.1.0.0/16 b
network connect a
volume create a b
volume create --name b c
update --memory x y
update x
""".strip().splitlines()


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """The docker command's first line for each of MISTAKES, without the word it begins with."""
    with ThreadPoolExecutor(4) as pool:
        texts = pool.map(lambda line: asked(*shlex.split(line)), MISTAKES)
        return {
            line: text.splitlines()[0].removeprefix("docker: ").removeprefix("Error: ")
            for line, text in zip(MISTAKES, texts, strict=True)
        }


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_told_in_dockers_words(line: str, answers: dict[str, str]) -> None:
    with pytest.raises(DockmagicError) as caught:
        syntax.run(docker, shlex.split(line), session())
    ours = str(caught.value).removeprefix("docker: ")
    assert ours.startswith(answers[line])
    # What we add is a help: the nearest name, or where to read on.
    assert re.fullmatch(r"(\. Did you mean '[\w-]+'\?|\. See '[\w -]+'\.)?", ours.removeprefix(answers[line]))
