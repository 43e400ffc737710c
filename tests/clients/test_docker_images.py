"""The docker command and images: made, named, told about, moved through registries and archives, removed."""

import json
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import EngineProcess
from tests.runtime.registry.servers import PASSWORD, USER, SilentRegistry, registry


@pytest.fixture
def here(engine: EngineProcess) -> Iterator[EngineProcess]:
    """The engine; images that a test adds are called `test/…`."""
    yield engine
    engine.clear()
    for name in engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split():
        if "test/" in name:
            engine.docker("rmi", "-f", name)
    engine.docker("image", "prune", "-f")


def test_names(here: EngineProcess) -> None:
    assert here.docker("tag", "busybox", "test/one").returncode == 0
    assert here.docker("images", "test/one", "--format", "{{.Tag}}").stdout == "latest\n"
    here.docker("image", "tag", "test/one", "test/two:v1")
    listed = here.docker("image", "ls", "--filter", "reference=test/*", "--format", "{{.Repository}}").stdout
    assert sorted(listed.split()) == ["test/one", "test/two"]
    done = here.docker("rmi", "test/one", "nosuch")
    assert done.returncode == 1 and "Untagged: test/one:latest" in done.stdout
    assert done.stderr == "Error response from daemon: No such image: nosuch:latest\n"
    bad = here.docker("tag", "busybox", "Bad/Name")
    assert bad.returncode == 1 and "repository name" in bad.stderr and "must be lowercase" in bad.stderr


def test_told_about(here: EngineProcess) -> None:
    shown = json.loads(here.docker("image", "inspect", "busybox").stdout)[0]
    identity = here.docker("inspect", "-f", "{{.Id}}", "busybox").stdout.strip()
    assert shown["Id"] == identity and shown["Config"]["Cmd"] == ["sh"]
    assert len(here.docker("history", "-q", "busybox").stdout.split()) >= 1
    assert here.docker("images", "-q", "--no-trunc", "busybox").stdout.split()[0] == identity
    digests = here.docker("images", "--digests", "--format", "{{.Digest}}", "busybox").stdout
    assert digests.startswith("sha256:")
    missing = here.docker("image", "inspect", "nosuch")
    assert (missing.returncode, missing.stdout) == (1, "[]\n") and "No such image: nosuch" in missing.stderr


def test_in_use(here: EngineProcess) -> None:
    here.docker("tag", "busybox", "test/used")
    here.docker("run", "-d", "--name", "user", "test/used", "sleep", "1000")
    identity = here.docker("inspect", "-f", "{{.Id}}", "busybox").stdout.strip()
    refused = here.docker("rmi", identity)
    assert refused.returncode == 1 and "conflict: unable to delete" in refused.stderr
    assert here.docker("rmi", "test/used").returncode == 0, "only a name goes"


def test_archives(here: EngineProcess, tmp_path: Path) -> None:
    saved = tmp_path / "saved.tar"
    here.docker("tag", "busybox", "test/saved:1")
    assert here.docker("save", "-o", str(saved), "test/saved:1").returncode == 0
    with tarfile.open(saved) as tar:
        assert {"manifest.json", "index.json", "oci-layout"} <= set(tar.getnames())
    here.docker("rmi", "test/saved:1")
    assert here.docker("load", "-i", str(saved)).stdout == "Loaded image: test/saved:1\n"
    here.docker("create", "--name", "box", "busybox", "true")
    exported = tmp_path / "root.tar"
    assert here.docker("export", "-o", str(exported), "box").returncode == 0
    made = here.docker("import", "-c", "CMD echo imported", "-m", "why", str(exported), "test/imported")
    assert made.stdout.startswith("sha256:")
    assert here.docker("run", "--rm", "test/imported").stdout == "imported\n"
    assert here.docker("import", str(exported), "test/imported:tagged").returncode == 0
    tags = here.docker("images", "test/imported", "--format", "{{.Tag}}").stdout.split()
    assert sorted(tags) == ["latest", "tagged"]
    bad = here.docker("load", "-i", str(exported))
    assert bad.returncode == 1 and bad.stderr


def test_committed(here: EngineProcess) -> None:
    here.docker("run", "--name", "box", "busybox", "sh", "-c", "echo kept > /file")
    made = here.docker("commit", "-a", "me", "-m", "why", "-c", "CMD cat /file", "box", "test/committed:1")
    assert made.stdout.startswith("sha256:")
    assert here.docker("run", "--rm", "test/committed:1").stdout == "kept\n"
    assert here.docker("history", "--format", "{{.Comment}}", "test/committed:1").stdout.split()[0] == "why"


