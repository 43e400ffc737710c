"""The `dockmagic` command of a terminal."""

import subprocess
import sys


def dockmagic(*words: str) -> "subprocess.CompletedProcess[str]":
    code = "from dockmagic.command import main; main(prog_name='dockmagic')"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


def test_version() -> None:
    assert dockmagic("version").stdout == "dockmagic 0.1.0\n"


def test_engine_passes_its_arguments_on() -> None:
    ran = dockmagic("engine", "--help")
    assert ran.returncode == 0
    assert "--data-root" in ran.stdout and "--registry-mirror" in ran.stdout
    assert dockmagic("engine", "--nonsense").returncode != 0


def test_nothing_of_ours_is_imported_before_it_is_needed() -> None:
    modules = "('docker', 'IPython', 'pandas')"
    code = f"import sys, dockmagic.command; print([m for m in {modules} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
