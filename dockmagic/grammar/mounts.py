"""`--mount type=bind,source=…,target=…,readonly` and `-v source:target:mode`.

The keys and their rules are docker/cli's `opts/mount.go`; the answer is the Engine API's `Mount`.
"""

from pathlib import Path
from typing import Any

from dockmagic.grammar.kinds import Kind, size
from dockmagic.grammar.session import host_path
from dockmagic.grammar.specifications import fields, halves

_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_BARE = {"readonly", "volume-nocopy", "bind-nonrecursive"}  # may stand without a value
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_RECURSIVE = ("enabled", "disabled", "writable", "readonly")
# What the options of one kind of mount are called in the API.
_SECTIONS = {
    "bind": "BindOptions",
    "volume": "VolumeOptions",
    "tmpfs": "TmpfsOptions",
    "image": "ImageOptions",
}


def mount(spec: str) -> dict[str, Any]:
    """The `Mount` object that `spec` describes."""
    result: dict[str, Any] = {"Type": "volume"}
    sections: dict[str, dict[str, Any]] = {}
    for field in fields(spec):
        key, equals, value = field.partition("=")
        key = _ALIASES.get(key.lower(), key.lower())
        if not equals and key not in _BARE:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        section, dash, _option = key.partition("-")
        if dash and section in _SECTIONS:
            _fill(sections.setdefault(section, {}), key, field, value if equals else "true")
            continue
        match key:
            case "type":
                result["Type"] = value.lower()
            case "source":
                result["Source"] = value
            case "target":
                result["Target"] = value
            case "readonly":
                result["ReadOnly"] = _truth(key, value if equals else "true")
            case "consistency":
                result["Consistency"] = value.lower()
            case _:
                raise ValueError(f"unexpected key '{key}' in '{field}'")
    return _checked(result, sections)


def _fill(options: dict[str, Any], key: str, field: str, value: str) -> None:
    """Put one `volume-…`, `bind-…`, `tmpfs-…` or `image-…` option into its section."""
    match key:
        case "bind-propagation":
            options["Propagation"] = value.lower()
        case "bind-nonrecursive":
            options["NonRecursive"] = _truth(key, value)
        case "bind-recursive":
            if value not in _RECURSIVE:
                words = ", ".join(f'"{word}"' for word in _RECURSIVE[:-1])
                raise ValueError(f'invalid value for {key}: {value} (must be {words}, or "{_RECURSIVE[-1]}")')
            options["recursive"] = value
        case "volume-subpath":
            options["Subpath"] = value
        case "volume-nocopy":
            options["NoCopy"] = _truth(key, value)
        case "volume-label":
            name, text = halves(value)
            options.setdefault("Labels", {})[name] = text
        case "volume-driver":
            options.setdefault("DriverConfig", {})["Name"] = value
        case "volume-opt":
            name, text = halves(value)
            options.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = text
        case "image-subpath":
            options["Subpath"] = value
        case "tmpfs-size":
            options["SizeBytes"] = _number(key, value, size)
        case "tmpfs-mode":
            options["Mode"] = _number(key, value, lambda text: int(text, 8))
        case _:
            raise ValueError(f"unexpected key '{key}' in '{field}'")


def _checked(mount: dict[str, Any], sections: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The whole mount, if what was said of it goes together."""
    if not mount.get("Target"):
        raise ValueError("target is required")
    for section in sections:
        if section != mount["Type"]:
            raise ValueError(f"cannot mix '{section}-*' options with mount type '{mount['Type']}'")
    bind = sections.get("bind", {})
    match bind.pop("recursive", "enabled"):
        case "disabled":
            bind["NonRecursive"] = True
        case ("writable" | "readonly") as how:
            if not mount.get("ReadOnly"):
                raise ValueError(
                    f"option 'bind-recursive={how}' requires 'readonly' to be specified in conjunction"
                )
            if how == "readonly" and bind.get("Propagation") != "rprivate":
                raise ValueError(
                    "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified "
                    "in conjunction"
                )
            bind["ReadOnlyNonRecursive" if how == "writable" else "ReadOnlyForceRecursive"] = True
    if mount["Type"] == "bind" and mount.get("Source"):
        mount["Source"] = str(Path(host_path(mount["Source"])).absolute())
    mount.update({_SECTIONS[name]: options for name, options in sections.items() if options})
    return mount


def _truth(key: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def _number(key: str, value: str, read: Any) -> int:
    try:
        return int(read(value))
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def bind(spec: str) -> str:
    """`source:target[:mode]` with the source as a name of a volume or an absolute path."""
    source, _, rest = spec.partition(":")
    source = host_path(source)
    if source.startswith("."):
        source = str(Path(source).resolve())
    return f"{source}:{rest}"


MOUNT = Kind("mount", mount)
