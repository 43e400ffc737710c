"""Finding and starting engines, and the clear lines when there is none."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
import requests
from IPython.core.interactiveshell import InteractiveShell

from dockmagic import contexts
from dockmagic.contexts import Contexts
from dockmagic.errors import DockmagicError, EngineUnavailable
from tests.conftest import EngineProcess


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKMAGIC_SOCKET", "DOCKMAGIC_DATA_ROOT", "DOCKMAGIC_REGISTRY_MIRROR"):
        monkeypatch.delenv(name, raising=False)


def test_the_socket_is_where_the_runtime_puts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dockmagic_runtime.config import EngineConfig

    assert contexts.own_sockets()[0] == EngineConfig().socket_path
    assert EngineConfig().data_root == contexts.DATA_ROOT
    monkeypatch.setenv("DOCKMAGIC_DATA_ROOT", str(tmp_path))
    assert contexts.own_sockets() == [EngineConfig(data_root=tmp_path).socket_path]


def test_the_order_of_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert contexts.own_sockets()[-1] == tmp_path / "dockmagic/engine.sock"
    monkeypatch.setenv("DOCKER_HOST", "tcp://build.example:2375")
    assert Contexts().find().host == "tcp://build.example:2375"


def test_an_engine_of_docker_host_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(
        EngineUnavailable, match=r"Cannot connect to the engine at unix://.*none.sock"
    ) as caught:
        Contexts().client()
    assert caught.value.exit_code == 125
    assert "\n" not in str(caught.value)


def test_without_root_the_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineUnavailable, match=r"needs root.*sudo dockmagic engine.*DOCKER_HOST"):
        contexts.check_startable()


def test_without_the_runtime_the_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"dockmagic-runtime is not installed: run `%pip install"):
        contexts.check_startable()


def test_on_another_system_the_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(EngineUnavailable, match="runs on Linux only"):
        contexts.check_startable()


def test_a_docker_is_used_where_ours_cannot_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKMAGIC_DATA_ROOT", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(contexts, "DOCKER_SOCKET", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(EngineUnavailable, match="needs root"):
        Contexts().find()
    with socket.socket(socket.AF_UNIX) as docker:
        docker.bind(str(tmp_path / "docker.sock"))
        docker.listen()
        assert Contexts().find().host == f"unix://{tmp_path}/docker.sock"


def test_a_data_root_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("DOCKMAGIC_DATA_ROOT", str(file / "root"))
    with pytest.raises(EngineUnavailable, match=r"data root .* is not writable: .*Set DOCKMAGIC_DATA_ROOT"):
        with contexts.starting_alone():
            pass


def test_a_local_engine_is_not_told_what_is_for_the_network(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client = contexts.connect(contexts.Context("test", engine.address, ""))
    request = requests.Request("GET", "http+docker://localhost/_ping")
    assert "Authorization" not in client.api.prepare_request(request).headers
    assert client.ping()
    client.close()


def test_an_unknown_context() -> None:
    with pytest.raises(DockmagicError, match='context "nosuch": context not found'):
        Contexts().use("nosuch")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Contexts:
    """Contexts which start an engine of their own, on an empty data root."""
    monkeypatch.setenv("DOCKMAGIC_DATA_ROOT", str(tmp_path / "data"))
    return Contexts()


def stop(own: Contexts) -> None:
    """End the engine that `own` started, as a user would."""
    own.close()
    assert own._engine is not None
    own._engine.send_signal(signal.SIGTERM)
    own._engine.wait(20)


def test_an_engine_is_started_found_and_started_again(own: Contexts) -> None:
    client = own.client()
    components = [component["Name"] for component in client.version()["Components"]]
    assert "dockmagic-runtime" in components
    assert own._engine is not None
    assert os.getsid(own._engine.pid) == own._engine.pid, "Stop in the notebook must not reach the engine"

    other = Contexts()
    assert other.client().ping()
    assert other._engine is None, "the second kernel finds the first one's engine"
    other.close()

    own._engine.kill()
    own._engine.wait()
    assert own.client().ping(), "the next command starts it again"
    stop(own)


def test_an_engine_that_cannot_start_says_why(own: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKMAGIC_SOCKET", "/proc/nowhere/engine.sock")
    with pytest.raises(EngineUnavailable) as caught:
        Contexts().client()
    assert "\n" not in str(caught.value) and str(caught.value)


def test_an_engine_that_goes_away_in_the_middle(
    own: Contexts, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.run_cell("%load_ext dockmagic").success
    magics = shell.magics_manager.registry["DockerMagics"].contexts
    assert shell.run_cell("box = %container run -d --network none host sleep 1000").success
    threading.Timer(0.5, magics._engine.kill).start()
    capsys.readouterr()
    result = shell.run_cell("%docker --expand wait {box}")
    assert isinstance(result.error_in_exec, EngineUnavailable)
    shown = capsys.readouterr().out.strip()
    assert "The engine went away in the middle of the command" in shown and "\n" not in shown
    found = shell.run_cell("%docker ps -q --no-trunc", store_history=False).result
    assert found == [shell.user_ns["box"].id], "the next command reconnects, and the container never stopped"
    assert shell.run_cell("%docker --expand rm -f {box}").success
    own._engine = magics._engine
    stop(own)
