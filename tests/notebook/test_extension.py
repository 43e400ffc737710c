"""Load and unload: the shell has afterwards exactly what it had before."""

import subprocess
import sys
import threading
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from .conftest import IMAGE, LABEL


def registered(shell: InteractiveShell) -> dict[str, Any]:
    """Everything of a shell that an extension can add to."""
    formatter: Any = shell.display_formatter
    formatters = [
        *formatter.formatters.values(),
        formatter.mimebundle_formatter,
        formatter.ipython_display_formatter,
    ]
    return {
        "magics": {kind: dict(names) for kind, names in shell.magics_manager.magics.items()},
        "registry": dict(shell.magics_manager.registry),
        "transformers": [*shell.input_transformers_post, *shell.input_transformers_cleanup],
        "syntax": list(shell.ast_transformers),
        "events": {name: list(callbacks) for name, callbacks in shell.events.callbacks.items()},
        "formatters": [
            (dict(f.type_printers), dict(f.deferred_printers), dict(f.singleton_printers)) for f in formatters
        ],
        "configurables": list(shell.configurables),
        "names": set(shell.user_ns) - {"_i", "_ii", "_iii", "_", "__", "___", "_exit_code"},
        "threads": {t.name for t in threading.enumerate() if t.name.startswith("dockmagic")},
    }


def test_unload_leaves_nothing(docker_host: str, shell: InteractiveShell) -> None:
    shell.run_cell(
        "%unload_ext dockmagic", silent=True
    )  # IPython itself registers some magics when first used
    before = registered(shell)
    assert shell.run_cell("%load_ext dockmagic", silent=True).success
    assert registered(shell) != before
    line = f"web = %container create --label {LABEL}=1 --network none {IMAGE} true\ndisplay(web)\n%docker ps"
    assert shell.run_cell(line, silent=True).success
    assert shell.run_cell("del web\n%unload_ext dockmagic", silent=True).success
    assert registered(shell) == before


def test_load_again(docker_host: str, shell: InteractiveShell) -> None:
    for _ in range(2):
        assert shell.run_cell("%load_ext dockmagic", silent=True).success
        assert shell.run_cell("%docker ps -q", silent=True).success
        assert shell.run_cell("%unload_ext dockmagic", silent=True).success
    assert not shell.run_cell("%docker ps -q", silent=True).success


def test_a_container_has_a_card_and_one_that_is_gone_too(docker_host: str, shell: InteractiveShell) -> None:
    assert shell.run_cell("%load_ext dockmagic", silent=True).success
    create = f"web = %container create --network none {IMAGE} true\nweb"
    web = shell.run_cell(create, store_history=False).result
    assert shell.display_formatter is not None
    bundle, _ = shell.display_formatter.format(web)
    assert web.name in bundle["text/plain"] and web.name in bundle["text/html"]
    assert shell.run_cell(f"%docker rm {web.name}", silent=True).success
    bundle, _ = shell.display_formatter.format(web)
    assert "removed" in bundle["text/plain"] and "<table" in bundle["text/html"]


def test_imports_are_late() -> None:
    """Neither loading the extension nor the grammar imports what costs a second."""
    modules = ("pandas", "matplotlib", "ipywidgets", "docker", "dockmagic_runtime")
    code = (
        "import sys, dockmagic.extension, dockmagic.grammar; "
        f"print([name for name in {modules} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
