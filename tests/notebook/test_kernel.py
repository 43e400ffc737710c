"""Tiny notebooks in a real kernel, one for each behaviour: what the front end and its tools see."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from tests.runtime.registry.servers import SilentRegistry

from .conftest import IMAGE, LABEL

Notebook = Callable[..., nbformat.NotebookNode]


def outputs(book: nbformat.NotebookNode, cell: int, kind: str) -> list[Any]:
    return [output for output in book.cells[cell].outputs if output.output_type == kind]


def text(book: nbformat.NotebookNode, cell: int, stream: str = "stdout") -> str:
    return "".join(output.text for output in outputs(book, cell, "stream") if output.name == stream)


def test_loading_says_which_engine(notebook: Notebook, docker_host: str) -> None:
    book = notebook()
    assert text(book, 0).startswith("dockmagic 0.1.0: ")
    assert text(book, 0).rstrip().endswith(docker_host)


def test_errors_are_one_red_line_that_tools_see(notebook: Notebook) -> None:
    book = notebook("%docker run --naem x IMAGE", "%docker logs dockmagic-nosuch", "%docker frobnicate")
    for cell, (kind, words) in enumerate(
        [
            ("UsageMistake", "unknown flag: --naem"),
            ("DockmagicError", "No such container: dockmagic-nosuch"),
            ("UsageMistake", "unknown command: docker frobnicate"),
        ],
        start=1,
    ):
        (error,) = outputs(book, cell, "error")
        assert error.ename == kind
        assert words in error.evalue
        (line,) = error.traceback
        assert line.startswith("\x1b[31m") and "\n" not in line and words in line
        assert not outputs(book, cell, "stream")


def test_output_streams_while_the_program_runs(notebook: Notebook) -> None:
    book = notebook(
        "import time\n"
        "class Clock:\n"
        "    def write(self, text): moments.append(time.monotonic()); real.write(text)\n"
        "    def flush(self): real.flush()\n"
        "import sys; real, moments = sys.stdout, []; sys.stdout = Clock()\n"
        "try:\n"
        "    result = %docker run --rm --network none IMAGE sh -c 'echo 1; sleep 0.4; echo 2'\n"
        "finally:\n"
        "    sys.stdout = real\n"
        "print(moments[-1] - moments[0] > 0.3, result.output.split())"
    )
    assert text(book, 1) == "1\n2\nTrue ['1', '2']\n"


def test_a_result_is_shown_once(notebook: Notebook) -> None:
    book = notebook("%docker run --rm --network none IMAGE echo hello")
    assert text(book, 1) == "hello\n"
    assert not outputs(book, 1, "execute_result")


def test_tables_have_text_and_static_html(notebook: Notebook) -> None:
    book = notebook("%docker images")
    (table,) = outputs(book, 1, "execute_result")
    assert "REPOSITORY" in table.data["text/plain"]
    assert "<table" in table.data["text/html"] and "REPOSITORY" in table.data["text/html"]


def test_under_other_magics(notebook: Notebook) -> None:
    book = notebook(
        "%%capture captured\n%docker run --rm --network none IMAGE echo inside",
        "print(repr(captured.stdout))",
        "%%time\nresult = %docker run --rm --network none IMAGE echo timed",
        "def f():\n    y = %docker run --rm --network none IMAGE echo function\n    return y\nx = f()",
    )
    assert text(book, 2) == "'inside\\n'\n"
    assert text(book, 3).startswith("timed\n")
    assert text(book, 4) == "function\n"
    assert not any(output.output_type == "error" for cell in book.cells for output in cell.outputs)


def test_unload_in_a_kernel(notebook: Notebook) -> None:
    book = notebook(
        "%docker ps -q",
        "%unload_ext dockmagic",
        "import threading\n"
        "print([t.name for t in threading.enumerate() if t.name.startswith('dockmagic')],"
        " [n for n in get_ipython().magics_manager.magics['line'] if n in ('docker', 'container')])",
    )
    assert text(book, 3) == "[] []\n"


class Kernel:
    """A kernel whose cells can be interrupted."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=dict(os.environ))

    def run(self, source: str, *stops: float) -> tuple[list[dict[str, Any]], float]:
        """The messages of a cell, and the seconds from the last of `stops` (seconds from now) to its end."""
        source = source.replace("IMAGE", IMAGE)
        sent = self.client.execute(source)
        timers = [threading.Timer(after, self.manager.interrupt_kernel) for after in stops]
        for timer in timers:
            timer.start()
        begin = time.monotonic()
        messages = []
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != sent:
                continue
            messages.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return messages, time.monotonic() - begin - (max(stops) if stops else 0)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(docker_host: str) -> Iterator[Kernel]:
    kernel = Kernel()
    kernel.run("%load_ext dockmagic")
    yield kernel
    kernel.close()