def test_pruned(here: EngineProcess) -> None:
    here.docker("create", "--name", "box", "busybox", "true")
    identity = here.docker("commit", "box").stdout.strip()
    here.docker("rm", "box")
    assert identity in here.docker("images", "-q", "--no-trunc", "--filter", "dangling=true").stdout
    done = here.docker("image", "prune", "-f")
    assert f"deleted: {identity}" in done.stdout and "Total reclaimed space" in done.stdout


def test_a_registry_with_a_password(
    here: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    with registry(tmp_path, password=True) as address:
        name = f"{address}/test/pushed:1"
        here.docker("tag", "busybox", name)
        denied = here.docker("push", name)
        assert denied.returncode == 1 and "no basic auth credentials" in denied.stderr + denied.stdout
        wrong = here.docker("login", "-u", USER, "-p", "wrong", address)
        assert wrong.returncode == 1 and "401 Unauthorized" in wrong.stderr
        logged = here.docker("login", "-u", USER, "--password-stdin", address, input=PASSWORD)
        assert "Login Succeeded" in logged.stdout
        pushed = here.docker("push", name)
        digest = next(word for word in pushed.stdout.split() if word.startswith("sha256:"))
        assert pushed.returncode == 0 and "1: digest: " in pushed.stdout
        here.docker("tag", "busybox", f"{address}/test/pushed:2")
        assert here.docker("push", "-a", f"{address}/test/pushed").returncode == 0
        for reference in (":1", ":2", f"@{digest}"):
            here.docker("rmi", "-f", f"{address}/test/pushed:1", f"{address}/test/pushed:2")
            pulled = here.docker("pull", f"{address}/test/pushed{reference}")
            assert pulled.returncode == 0 and f"Digest: {digest}" in pulled.stdout, pulled
        here.docker("rmi", "-f", f"{address}/test/pushed@{digest}")
        everything = here.docker("pull", "-a", f"{address}/test/pushed")
        assert everything.returncode == 0, everything
        assert "Removing login credentials" in here.docker("logout", address).stdout
        assert here.docker("pull", name).returncode == 1


@pytest.mark.parametrize("command", ["pull", "push"])
def test_interrupted_while_nothing_is_told(here: EngineProcess, command: str) -> None:
    """Ctrl-C ends the engine's part at once, also while it waits for a registry that does not answer."""
    with SilentRegistry() as silent:
        name = f"{silent.address}/test/slow:1"
        here.docker("tag", "busybox", name)
        client = subprocess.Popen(
            ["docker", "-H", here.address, command, name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert silent.asked.wait(10)
        client.send_signal(signal.SIGINT)
        client.wait(10)
        assert silent.let_go.wait(10)


def test_pulled(here: EngineProcess) -> None:
    assert "linux/s390x" in here.docker("pull", "--platform", "linux/s390x", "busybox").stderr
    assert here.docker("pull", "-q", "busybox").stdout == "docker.io/library/busybox:latest\n"
    assert "Image is up to date for busybox:latest" in here.docker("pull", "busybox").stdout
    missing = here.docker("pull", "test/nosuch")
    assert missing.returncode == 1 and missing.stderr.startswith("Error response from daemon: ")
    for policy, code in (("never", 125), ("missing", 125), ("always", 125)):
        assert here.docker("run", "--rm", "--pull", policy, "test/nosuch", "true").returncode == code
    assert here.docker("run", "--rm", "--pull", "always", "-q", "busybox", "echo", "hi").stdout == "hi\n"


def test_there_is_nothing_to_search(here: EngineProcess) -> None:
    done = here.docker("search", "busybox")
    assert done.returncode == 1 and "search" in done.stderr


def test_built_from_a_context(here: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nARG WORD=none\nCOPY file /\nRUN echo $WORD >> /file\nCMD cat /file\n"
    )
    (tmp_path / "file").write_text("text\n")
    built = here.docker(
        "build", "-t", "test/built", "--build-arg", "WORD=said", "--label", "a=b", str(tmp_path)
    )
    assert "Successfully tagged test/built:latest" in built.stdout, built
    assert here.docker("run", "--rm", "test/built").stdout == "text\nsaid\n"
    assert here.docker("inspect", "-f", "{{.Config.Labels.a}}", "test/built").stdout == "b\n"
    again = here.docker(
        "build", "-q", "-t", "test/again", "--build-arg", "WORD=said", "--label", "a=b", str(tmp_path)
    )
    assert again.stdout.strip() == here.docker("inspect", "-f", "{{.Id}}", "test/built").stdout.strip()
    stdin = here.docker("build", "-q", "-t", "test/stdin", "-", input="FROM busybox\nCMD echo in\n")
    assert stdin.returncode == 0 and here.docker("run", "--rm", "test/stdin").stdout == "in\n"
    (tmp_path / "Other").write_text("FROM nosuch/image\n")
    failed = here.docker("build", "-f", str(tmp_path / "Other"), str(tmp_path))
    assert failed.returncode == 1 and failed.stderr
