"""`%network topology` and `%network trace`: the pictures of what the kernel says."""

from collections.abc import Callable, Iterator

import docker
import pytest

from dockmagic.views.topology import Topology
from dockmagic.views.trace import Trace

from .conftest import Run

SERVER = "busybox nc -ll -p 80 -e cat"


@pytest.fixture
def names(run: Run, name: str, docker_host: str) -> Iterator[str]:
    """Containers NAME-web and NAME-db in a network NAME."""
    run(f"%network create --label LABEL {name}")
    for short in ("web", "db"):
        run(f"%container run -d --name {name}-{short} --network {name} --stop-signal KILL --expose 80 "
            f"--label LABEL IMAGE {SERVER}")  # fmt: skip
        until = "until grep -q ':0050 .* 0A ' /proc/net/tcp /proc/net/tcp6; do :; done"
        run(f'%container exec {name}-{short} busybox sh -c "{until.replace("grep", "busybox grep")}"')
    yield name
    client = docker.DockerClient(base_url=docker_host)
    for short in ("web", "db"):
        client.containers.get(f"{name}-{short}").remove(force=True)
    client.networks.get(name).remove()
    client.close()


def test_topology(run: Run, names: str) -> None:
    shown = run("%network topology").value
    assert isinstance(shown, Topology)
    text, html = shown.text(), shown.html()
    for words in (f"{names}-web", f"{names}-db", "its own containers and outside", "Read from the kernel"):
        assert words in text and words in html
    # Everything in the map is reached with the keyboard and says what it is.
    boxes = sum(each["driver"] == "bridge" for each in shown.data["networks"]) + len(shown.data["containers"])
    assert html.count('tabindex="0"') == html.count("<title>") == boxes + 1
    assert f'aria-label="container {names}-web: in {names} ' in html
    assert list(shown.frame().columns)[:3] == ["Network", "Driver", "Bridge"]


def test_a_live_map_is_drawn_again(run: Run, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("DOCKMAGIC_LIVE", "1")
    panel = run("%network topology --live").value
    try:
        assert f"{names}-late" not in panel.html()
        run(f"%container run -d --name {names}-late --stop-signal KILL --label LABEL IMAGE sleep 1000")
        deadline = time.monotonic() + 20
        while f"{names}-late" not in panel.html():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run(f"%container rm -f {names}-late")
        while f"{names}-late" in panel.html():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        panel.close()
        panel.join()


def test_trace(run: Run, names: str) -> None:
    found = run(f"%network trace {names}-web {names}-db").value
    assert isinstance(found, Trace) and found.reached
    assert f"✓ {names}-web reaches {names}-db." in found.text()
    assert list(found.frame()["Hop"]) == [str(number + 1) for number in range(len(found.data))]
    refused = run(f"%network trace {names}-web {names}-db 81").value
    assert not refused.reached and "✗ refused: the packet arrived" in refused.text()
    assert f"✗ {names}-web does not reach {names}-db." in refused.text()
    assert "No such container" in str(run(f"%network trace {names}-web nosuch").error)


def test_a_real_docker_shows_its_records_and_traces_nothing(
    run: Run, real_docker: None, notebook: Callable[..., object]
) -> None:
    run("%docker context use default")
    shown = run("%network topology").value
    assert not shown.kernel and "from docker inspect" in shown.text()
    assert "this engine cannot trace packets" in str(run("%network trace host other").error)