def errors(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"]["ename"] for message in messages if message["msg_type"] == "error"]


@pytest.mark.parametrize("place", ["{}", "def f():\n    {}\nf()"], ids=["awaited", "blocking"])
@pytest.mark.parametrize(
    "line", ["logs -f NAME", "wait NAME", "events", "exec NAME sleep 100", "stop -t 100 NAME"]
)
def test_stop_ends_every_wait(kernel: Kernel, name: str, line: str, place: str) -> None:
    # A shell that handles SIGTERM by doing nothing: `stop` has to wait for its time.
    kernel.run(
        f"%docker run -d --network none --name {name} IMAGE sh -c 'trap : TERM; while :; do sleep 1; done'"
    )
    messages, seconds = kernel.run(place.format(f"%docker {line.replace('NAME', name)}"), 0.5)
    assert errors(messages) == ["Interrupted"]
    assert seconds < 0.3, "100 ms in the kernel, and the way of its messages"
    messages, _ = kernel.run("%docker ps -q")
    assert errors(messages) == []


def test_stop_of_a_build_ends_its_step_and_its_picture(kernel: Kernel, docker_host: str) -> None:
    kernel.run("import os; os.environ['DOCKMAGIC_LIVE'] = '1'")
    build = "%%dockerfile -t dockmagic-test/stopped\nFROM IMAGE\nRUN echo one\nRUN sleep SECONDS\nCMD x\n"
    messages, seconds = kernel.run(build.replace("SECONDS", "1000"), 3)
    assert errors(messages) == ["Interrupted"]
    assert seconds < 0.3
    pictures = [m["content"]["data"]["text/plain"] for m in messages if "display" in m["msg_type"]]
    assert re.search(r"… running +[1-9]\.\d", "".join(pictures)), "the seconds go on while nothing is said"
    assert [line.split()[-3:-1] for line in pictures[-1].splitlines() if "sleep" in line] == [
        ["○", "stopped"]
    ]
    assert "not run" in pictures[-1] and "waiting" not in pictures[-1]
    messages, _ = kernel.run(build.replace("SECONDS", "0"))
    assert errors(messages) == [], "the next build is as if nothing had been"
    client = docker.DockerClient(base_url=docker_host)
    client.images.remove("dockmagic-test/stopped")
    client.close()


@pytest.mark.parametrize("command", ["pull", "push"])
def test_stop_ends_a_transfer_of_which_nothing_is_told(kernel: Kernel, command: str) -> None:
    with SilentRegistry() as silent:
        name = f"{silent.address}/slow:1"
        kernel.run(f"%docker tag IMAGE {name}")
        messages, seconds = kernel.run(f"%image {command} {name}", 1.0)
        assert errors(messages) == ["Interrupted"] and seconds < 0.5
        assert silent.asked.is_set() and silent.let_go.wait(10)
        kernel.run(f"%docker rmi {name}")


def test_stop_is_ctrl_c_for_a_foreground_container(kernel: Kernel, docker_host: str, name: str) -> None:
    script = 'trap "echo caught; exit 7" INT; echo ready; while :; do sleep 0.1; done'
    messages, seconds = kernel.run(f"%docker run --network none --name {name} IMAGE sh -c '{script}'", 1.5)
    assert errors(messages) == ["Interrupted"]
    shown = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
    assert shown == "ready\ncaught\n"
    assert seconds < 1
    client = docker.DockerClient(base_url=docker_host)
    assert client.containers.get(name).attrs["State"]["ExitCode"] == 7
    client.close()


def test_a_program_that_ignores_ctrl_c_is_killed(kernel: Kernel, docker_host: str, name: str) -> None:
    messages, _ = kernel.run(
        f"%docker run --stop-timeout 1 --network none --name {name} IMAGE sleep 100", 1.0
    )
    assert errors(messages) == ["Interrupted"]
    client = docker.DockerClient(base_url=docker_host)
    assert client.containers.get(name).attrs["State"]["ExitCode"] == 137
    client.close()


def test_the_second_stop_ends_the_cell_and_the_container_all_the_same(
    kernel: Kernel, docker_host: str, name: str
) -> None:
    line = f"%docker run --stop-timeout 2 --network none --name {name} IMAGE sleep 100"
    messages, seconds = kernel.run(line, 1.0, 1.4)
    assert errors(messages) == ["Interrupted"]
    assert seconds < 0.3
    client = docker.DockerClient(base_url=docker_host)
    assert client.api.wait(name, timeout=10)["StatusCode"] == 128 + signal.SIGKILL
    client.close()


def test_stop_while_attached_interrupts_the_container(kernel: Kernel, docker_host: str, name: str) -> None:
    script = 'trap "echo caught; exit 7" INT; while :; do sleep 0.1; done'
    kernel.run(f"%docker run -d --network none --name {name} IMAGE sh -c '{script}'")
    messages, seconds = kernel.run(f"%docker attach {name}", 0.7)
    assert errors(messages) == ["Interrupted"]
    assert "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream") == "caught\n"
    assert seconds < 1
    client = docker.DockerClient(base_url=docker_host)
    assert client.containers.get(name).attrs["State"]["ExitCode"] == 7
    client.close()


