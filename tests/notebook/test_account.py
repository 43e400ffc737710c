"""`%docker login`, `logout` and `search`: a registry that wants a password, and the docker command beside."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.models.images import Image

from dockmagic.errors import DockmagicError
from tests.runtime.registry.servers import PASSWORD, USER, registry

from .conftest import Run


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry with a password, and an empty Docker configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    with registry(tmp_path, password=True) as address:
        yield address


def accounts() -> dict[str, object]:
    config = json.loads((Path(os.environ["DOCKER_CONFIG"]) / "config.json").read_text())
    return config.get("auths", {})


def test_who_is_logged_in_may_push_with_either_command(run: Run, address: str) -> None:
    name = f"{address}/box:1"
    run(f"%docker tag IMAGE {name}")
    refused = run(f"%docker push {name}")
    assert refused.error is not None and "auth" in str(refused.error).lower()
    ran = run(f"%%docker login -u {USER} --password-stdin {address}\n{PASSWORD}\n")
    assert ran.value == "Login Succeeded"
    assert "stored unencrypted in" in ran.stderr
    assert isinstance(run(f"%docker push -q {name}").value, Image)
    theirs = subprocess.run(["docker", "push", name], capture_output=True, text=True, check=False)
    assert theirs.returncode == 0, theirs.stderr
    assert run(f"%docker logout {address}").value == f"Removing login credentials for {address}"
    assert accounts() == {}
    assert run(f"%docker push -q {name}").error is not None
    run(f"%docker rmi {name}")


def test_an_account_of_the_docker_command_is_ours(run: Run, address: str) -> None:
    login = ["docker", "login", "-u", USER, "--password-stdin", address]
    subprocess.run(login, input=PASSWORD, text=True, check=True, capture_output=True)
    name = f"{address}/box:2"
    run(f"%docker tag IMAGE {name}")
    assert isinstance(run(f"%docker push -q {name}").value, Image)
    run(f"%docker logout {address}")
    assert accounts() == {}
    run(f"%docker rmi {name}")


JAVA = """FROM REGISTRY/team/jdk:17 AS build
WORKDIR /src
COPY Main.java .
RUN javac Main.java
FROM REGISTRY/team/jdk:17
WORKDIR /app
COPY --from=build /src/Main.class ./
ENTRYPOINT ["java", "Main"]
"""
# What stands in for the tools of the base.
JDK = """FROM IMAGE
RUN echo 'cat $1 > Main.class' > /bin/javac && echo 'echo java runs $1; cat $1.class' > /bin/java && CHMOD
"""


def test_a_build_begins_with_an_image_of_a_private_registry(run: Run, address: str, tmp_path: Path) -> None:
    """The course's Java app, as the notebook builds it."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Main.java").write_text("class Main {}\n")
    base, dockerfile = f"{address}/team/jdk:17", JAVA.replace("REGISTRY", address)
    jdk = JDK.replace("CHMOD", "busybox chmod +x /bin/javac /bin/java")
    for line in (f"%%dockerfile -q -t {base}\n{jdk}", f"%docker push -q {base}", f"%docker rmi {base}"):
        if "push" in line:
            run(f"%%docker login -u {USER} --password-stdin {address}\n{PASSWORD}\n")
        assert run(line).error is None
    build = f"%%dockerfile -t dockmagic-test/java --context {tmp_path}/app\n{dockerfile}"
    run(f"%docker logout {address}")
    assert "no basic auth credentials" in str(run(build).error)
    run(f"%%docker login -u {USER} --password-stdin {address}\n{PASSWORD}\n")
    built = run(build)
    assert isinstance(built.value, Image), built.error
    ran = run("%docker run --rm --network none --entrypoint sh dockmagic-test/java /bin/java Main")
    assert ran.value.output == "java runs Main\nclass Main {}\n"
    told = run(f"%%dockerfile --explain\n{dockerfile}").value.text()
    assert f"Begins a stage, called build, with the files and settings of the image {base}." in told
    assert "Copies /src/Main.class of the stage build to /app/, as a layer." in told
    run(f"%docker rmi -f dockmagic-test/java {base}")


