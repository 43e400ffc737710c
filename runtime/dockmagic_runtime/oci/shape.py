"""Does a JSON document have the shape that a TypedDict says? The first place where it doesn't, by its path.

Unknown fields are left alone (the OCI specifications demand that); `null` is the same as absent, as it is to
the Go programs that write these documents.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Required, get_args, get_origin, get_type_hints, is_typeddict

from dockmagic_runtime.errors import InvalidParameter

_WORDS = {str: "a string", bool: "true or false", int: "a number", list: "a list", dict: "an object"}


def check(value: object, kind: Any, path: str = "") -> None:
    """Raise InvalidParameter, `linux.namespaces[2].type: …`, unless `value` is a `kind`."""
    if kind is Any:
        return
    if is_typeddict(kind):
        return _check_fields(_expect(value, dict, path), kind, path)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in arguments:
            known = ", ".join(str(argument) for argument in arguments if argument)
            raise InvalidParameter(f"{path}: {value!r} is none of {known}")
    elif origin is Annotated:
        bounds = arguments[1]
        _expect(value, int, path)
        if value not in bounds:
            raise InvalidParameter(f"{path}: {value} is not between {bounds[0]} and {bounds[-1]}")
    elif origin is list:
        for index, item in enumerate(_expect(value, list, path)):
            check(item, arguments[0], f"{path}[{index}]")
    elif origin is dict:
        for key, item in _expect(value, dict, path).items():
            check(item, arguments[1], f"{path}[{key!r}]")
    else:
        _expect(value, kind, path)


def _check_fields(value: Mapping[str, object], kind: Any, path: str) -> None:
    prefix = f"{path}." if path else ""
    for name in sorted(kind.__required_keys__):
        if value.get(name) is None:
            raise InvalidParameter(f"{prefix}{name}: required, and missing")
    hints = _hints(kind)
    for name, item in value.items():
        if item is not None and name in hints:
            check(item, hints[name], prefix + name)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: get_args(hint)[0] if get_origin(hint) is Required else hint for name, hint in hints.items()}


def _expect(value: object, kind: type, path: str) -> Any:
    # To Python a bool is an int; to JSON it isn't.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidParameter(f"{path or 'the document'}: not {_WORDS[kind]}: {_short(value)}")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
