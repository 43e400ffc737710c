"""Go templates, as far as `--format` of courses and scripts uses them.

Understood: fields (`{{.State.Status}}`, `{{.}}`, `$`), methods (`{{.Label "key"}}`: a callable field),
variables of `range`, pipes,
`range`/`if`/`with`/`else`/`end`, and the functions `json join upper lower title split index len println
print printf eq ne and or not truncate`. Anything else is refused by name; it is never left out silently.
Reference: Go's text/template and docs.docker.com/engine/cli/formatting.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dockmagic.errors import DockmagicError
from dockmagic.grammar.values import Text

_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:("(?:\\.|[^"\\])*"|`[^`]*`)|(-?\d+(?:\.\d+)?)|(\$\w*(?:\.\w+)*|\.\w+(?:\.\w+)*|\.)|(\w+)|(\||\(|\)|:=|,))"""
)

Scope = dict[str, Any]


def lines(template: str, values: Sequence[Any]) -> Text:
    """One line for each value."""
    if template == "json":
        return Text("\n".join(to_json(value) for value in values))
    rendered = Template(template)
    return Text("\n".join(rendered.render(value) for value in values))


def listing(template: str, rows: Sequence[Mapping[str, Any]], fields: Mapping[str, str]) -> Any:
    """A list with the `--format` of a list command: a template, `json`, or `table TEMPLATE` (a table).

    `fields` are Docker's headings and the fields they stand for.
    """
    if template == "table":
        from dockmagic.views.tables import table

        return table([[row[field] for field in fields.values()] for row in rows], list(fields), "")
    if template.startswith("table "):
        from dockmagic.views.tables import table

        headings = {field: title for title, field in fields.items()}
        parts = re.split(r"\\t|\t", template.removeprefix("table ").strip())
        columns = [_heading(part, headings) for part in parts]
        return table([[Template(part).render(row) for part in parts] for row in rows], columns, "")
    return lines(template.replace("\\t", "\t").replace("\\n", "\n"), rows)


def to_json(value: Any) -> str:
    return json.dumps(_without_methods(value), ensure_ascii=False, separators=(",", ":"), default=str)


def _without_methods(value: Any) -> Any:
    """A row's methods are no part of its JSON."""
    if isinstance(value, Mapping):
        return {key: _without_methods(item) for key, item in value.items() if not callable(item)}
    return [_without_methods(item) for item in value] if isinstance(value, list) else value


def _heading(part: str, headings: Mapping[str, str]) -> str:
    field = re.search(r"\.(\w+)", part)
    if field is None:
        return part
    return headings.get(field[1]) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", field[1]).upper()


class Template:
    """A parsed template. Raises DockmagicError, in Docker's words, for one that it can't read."""

    def __init__(self, source: str) -> None:
        self._pieces = _split(source)
        self._position = 0
        self._nodes = self._block()
        if self._position < len(self._pieces):
            raise _failure(f"unexpected {{{{{self._pieces[self._position][1]}}}}}")

    def render(self, value: Any) -> str:
        out: list[str] = []
        _run(self._nodes, value, {"$": value}, out)
        return "".join(out)

    def _block(self) -> list[tuple[Any, ...]]:
        """Nodes up to an `else` or `end` of the enclosing block, which stays for the caller."""
        nodes: list[tuple[Any, ...]] = []
        while self._position < len(self._pieces):
            is_action, text = self._pieces[self._position]
            word = text.split(maxsplit=1)[0] if text.split() else ""
            if is_action and word in ("else", "end"):
                return nodes
            self._position += 1
            if not is_action:
                nodes.append(("text", text))
            elif word in ("range", "if", "with"):
                nodes.append(self._nested(word, text[len(word) :]))
            elif not text.startswith("/*"):
                nodes.append(("value", _parse(text)))
        return nodes

    def _nested(self, word: str, head: str) -> tuple[Any, ...]:
        names: list[str] = []
        if ":=" in head:
            left, _, head = head.partition(":=")
            names = [name.strip() for name in left.split(",")]
        body = self._block()
        otherwise: list[tuple[Any, ...]] = []
        _, text = self._next()
        if text.startswith("else if"):
            otherwise = [self._nested("if", text.removeprefix("else if"))]
            return word, names, _parse(head), body, otherwise
        if text == "else":
            otherwise = self._block()
            self._next()
        return word, names, _parse(head), body, otherwise

    def _next(self) -> tuple[bool, str]:
        if self._position >= len(self._pieces):
            raise _failure("unexpected EOF")
        self._position += 1
        return self._pieces[self._position - 1]


def _failure(why: str) -> DockmagicError:
    return DockmagicError(f"template parsing error: {why}", exit_code=64)


def _split(source: str) -> list[tuple[bool, str]]:
    pieces: list[tuple[bool, str]] = []
    end = 0
    trim = False
    for match in _ACTION.finditer(source):
        text = source[end : match.start()]
        text = text.lstrip() if trim else text
        text = text.rstrip() if match[1] else text
        if text:
            pieces.append((False, text))
        pieces.append((True, match[2]))
        end, trim = match.end(), bool(match[3])
    rest = source[end:].lstrip() if trim else source[end:]
    if "{{" in rest:
        raise _failure("unclosed action")
    if rest:
        pieces.append((False, rest))
    return pieces