HELPER = """#!/usr/bin/env python3
# A credential helper (docker-credential-helpers, README "Development"): credentials in a file of its own.
import json, pathlib, sys
file = pathlib.Path(__file__).with_suffix(".json")
known = json.loads(file.read_text()) if file.exists() else {}
said = sys.stdin.read().strip()
if sys.argv[1] == "store":
    entry = json.loads(said)
    known[entry["ServerURL"]] = entry
elif sys.argv[1] == "erase":
    known.pop(said, None)
elif sys.argv[1] == "list":
    print(json.dumps({server: entry["Username"] for server, entry in known.items()}))
elif said in known:
    print(json.dumps(known[said]))
else:
    print("credentials not found in native keychain")
    sys.exit(1)
file.write_text(json.dumps(known))
"""


@pytest.mark.parametrize("setting", ["credsStore", "credHelpers"])
def test_a_credential_helper_is_honoured(
    run: Run, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    helper = tmp_path / "docker-credential-fake"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file = Path(os.environ["DOCKER_CONFIG"]) / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({setting: "fake" if setting == "credsStore" else {address: "fake"}}))
    name = f"{address}/box:3"
    run(f"%docker tag IMAGE {name}")
    ran = run(f"%%docker login -u {USER} --password-stdin {address}\n{PASSWORD}\n")
    assert ran.value == "Login Succeeded" and "unencrypted" not in ran.stderr
    kept = json.loads(helper.with_suffix(".json").read_text())
    assert (kept[address]["Username"], kept[address]["Secret"]) == (USER, PASSWORD)
    assert PASSWORD not in file.read_text()
    pushed = run(f"%docker push -q {name}")
    assert isinstance(pushed.value, Image), pushed
    theirs = subprocess.run(["docker", "push", name], capture_output=True, text=True, check=False)
    assert theirs.returncode == 0, theirs.stderr
    run(f"%docker logout {address}")
    assert json.loads(helper.with_suffix(".json").read_text()) == {}
    assert "log in to" in str(run(f"%docker push -q {name}").error)
    run(f"%docker rmi {name}")


def test_a_credential_helper_that_is_missing(run: Run, address: str) -> None:
    file = Path(os.environ["DOCKER_CONFIG"]) / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"credHelpers": {address: "nowhere"}}))
    name = f"{address}/box:4"
    run(f"%docker tag IMAGE {name}")
    for cell in (f"%docker login -u {USER} -p '{PASSWORD}' {address}", f"%docker push {name}"):
        error = run(cell).error
        assert isinstance(error, DockmagicError), cell
        assert "docker-credential-nowhere" in str(error) and "\n" not in str(error)
    run(f"%docker rmi {name}")


def test_a_configuration_that_is_none(run: Run, address: str) -> None:
    file = Path(os.environ["DOCKER_CONFIG"]) / "config.json"
    file.parent.mkdir()
    file.write_text("{nonsense")
    error = run(f"%docker login -u {USER} -p '{PASSWORD}' {address}").error
    assert isinstance(error, DockmagicError) and str(file) in str(error)


def test_a_wrong_password_is_not_kept(run: Run, address: str) -> None:
    ran = run(f"%docker login -u {USER} -p wrong {address}")
    assert "Error response from daemon: " in str(ran.error) and "401 Unauthorized" in str(ran.error)
    assert not (Path(os.environ["DOCKER_CONFIG"]) / "config.json").exists()


def test_the_rest_of_the_configuration_stays(run: Run, address: str) -> None:
    file = Path(os.environ["DOCKER_CONFIG"]) / "config.json"
    file.parent.mkdir()
    file.write_text('{"psFormat": "table {{.ID}}"}')
    run(f"%docker login -u {USER} -p '{PASSWORD}' {address}")
    assert list(accounts()) == [address]
    assert json.loads(file.read_text())["psFormat"] == "table {{.ID}}"
    assert file.stat().st_mode & 0o077 == 0


def test_a_registry_without_a_search_says_so(run: Run) -> None:
    ran = run("%docker search box")
    assert "search" in str(ran.error) and "\n" not in str(ran.error)
