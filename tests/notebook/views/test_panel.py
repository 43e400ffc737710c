"""Panels: what a click does, what a panel shows afterwards, and that nothing of it stays behind."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from IPython.core.interactiveshell import InteractiveShell

from dockmagic.views import panel as panels
from dockmagic.views.cards import ContainerCard
from dockmagic.views.layers import Layers
from dockmagic.views.namespaces import Namespaces
from dockmagic.views.panel import Action, Panel
from dockmagic.views.parts import Note
from dockmagic.views.ports import PortMap
from dockmagic.views.resources import Resources
from dockmagic.views.view import View

WIDGET = "application/vnd.jupyter.widget-view+json"
PORT = 18124


@pytest.fixture
def web(client: docker.DockerClient) -> Container:
    client.images.pull("busybox", tag="latest")
    return client.containers.run(
        "busybox",
        ["sleep", "1000"],
        detach=True,
        init=True,
        name="web",
        ports={"80/tcp": ("127.0.0.1", PORT)},
    )


@pytest.fixture(autouse=True)
def watched_and_nothing_left(web: Container, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKMAGIC_LIVE", "1")
    yield
    panels.close_all()
    wait_for(lambda: not background(), "the threads of closed panels end")


def background() -> list[str]:
    names = ("dockmagic-panel", "dockmagic-action")
    return [thread.name for thread in threading.enumerate() if thread.name in names]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def said(panel: Panel) -> str:
    """The sentence below the buttons."""
    return panel.children[2].value


def possible(panel: Panel) -> set[str]:
    return {label for label, button in panel.buttons.items() if not button.disabled}


def test_clicks_stop_start_and_remove_the_container(web: Container) -> None:
    panel = ContainerCard(web).panel()
    content = panel.children[0]
    assert "● running" in content.value
    assert possible(panel) == {"Stop", "Restart"}
    panel.buttons["Stop"].click()
    wait_for(lambda: "Start" in possible(panel), "stopped")
    web.reload()
    assert web.status == "exited"
    assert "exited with code" in content.value
    assert panel.html() == content.value
    panel.buttons["Start"].click()
    wait_for(lambda: "Stop" in possible(panel), "started")
    assert "● running" in content.value
    panel.buttons["Stop"].click()
    wait_for(lambda: "Remove" in possible(panel), "stopped again")
    panel.buttons["Remove"].click()
    wait_for(lambda: "○ removed" in content.value and not panel._busy, "removed")
    assert possible(panel) == set()
    wait_for(lambda: not background(), "nobody listens for a container that is gone")


def test_a_restart_is_seen(web: Container) -> None:
    panel = ContainerCard(web).panel()
    before = web.attrs["State"]["Pid"]
    panel.buttons["Restart"].click()
    wait_for(lambda: not panel._busy, "restarted")
    web.reload()
    assert web.status == "running"
    assert web.attrs["State"]["Pid"] != before


def test_the_card_follows_what_others_do(web: Container, client: docker.DockerClient) -> None:
    panel = ContainerCard(web).panel()
    client.containers.get("web").pause()
    wait_for(lambda: "‖ paused" in panel.children[0].value, "paused")
    client.containers.get("web").unpause()
    wait_for(lambda: "● running" in panel.children[0].value, "unpaused")


def test_a_failure_is_one_sentence_in_the_panel(web: Container, client: docker.DockerClient) -> None:
    web.stop()
    panel = ContainerCard(web).panel()
    client.containers.run(
        "busybox", ["sleep", "1000"], detach=True, init=True, ports={"80/tcp": ("127.0.0.1", PORT)}
    )
    panel.buttons["Start"].click()
    wait_for(lambda: "port is already allocated" in said(panel), "the sentence is shown")
    assert "Error response from daemon" in said(panel)
    assert "Traceback" not in said(panel)
    assert "Start" in possible(panel), "it may be tried again"


def test_words_are_escaped() -> None:
    def fail() -> None:
        raise docker.errors.DockerException("<script>no</script>")

    panel = Panel(lambda: View(Note("a")), [Action("Try", "Try it", fail)])
    panel.buttons["Try"].click()
    wait_for(lambda: "&lt;script&gt;" in said(panel), "the sentence is shown")


def test_every_button_has_words(web: Container, client: docker.DockerClient) -> None:
    for panel in (ContainerCard(web).panel(), PortMap(client).panel()):
        for label, button in panel.buttons.items():
            assert button.description == label
            assert button.tooltip


def test_a_refresh_reads_again(web: Container, client: docker.DockerClient) -> None:
    namespaces, layers = Namespaces(client, web).panel(), Layers(client, web).panel()
    ports = PortMap(client, web).panel()
    assert "≠ its own" in namespaces.children[0].value
    assert f"127.0.0.1:{PORT}" in ports.children[0].value
    assert "/made" not in layers.children[0].value
    web.exec_run(["touch", "/made"])
    web.stop()
    for panel in (namespaces, layers, ports):
        panel.buttons["Refresh"].click()
        wait_for(lambda panel=panel: not panel._busy, "read")
    assert "web is not running" in namespaces.children[0].value
    assert "added    /made" in layers.children[0].value
    assert "No port is published." in ports.children[0].value


def test_resources_go_on_until_paused(web: Container, client: docker.DockerClient) -> None:
    picture = Resources(client, web, seconds=1)
    read = len(picture.samples)
    panel = picture.panel()
    wait_for(lambda: len(picture.samples) > read + 1, "it goes on reading")
    assert "Resources of web" in panel.children[0].value
    panel.buttons["Pause"].click()
    wait_for(lambda: possible(panel) == {"Continue"}, "paused")
    read = len(picture.samples)
    time.sleep(1.5)
    assert len(picture.samples) == read
    panel.buttons["Continue"].click()
    wait_for(lambda: len(picture.samples) > read, "it goes on")
    times = [sample.at for sample in picture.samples]
    assert times == sorted(times)
    panel.close()
    wait_for(lambda: not background(), "it ends with the panel")


def test_closed_it_shows_its_last_picture(web: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKMAGIC_LIVE", "1")
    panel = ContainerCard(web).panel()
    bundle = panel._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", WIDGET}
    assert bundle["text/html"] == panel.children[0].value
    panel.close()
    panel.close()
    assert set(panel._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_in_a_batch_it_is_its_picture(web: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKMAGIC_LIVE", "0")
    assert set(ContainerCard(web).panel()._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_from_a_notebook_and_gone_with_the_extension(
    run: Any, shell: InteractiveShell, web: Container
) -> None:
    by_command = run("%container panel web").value
    by_value = run("web = %docker start web\nweb.panel()").value
    assert "● running" in by_command.text()
    assert by_command.text() == by_value.text()
    shell.run_cell("%unload_ext dockmagic", silent=True)
    assert by_command.ended.is_set()
    assert by_value.ended.is_set()
    assert not hasattr(Container, "panel")