def test_without_sig_proxy_stop_leaves_the_program_alone(kernel: Kernel, docker_host: str, name: str) -> None:
    first = f"run --name {name} --network none --sig-proxy=false IMAGE sleep 100"
    for line in (first, f"attach --sig-proxy=false {name}"):
        messages, seconds = kernel.run(f"%docker {line}", 1.0)
        assert errors(messages) == ["Interrupted"]
        assert seconds < 0.3
    client = docker.DockerClient(base_url=docker_host)
    assert client.containers.get(name).status == "running"
    client.close()


def test_detached_containers_are_not_interrupted(kernel: Kernel, docker_host: str, name: str) -> None:
    kernel.run(f"%docker run -d --network none --name {name} IMAGE sleep 100")
    kernel.run("import time; time.sleep(5)", 0.3)
    client = docker.DockerClient(base_url=docker_host)
    assert client.containers.get(name).status == "running"
    client.close()


def test_widgets_live_while_a_cell_waits(kernel: Kernel, name: str) -> None:
    """A comm message is handled while a magic waits: that is what buttons and live pictures need."""
    kernel.run(
        "import comm\n"
        "heard = []\n"
        "def opened(channel, message):\n"
        "    channel.on_msg(lambda m: heard.append(m['content']['data']))\n"
        "comm.get_comm_manager().register_target('test', opened)\n"
    )
    kernel.client.shell_channel.send(
        kernel.client.session.msg("comm_open", {"comm_id": "c1", "target_name": "test", "data": {}})
    )
    message = kernel.client.session.msg("comm_msg", {"comm_id": "c1", "data": {"pressed": 1}})
    timer = threading.Timer(0.7, kernel.client.shell_channel.send, (message,))
    timer.start()
    messages, _ = kernel.run(
        "result = %docker run --rm --network none IMAGE sleep 2\n"
        "print('during' if heard else 'not while waiting')"
    )
    shown = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
    assert shown == "during\n"
    assert LABEL
