"""`%docker`, a magic for each noun, and `%%dockerfile`: thin, they hand words to the grammar.

    %docker run -d --name web -p 8080:80 nginx      anything that the docker command understands
    web = %container run -d nginx                   the value is docker-py's object
    %%container run -i python:3.11 python -         the cell's body is the program's stdin
    %%dockerfile -t my-app --context .              the cell's body is the Dockerfile

Nothing of IPython's is expanded in a line: `$HOME` and `{{.Names}}` reach Docker as they are. Asked for with
`--expand` as the first word, `{expression}` is the value of a Python expression: always as one word, whatever
it holds, or as one word for each item where a list stands alone:

    %docker --expand run -e PASSWORD={password} postgres
    %docker --expand rm -f {containers}

How a magic awaits: the magics of a cell are rewritten after IPython's own transformation,
`get_ipython().run_line_magic('docker', …)` into `await <the magics>.line('docker', …)`, wherever Python
allows `await` at that place: at the top of a cell and in `async def`, not in plain functions or classes.
The kernel then runs the cell as a coroutine, as it does for a cell with an `await` of the user's. A cell
that is run by another magic (`%%capture`, `%%time`) or without an event loop (terminal IPython) is left
alone; its magics block, and Stop works there as well.
"""

import ast
import asyncio
import os
import re
import shlex
from collections.abc import Callable
from typing import Any, cast

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_cell_magic, magics_class, no_var_expand

from dockmagic.contexts import Contexts
from dockmagic.errors import UsageMistake
from dockmagic.waiting import Cell, wait_async, wait_blocking

NAMES = frozenset({"docker", "container", "image", "network", "volume", "system", "dockerfile"})


@magics_class
class DockerMagics(Magics):
    """The magics of one shell. `line` and `cell` are what rewritten cells await."""

    def __init__(self, shell: InteractiveShell, contexts: Contexts) -> None:
        super().__init__(shell)
        self.shell: InteractiveShell = shell
        self.contexts = contexts

    @no_var_expand
    @line_cell_magic
    def docker(self, line: str, cell: str | None = None) -> Any:
        """Docker's command line: `%docker ps`, `%docker run …`. `%docker --help` lists the commands."""
        return self._blocking("docker", line, cell)

    @no_var_expand
    @line_cell_magic
    def container(self, line: str, cell: str | None = None) -> Any:
        """Manage containers. `%%container run …`: the cell's body is the program's stdin."""
        return self._blocking("container", line, cell)

    @no_var_expand
    @line_cell_magic
    def image(self, line: str, cell: str | None = None) -> Any:
        """Manage images; `%image layers NAME` shows what one is made of."""
        return self._blocking("image", line, cell)

    @no_var_expand
    @line_cell_magic
    def network(self, line: str, cell: str | None = None) -> Any:
        """Manage networks."""
        return self._blocking("network", line, cell)

    @no_var_expand
    @line_cell_magic
    def volume(self, line: str, cell: str | None = None) -> Any:
        """Manage volumes."""
        return self._blocking("volume", line, cell)

    @no_var_expand
    @line_cell_magic
    def system(self, line: str, cell: str | None = None) -> Any:
        """The engine: `%system info`, `df`, `events`, `prune`, `version`."""
        return self._blocking("system", line, cell)

    @no_var_expand
    @cell_magic
    def dockerfile(self, line: str, cell: str) -> Any:
        """Build an image from the Dockerfile in this cell: `%%dockerfile -t NAME [--context DIR]`."""
        return self._blocking("dockerfile", line, cell)

    async def line(self, name: str, line: str) -> Any:
        """The line magic `name`, awaited."""
        return await self.cell(name, line, None)

    async def cell(self, name: str, line: str, body: str | None) -> Any:
        """The cell magic `name`, awaited."""
        return await wait_async(Cell(body), self._command(name, line))

    def _blocking(self, name: str, line: str, body: str | None) -> Any:
        return wait_blocking(Cell(body), self._command(name, line))

    def _command(self, name: str, line: str) -> Callable[[Cell], Any]:
        """What the command's thread does."""
        words = split(line)
        if words[:1] == ["--expand"]:
            words = expand(words[1:], self.shell.user_ns)
        if name != "docker":
            words.insert(0, name)

        def work(cell: Cell) -> Any:
            from dockmagic import grammar
            from dockmagic.grammar.session import Session

            return grammar.invoke(words, Session(self.contexts, cell))

        return work