def _parse(text: str) -> list[list[Any]]:
    """A pipeline: commands of operands. An operand is a nested pipeline, or `(kind, value)`."""
    tokens: list[tuple[str, Any]] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _failure(f"unexpected {text[position:].strip()[:1]!r} in {{{{{text.strip()}}}}}")
        string, number, path, word, sign = match.groups()
        if string is not None:
            tokens.append(("constant", json.loads(string) if string[0] == '"' else string[1:-1]))
        elif number is not None:
            tokens.append(("constant", float(number) if "." in number else int(number)))
        elif path is not None:
            tokens.append(("path", path))
        elif word is not None:
            tokens.append(("constant", word == "true") if word in ("true", "false") else ("function", word))
        else:
            tokens.append(("sign", sign))
        position = match.end()
    pipeline, rest = _pipeline(tokens)
    if rest:
        raise _failure(f"unexpected {rest[0][1]!r} in {{{{{text.strip()}}}}}")
    return pipeline


def _pipeline(tokens: list[tuple[str, Any]]) -> tuple[list[list[Any]], list[tuple[str, Any]]]:
    pipeline: list[list[Any]] = [[]]
    while tokens and tokens[0] != ("sign", ")"):
        token, tokens = tokens[0], tokens[1:]
        if token == ("sign", "|"):
            pipeline.append([])
        elif token == ("sign", "("):
            nested, tokens = _pipeline(tokens)
            if not tokens:
                raise _failure("unclosed left paren")
            tokens = tokens[1:]
            pipeline[-1].append(nested)
        else:
            if token[0] == "function" and token[1] not in FUNCTIONS:
                raise _failure(f'function "{token[1]}" not defined')
            pipeline[-1].append(token)
    if not all(pipeline):
        raise _failure("missing value for command")
    return pipeline, tokens


def _run(nodes: list[tuple[Any, ...]], dot: Any, scope: Scope, out: list[str]) -> None:
    for kind, *node in nodes:
        if kind == "text":
            out.append(node[0])
        elif kind == "value":
            out.append(_go(_value(node[0], dot, scope)))
        else:
            _run_nested(kind, node, dot, scope, out)


def _run_nested(kind: str, node: list[Any], dot: Any, scope: Scope, out: list[str]) -> None:
    names, pipeline, body, otherwise = node
    value = _value(pipeline, dot, scope)
    if not value:
        _run(otherwise, dot, scope, out)
    elif kind == "range":
        items = sorted(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
        for key, item in items:
            inner = dict(scope)
            inner.update(zip(names, [item] if len(names) == 1 else [key, item], strict=False))
            _run(body, item, inner, out)
    else:
        inner = {**scope, **({names[0]: value} if names else {})}
        _run(body, value if kind == "with" else dot, inner, out)


def _value(pipeline: list[list[Any]], dot: Any, scope: Scope) -> Any:
    value: Any = None
    for place, command in enumerate(pipeline):
        arguments = [_operand(operand, dot, scope) for operand in command[1:]]
        if place > 0:
            arguments.append(value)
        head = command[0]
        if isinstance(head, tuple) and head[0] == "function":
            value = _call(head[1], arguments)
        else:
            value = _operand(head, dot, scope)
            if callable(value):
                value = _method(value, arguments)
            elif arguments:
                raise _failure("can't give argument to non-function")
    return value


def _method(method: Callable[..., Any], arguments: list[Any]) -> Any:
    try:
        return method(*arguments)
    except TypeError:
        raise _failure("wrong number of args for method") from None


def _operand(operand: Any, dot: Any, scope: Scope) -> Any:
    if isinstance(operand, list):
        return _value(operand, dot, scope)
    kind, value = operand
    if kind == "constant":
        return value
    if kind == "function":
        return _call(value, [])
    if value.startswith("$"):
        name, *fields = value.split(".")
        return _fields(scope.get(name), fields, value)
    return _fields(dot, [field for field in value.split(".") if field], value)


def _fields(value: Any, fields: list[str], path: str) -> Any:
    for field in fields:
        if not isinstance(value, Mapping):
            raise _failure(f"can't evaluate field {field} in {path}")
        if field not in value:
            known = {key.lower(): key for key in value}
            if field.lower() not in known:
                raise DockmagicError(
                    f'template: :1: executing "" at <{path}>: map has no entry for key "{field}"',
                    exit_code=64,
                )
            field = known[field.lower()]
        value = value[field]
    return value


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except (TypeError, IndexError, KeyError, ValueError) as error:
        raise _failure(f"error calling {name}: {error}") from None


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, Mapping) else value[key]
    return value


def _printf(template: str, *values: Any) -> str:
    return re.sub(r"%[vq]", lambda verb: '"%s"' if verb[0] == "%q" else "%s", template) % values


def _go(value: Any) -> str:
    """`value` as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_go(item)}' for key, item in sorted(value.items()))}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(_go, value))}]"
    return str(value)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "join": lambda values, separator: separator.join(map(_go, values)),
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "split": lambda text, separator: text.split(separator),
    "index": _index,
    "len": len,
    "print": lambda *values: "".join(map(_go, values)),
    "println": lambda *values: " ".join(map(_go, values)) + "\n",
    "printf": _printf,
    "truncate": lambda text, length: str(text)[:length],
    "eq": lambda first, *others: first in others,
    "ne": lambda first, second: first != second,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "not": lambda value: not value,
}
