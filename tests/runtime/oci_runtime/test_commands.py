"""Each command of the OCI runtime, on real containers."""

import json
import os
import pty
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from dockmagic_runtime.oci.runtime import validate

from .conftest import COMMAND, Runtime


def test_create_start_state_kill_delete(runtime: Runtime) -> None:
    runtime.create("trap 'exit 7' TERM; while :; do sleep 0.05; done")
    state = runtime.state()
    assert (state["status"], state["id"], state["bundle"]) == ("created", runtime.id, str(runtime.bundle))
    assert state["pid"] in runtime.cgroup.pids()
    runtime.ok("start", runtime.id)
    assert runtime.status() == "running"
    runtime.ok("kill", runtime.id, "TERM")
    runtime.await_status("stopped")
    assert runtime.state()["pid"] == 0
    runtime.ok("delete", runtime.id)
    assert "container does not exist" in runtime("state", runtime.id).stderr


def test_run_passes_output_and_exit_code_on(runtime: Runtime) -> None:
    runtime.process["args"] = ["sh", "-c", "read line; echo got $line; echo err >&2; exit 42"]
    runtime.write()
    done = runtime("run", runtime.id, input="hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (42, "got hello\n", "err\n")
    assert json.loads(runtime.ok("list", "--format", "json")) == []


def test_run_ends_with_128_plus_the_signal(runtime: Runtime) -> None:
    runtime.process["args"] = ["sleep", "100"]
    runtime.linux["namespaces"] = [n for n in runtime.linux["namespaces"] if n["type"] != "pid"]
    runtime.write()
    with subprocess.Popen(
        [COMMAND, "--root", runtime.root, "run", runtime.id], cwd=runtime.bundle
    ) as process:
        while (listed := runtime("state", runtime.id)).returncode or '"running"' not in listed.stdout:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


def test_nothing_is_left_of_a_create_that_fails(runtime: Runtime) -> None:
    runtime.process["args"] = ["/no/such/program"]
    runtime.write()
    done = runtime("create", runtime.id)
    assert done.returncode == 1
    assert "no such file or directory" in done.stderr
    assert runtime.ok("list", "-q") == ""
    assert not runtime.cgroup.exists()


def test_an_id_is_taken_once(runtime: Runtime) -> None:
    runtime.create()
    done = runtime("create", runtime.id)
    assert done.returncode == 1
    assert "container with given ID already exists" in done.stderr
    assert runtime.status() == "created"


@pytest.mark.parametrize("bad", ["../x", "a/b", ".", "..", "", "ü"])
def test_odd_ids_are_refused(runtime: Runtime, bad: str) -> None:
    runtime.write()
    assert "invalid container ID format" in runtime("create", bad).stderr


def test_what_the_state_forbids(runtime: Runtime) -> None:
    runtime.create()
    runtime.ok("start", runtime.id)
    assert "cannot start an already running container" in runtime("start", runtime.id).stderr
    assert "that is not stopped: running" in runtime("delete", runtime.id).stderr
    assert "container not paused" in runtime("resume", runtime.id).stderr
    runtime.ok("kill", runtime.id, "SIGKILL")
    runtime.await_status("stopped")
    assert "container not running" in runtime("kill", runtime.id, "9").stderr
    assert "cannot start a container that has stopped" in runtime("start", runtime.id).stderr
    assert "cannot exec in a stopped container" in runtime("exec", runtime.id, "true").stderr


def test_delete_of_a_created_and_forced_of_a_running_one(runtime: Runtime) -> None:
    runtime.create()
    runtime.ok("delete", runtime.id)
    runtime.create()
    runtime.ok("start", runtime.id)
    runtime.ok("delete", "--force", runtime.id)
    runtime.ok("delete", "--force", runtime.id)
    assert "container does not exist" in runtime("delete", runtime.id).stderr


def test_delete_kills_what_outlives_the_first_process(runtime: Runtime) -> None:
    runtime.linux["namespaces"] = [n for n in runtime.linux["namespaces"] if n["type"] != "pid"]
    runtime.create("sleep 100 & exit 0")
    runtime.ok("start", runtime.id)
    runtime.await_status("stopped")
    (left,) = runtime.cgroup.pids()
    runtime.ok("delete", runtime.id)
    assert not Path(f"/proc/{left}").exists() or "Z" in Path(f"/proc/{left}/stat").read_text()


def test_pause_and_resume(runtime: Runtime) -> None:
    runtime.create("while :; do date +%N > /tick; sleep 0.01; done")
    runtime.ok("start", runtime.id)
    runtime.ok("pause", runtime.id)
    assert runtime.status() == "paused"
    tick = runtime.rootfs / "tick"
    before = tick.read_text() if tick.exists() else ""
    assert "cannot exec in a paused container" in runtime("exec", runtime.id, "true").stderr
    assert (tick.read_text() if tick.exists() else "") == before
    runtime.ok("resume", runtime.id)
    assert runtime.status() == "running"
    runtime.ok("pause", runtime.id)
    runtime.ok("kill", runtime.id, "KILL")
    runtime.await_status("stopped")


def test_exec(runtime: Runtime) -> None:
    runtime.create()
    runtime.ok("start", runtime.id)
    script = "read x; echo $x; id -u; pwd; echo $A; tr '\\0' ' ' < /proc/1/cmdline; exit 5"
    options = ("--user", "1000:1000", "--cwd", "/tmp", "--env", "A=b")
    done = runtime("exec", *options, runtime.id, "sh", "-c", script, input="in\n")
    assert done.stdout.split("\n")[:4] == ["in", "1000", "/tmp", "b"], done.stderr
    assert "sleep 100" in done.stdout
    assert done.returncode == 5
    missing = runtime("exec", runtime.id, "nope")
    assert (missing.returncode, missing.stdout) == (255, "")
    assert 'exec: \\"nope\\": executable file not found in $PATH' in missing.stderr


def test_exec_detached_of_a_process_file(runtime: Runtime) -> None:
    runtime.create()
    runtime.ok("start", runtime.id)
    process = {**runtime.process, "args": ["sleep", "77"]}
    (runtime.bundle / "process.json").write_text(json.dumps(process))
    quiet = {"capture_output": False, "stdout": subprocess.DEVNULL}
    runtime.ok("exec", "-d", "--pid-file", "pid", "--process", "process.json", runtime.id, **quiet)
    pid = int((runtime.bundle / "pid").read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0077\0"
    assert pid in json.loads(runtime.ok("ps", "-f", "json", runtime.id))


def test_ps_and_list(runtime: Runtime) -> None:
    runtime.create("sleep 55; :")
    runtime.ok("start", runtime.id)
    pid = runtime.state()["pid"]
    table = runtime.ok("ps", runtime.id)
    assert "sleep 55" in table
    assert str(pid) in table
    assert str(os.getpid()) not in table.split()
    header, row = runtime.ok("list").splitlines()
    assert header.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert row.split()[:4] == [runtime.id, str(pid), "running", str(runtime.bundle)]
    assert runtime.ok("list", "--quiet").split() == [runtime.id]


def test_update(runtime: Runtime) -> None:
    runtime.create()
    runtime.ok("update", "--memory", str(64 << 20), "--pids-limit", "17", "--cpu-quota", "20000", runtime.id)
    stats = runtime.cgroup.stats()
    assert (stats.memory_limit, stats.pids_limit) == (64 << 20, 17)
    changes = {"memory": {"limit": 96 << 20, "swap": 96 << 20}, "cpu": {"shares": 0}}
    runtime.ok("update", "-r", "-", runtime.id, input=json.dumps(changes))
    assert runtime.cgroup.stats().memory_limit == 96 << 20
    assert (
        "resources.memory.limit: not a number"
        in runtime("update", "-r", "-", runtime.id, input='{"memory": {"limit": "much"}}').stderr
    )


def test_terminal_through_a_console_socket(runtime: Runtime, tmp_path: Path) -> None:
    runtime.process["terminal"] = True
    runtime.process["consoleSize"] = {"height": 33, "width": 101}
    path = str(tmp_path / "console")
    masters: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def take() -> None:
            channel, _ = listener.accept()
            with channel:
                masters.extend(socket.recv_fds(channel, 64, 1)[1])

        taking = threading.Thread(target=take)
        taking.start()
        runtime.process["args"] = ["sh", "-c", "tty; stty size; sleep 0.2"]
        runtime.write()
        runtime.ok("create", "--console-socket", path, runtime.id)
        taking.join(10)
    runtime.ok("start", runtime.id)
    output = b""
    with pytest.raises(OSError):
        while chunk := os.read(masters[0], 1000):
            output += chunk
    os.close(masters[0])
    assert output.split() == [b"/dev/pts/0", b"33", b"101"]


def test_terminal_in_the_foreground(runtime: Runtime) -> None:
    runtime.process["terminal"] = True
    runtime.process["args"] = ["sh", "-c", "tty; read x; echo got $x; exit 3"]
    runtime.write()
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(runtime.bundle)
        os.execv(COMMAND, [str(COMMAND), "--root", str(runtime.root), "run", runtime.id])
    output = b""
    os.write(master, b"word\n")
    try:
        while chunk := os.read(master, 1000):
            output += chunk
    except OSError:  # EIO: the other side has closed it
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    os.close(master)
    assert b"/dev/pts/0" in output
    assert b"got word" in output


def test_a_terminal_nobody_serves_is_refused(runtime: Runtime) -> None:
    runtime.process["terminal"] = True
    assert runtime.refused() == "cannot allocate tty if runtime will detach without setting console socket"


def test_preserved_descriptors_and_no_others(runtime: Runtime) -> None:
    reader, writer = os.pipe()
    runtime.process["args"] = ["sh", "-c", "echo through >&3; ls /proc/self/fd"]
    runtime.write()
    # The shell places them: Popen would close everything above 2.
    command = (
        f"exec {COMMAND} --root {runtime.root} run --preserve-fds 1 {runtime.id} 3>&{writer} 9</dev/null"
    )
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=runtime.bundle,
        pass_fds=[writer],
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert lines.read() == "through\n"
    # 4 is the directory that ls reads.
    assert done.stdout.split() == ["0", "1", "2", "3", "4"]


def test_pid_file_and_config_option(runtime: Runtime) -> None:
    runtime.create()
    runtime.ok("delete", runtime.id)
    (runtime.bundle / "config.json").rename(runtime.bundle / "other.json")
    quiet = {"capture_output": False, "stdout": subprocess.DEVNULL}
    runtime.ok("create", "--config", "other.json", "--pid-file", "pid", runtime.id, **quiet)
    assert int((runtime.bundle / "pid").read_text()) == runtime.state()["pid"]


def test_no_pivot(runtime: Runtime) -> None:
    runtime.process["args"] = ["ls", "/"]
    runtime.write()
    assert "bin" in runtime.ok("run", "--no-pivot", runtime.id).split()


def test_errors_in_the_log(runtime: Runtime) -> None:
    log = runtime.bundle / "log"
    done = runtime("--log", str(log), "--log-format", "json", "state", "nobody")
    assert done.stderr == "container does not exist\n"
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist")
    runtime("--log", str(log), "--log-format", "text", "--debug", "state", "nobody")
    assert 'level=debug msg="--root' in log.read_text()


@pytest.mark.parametrize("options", [("--systemd-cgroup",), ("--cgroup-manager", "systemd")])
def test_the_systemd_manager_is_refused_clearly(runtime: Runtime, options: tuple[str, ...]) -> None:
    runtime.write()
    done = runtime(*options, "create", runtime.id)
    assert done.returncode == 1
    assert "systemd" in done.stderr


def test_spec_writes_a_valid_config_once(runtime: Runtime) -> None:
    runtime.ok("spec")
    validate(json.loads((runtime.bundle / "config.json").read_text()))
    assert "file config.json exists. Remove it first" in runtime("spec").stderr


def test_features_tell_the_truth(runtime: Runtime) -> None:
    document = json.loads(runtime.ok("features"))
    assert document["hooks"][0] == "prestart"
    options = set(document["mountOptions"])
    assert {"ro", "rro", "rbind", "tmpcopyup", "nosymfollow"} <= options
    assert not {"idmap", "size=1"} & options
    kinds = {"ipc", "mount", "network", "pid", "uts"}
    assert kinds <= set(document["linux"]["namespaces"])
    assert document["linux"]["cgroup"]["systemd"] is False


def test_version() -> None:
    text = subprocess.check_output([COMMAND, "--version"], text=True)
    assert text.startswith("dockmagic-runtime version ")
    assert "\nspec: 1." in text