def split(line: str) -> list[str]:
    """The words of a line, with a shell's quotes and a shell's comment at the end."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise UsageMistake(f"docker: {str(error).lower()} in: {line}", exit_code=125) from None
    return words


def expand(words: list[str], namespace: dict[str, Any]) -> list[str]:
    """Replace `{expression}` in each word by its value."""
    result: list[str] = []
    for word in words:
        alone = re.fullmatch(r"\{([^{}]+)\}", word)
        value = _evaluate(alone[1], namespace) if alone else None
        if isinstance(value, list | tuple | set):
            result += [_word(item) for item in value]
        else:
            result.append(
                re.sub(r"(?<!\{)\{([^{}]+)\}(?!\})", lambda m: _word(_evaluate(m[1], namespace)), word)
            )
    return result


def _evaluate(expression: str, namespace: dict[str, Any]) -> Any:
    try:
        return eval(expression, namespace)  # the user's own Python, in the user's own namespace
    except Exception as error:  # noqa: BLE001 - whatever the user's expression raises
        raise UsageMistake(
            f"docker: {{{expression}}}: {type(error).__name__}: {error}", exit_code=125
        ) from None


def _word(value: Any) -> str:
    """A docker-py object stands for its name or id; a path, which has a name too, for itself."""
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    for attribute in ("name", "id"):
        text = getattr(value, attribute, None)
        if isinstance(text, str):
            return text
    return str(value)


class Awaiting:
    """Makes a cell's magics awaited ones: an input transformer, and the events that say when to stay out."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._depth = 0

    def pre_execute(self) -> None:
        self._depth += 1

    def post_execute(self) -> None:
        self._depth = max(0, self._depth - 1)

    def __call__(self, lines: list[str]) -> list[str]:
        if self._depth or not self._shell.autoawait or not _in_event_loop():
            return lines
        return rewrite("".join(lines)).splitlines(keepends=True)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def rewrite(source: str) -> str:
    """`source` with its calls of our magics awaited, where Python allows it."""
    if "get_ipython().run_" not in source:
        return source
    try:
        tree = ast.parse(source, type_comments=False)
    except SyntaxError:
        try:
            tree = compile(source, "<cell>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError:
            return source  # the shell reports it
    finder = _MagicCalls()
    finder.visit(tree)
    lines = source.encode().splitlines(keepends=True)
    for call in reversed(finder.found):
        method = b"line" if cast(ast.Attribute, call.func).attr == "run_line_magic" else b"cell"
        row, first = call.lineno - 1, call.args[0]
        lines[row] = (
            lines[row][: call.col_offset]
            + b"await get_ipython().magics_manager.registry['DockerMagics']."
            + method
            + b"("
            + lines[row][first.col_offset :]
        )
    return b"".join(lines).decode()


class _MagicCalls(ast.NodeVisitor):
    """Finds `get_ipython().run_line_magic('docker', …)` outside of plain functions and classes."""

    def __init__(self) -> None:
        self.found: list[ast.Call] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Nothing in here can await."""

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Nothing in here can await."""

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Nothing in here can await."""

    def visit_Call(self, node: ast.Call) -> None:
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Call(func=ast.Name(id="get_ipython"), args=[]),
                    attr="run_line_magic" | "run_cell_magic",
                ),
                args=[ast.Constant(value=str(name)), *_],
            ) if name in NAMES and node.lineno == node.args[0].lineno:
                self.found.append(node)
            case _:
                self.generic_visit(node)
