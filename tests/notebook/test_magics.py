"""Words of a line, Python values in them, and which magics of a cell can await."""

from pathlib import Path

import pytest

from dockmagic.errors import UsageMistake
from dockmagic.magics import expand, rewrite, split

AWAITED = "await get_ipython().magics_manager.registry['DockerMagics']"


class Named:
    name = "web"


def test_words_are_split_as_a_shell_does() -> None:
    assert split("""run -e "A=x y" busybox sh -c 'echo $HOME {x}' a\\ b""") == [
        "run", "-e", "A=x y", "busybox", "sh", "-c", "echo $HOME {x}", "a b",
    ]  # fmt: skip
    assert split("run -e COLOUR=#fff busybox") == ["run", "-e", "COLOUR=#fff", "busybox"]


def test_a_missing_quote_is_a_mistake_and_not_a_traceback() -> None:
    with pytest.raises(UsageMistake, match="no closing quotation"):
        split("run 'busybox")


def test_expansion_keeps_a_value_one_word() -> None:
    space = {"password": "a b; rm -rf {x}", "web": Named(), "n": 2, "many": [Named(), "db"]}
    assert expand(["-e", "P={password}"], space) == ["-e", "P=a b; rm -rf {x}"]
    assert expand(["{web}", "{n + 1}", "x{n}y"], space) == ["web", "3", "x2y"]
    assert expand(["rm", "{many}"], space) == ["rm", "web", "db"]
    assert expand(["{{.Names}}"], space) == ["{{.Names}}"]
    assert expand(["{path}"], {"path": Path("/a b/c")}) == ["/a b/c"]


def test_a_wrong_expression_is_one_line() -> None:
    with pytest.raises(UsageMistake, match="NameError: name 'nope' is not defined"):
        expand(["{nope}"], {})


def test_magics_are_awaited_where_python_allows_it() -> None:
    source = (
        "x = 'ü'; y = get_ipython().run_line_magic('docker', 'ps')\n"
        "for i in range(2):\n"
        "    get_ipython().run_line_magic('container', 'ls')\n"
        "get_ipython().run_cell_magic('dockerfile', '-t x', 'FROM y\\n')\n"
    )
    assert rewrite(source) == (
        f"x = 'ü'; y = {AWAITED}.line('docker', 'ps')\n"
        "for i in range(2):\n"
        f"    {AWAITED}.line('container', 'ls')\n"
        f"{AWAITED}.cell('dockerfile', '-t x', 'FROM y\\n')\n"
    )


def test_in_a_coroutine_too() -> None:
    source = "async def f():\n    return get_ipython().run_line_magic('docker', 'ps')\n"
    assert f"return {AWAITED}.line('docker', 'ps')" in rewrite(source)


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    get_ipython().run_line_magic('docker', 'ps')\n",
        "class A:\n    x = get_ipython().run_line_magic('docker', 'ps')\n",
        "f = lambda: get_ipython().run_line_magic('docker', 'ps')\n",
        "get_ipython().run_line_magic('time', 'x()')\n",
        "text = \"get_ipython().run_line_magic('docker', 'ps')\"\n",
        "this is no python get_ipython().run_line_magic('docker', 'ps')\n",
    ],
)
def test_what_cannot_await_is_left_alone(source: str) -> None:
    assert rewrite(source) == source
