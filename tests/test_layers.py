"""The shape of the repository: imports point down, the two halves stay apart, no file names one machine."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "runtime/dockmagic_runtime"

# A module imports its own layer and those before it. `__main__` starts the engine and is above all.
LAYERS = (
    ("errors", "identifiers", "threads", "timestamps"),
    ("config", "events", "filters", "locking", "streams"),
    ("kernel",),
    ("oci",),
    ("storage",),
    ("registry",),
    ("process",),
    ("images",),
    ("networks",),
    ("volumes",),
    ("containers",),
    ("build",),
    ("api",),
    ("engine",),
    ("serving",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a file, those inside functions and of types only included."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_part_of_the_runtime_has_its_layer() -> None:
    parts = {path.relative_to(RUNTIME).parts[0].removesuffix(".py") for path in sources(RUNTIME)}
    assert parts - {"__init__"} <= set(LEVEL), "give the new part its place in LAYERS"


@pytest.mark.parametrize("path", sources(RUNTIME), ids=identify)
def test_the_runtime_imports_only_downwards(path: Path) -> None:
    own = path.relative_to(RUNTIME).parts[0].removesuffix(".py")
    upward = []
    for line, name in imported(path):
        assert not name.startswith("."), f"{identify(path)}:{line}: imports are absolute"
        part = name.split(".")[1] if name.startswith("dockmagic_runtime.") else ""
        if part in LEVEL and LEVEL[part] > LEVEL.get(own, -1):
            upward.append(f"{identify(path)}:{line}: {own} imports {name}")
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize("package", [RUNTIME, ROOT / "dockmagic"], ids=lambda package: package.name)
def test_no_module_needs_one_that_needs_it(package: Path) -> None:
    """Not even for a type: what two modules say of each other belongs into one, or into a third."""
    modules = {module_name(path, package): path for path in sources(package)}
    needed = {name: set(neighbours(name, path, modules)) for name, path in modules.items()}
    try:
        graphlib.TopologicalSorter(needed).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" needs ".join(reversed(error.args[1])))


def module_name(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def neighbours(importer: str, path: Path, modules: Collection[str]) -> Iterator[str]:
    """The modules that one imports from, but for the package that it is in, which is there before it."""
    for _, name in imported(path):
        module = name if name in modules else name.rpartition(".")[0]
        if module in modules and not f"{importer}.".startswith(f"{module}."):
            yield module


@pytest.mark.parametrize("path", sources(RUNTIME), ids=identify)
def test_the_runtime_knows_nothing_of_notebooks(path: Path) -> None:
    roots = {name.split(".")[0] for _, name in imported(path)}
    assert not roots & {"dockmagic", "IPython", "ipykernel", "ipywidgets", "jupyter_client", "docker"}


@pytest.mark.parametrize("path", sources(ROOT / "dockmagic"), ids=identify)
def test_the_notebook_half_knows_the_engine_only_by_its_api(path: Path) -> None:
    roots = {name.split(".")[0] for _, name in imported(path)}
    assert "dockmagic_runtime" not in roots


def test_the_notebook_half_does_not_require_the_runtime() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [name for name in project["dependencies"] if "runtime" in name]


# The magics run inside a kernel, and speak to it through IPython.
NOT_IMPORTED = {"ipykernel"}


@pytest.mark.parametrize("project", [ROOT, ROOT / "runtime"], ids=["dockmagic", "dockmagic-runtime"])
def test_each_half_requires_what_it_imports(project: Path) -> None:
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    package = project / declared["name"].replace("-", "_")
    imports = {name.split(".")[0] for path in sources(package) for _, name in imported(path)}
    providers = packages_distributions()
    used = {
        canonical(provider)
        for name in imports - sys.stdlib_module_names - {package.name}
        for provider in providers[name]
    }
    required = {canonical(re.split(r"[^\w.-]", entry)[0]) for entry in declared["dependencies"]}
    assert used == required - NOT_IMPORTED


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def kept_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def kept_text() -> Iterator[tuple[Path, str]]:
    """Every kept file that is text, but for the lock file, the licence and this one."""
    for path in kept_files():
        if path.name in ("uv.lock", "LICENSE") or path == Path(__file__).resolve() or not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            yield path, data.decode()


def matches(pattern: str) -> list[str]:
    return [
        f"{identify(path)}: {found[0]}" for path, text in kept_text() for found in re.finditer(pattern, text)
    ]


def test_no_file_names_a_path_of_one_machine() -> None:
    made_up = "me|user|jovyan|alice|bob"
    found = matches(rf"(?<![\w.])/(?:home/(?!(?:{made_up})\b)[a-z]\w*/|Users/\w+/|work/|tmp/dm/|opt/pypi)")
    assert not found, "\n".join(found)


def test_files_speak_of_the_thing_and_not_of_how_it_came_about() -> None:
    found = matches(
        r"(?i)\bissue #?\d+\b|\bshared/(?:design|style|reference)|\bCONTRACT\.md|\bthe architect\b"
    )
    assert not found, "\n".join(found)


def test_no_module_is_named_after_nothing() -> None:
    nameless = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert not [identify(path) for path in kept_files() if path.stem in nameless]
