"""Log drivers: what `--log-driver` and `--log-opt` may say, and what that means for the shim.

    json-file  the default; one file that grows without end, unless options limit it
    local      the same kind of file in `local-logs/`: five of 20 MB, the full ones compressed
    none       nothing is kept

Docker looks at the names of options when a container is made and at their values when it starts; so do we, in
its words. `mode=non-blocking` is accepted: our log never keeps a program waiting for anything but the disk.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.errors import InvalidParameter, NotImplementedHere
from dockmagic_runtime.process.client import LogSpec

Options = dict[str, str]

DRIVERS = ("json-file", "local", "none")

_ELSEWHERE = (
    *("awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "logentries", "splunk", "syslog"),
)
_LIMITS = ("max-size", "max-file", "compress")
_ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex", "tag")
_LOCAL_SIZE, _LOCAL_FILES = 20 * 1024 * 1024, 5
_SIZE = re.compile(r"(\d+(?:\.\d+)*) ?([kKmMgGtTpP])?[iI]?[bB]?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def check(driver: str, options: Options) -> None:
    """Raises InvalidParameter for an unknown driver or option, NotImplementedHere for drivers of Docker's."""
    if driver == "none":
        return
    if not all(isinstance(value, str) for value in options.values()):
        raise InvalidParameter("invalid JSON: HostConfig.LogConfig.Config must map strings to strings")
    if driver in _ELSEWHERE:
        raise NotImplementedHere(
            f"the logging driver {driver} is not supported by this engine: use json-file, local or none"
        )
    if driver not in DRIVERS:
        raise InvalidParameter(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    _check_mode(options)
    _check_names(driver, options)


def log_path(directory: Path, container: Container) -> Path | None:
    """Where its log is; None if nothing is kept."""
    match container.host_config["LogConfig"]["Type"]:
        case "none":
            return None
        case "local":
            return directory / "local-logs" / "container.log"
    return directory / f"{container.id}-json.log"


def log_spec(path: Path | None, container: Container) -> LogSpec:
    """What the shim is told. Raises InvalidParameter for a value that makes no sense."""
    config = container.host_config["LogConfig"]
    if path is None:
        return LogSpec("none", Path())
    try:
        if config["Type"] == "local":
            path.parent.mkdir(mode=0o700, exist_ok=True)
            return _local(path, config["Config"])
        return _json_file(path, config["Config"], container)
    except ValueError as error:
        raise InvalidParameter(f"failed to initialize logging driver: {error}") from None


def _check_mode(options: Options) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidParameter(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        try:
            _size(options["max-buffer-size"], 1024)
        except ValueError as error:
            raise InvalidParameter(f"error parsing option max-buffer-size: {error}") from None


def _check_names(driver: str, options: Options) -> None:
    known = {"mode", "max-buffer-size", *_LIMITS, *(_ATTRIBUTES if driver == "json-file" else ())}
    for name in sorted(set(options) - known):
        if driver == "local":
            raise InvalidParameter(f"unknown log opt '{name}' for log driver local")
        raise InvalidParameter(f"unknown log opt '{name}' for {driver} log driver")


def _json_file(path: Path, options: Options, container: Container) -> LogSpec:
    size, count, compress = None, 1, False
    if "max-size" in options:
        size = _size(options["max-size"], 1000)
        if size <= 0:
            raise ValueError("max-size must be a positive number")
    if "max-file" in options:
        count = _count(options["max-file"])
        if count < 1:
            raise ValueError("max-file cannot be less than 1")
    if "compress" in options:
        compress = _flag(options["compress"])
        if compress and (count == 1 or size is None):
            raise ValueError("compress cannot be true when max-file is less than 2 or max-size is not set")
    attributes = _attributes(options, container)
    return LogSpec("json-file", path, size, count, compress, json.dumps(attributes) if attributes else "")


def _local(path: Path, options: Options) -> LogSpec:
    size, count, compress = _LOCAL_SIZE, _LOCAL_FILES, True
    try:
        name = "max-size"
        size = _size(options[name], 1024) if name in options else size
        name = "max-file"
        count = _count(options[name]) if name in options else count
    except ValueError as error:
        raise ValueError(f"invalid value for {name}: {options[name]}: {error}") from None
    if "compress" in options:
        try:
            compress = _flag(options["compress"])
        except ValueError as error:
            raise ValueError(f"error reading compress log option: {error}") from None
    if size < 0:
        raise ValueError("max size should be a positive number")
    if count < 0:
        raise ValueError("max file count cannot be less than 0")
    if compress and count <= 1:
        raise ValueError("compression cannot be enabled when max file count is 1")
    return LogSpec("json-file", path, size or None, count, compress)


def _size(text: str, base: int) -> int:
    """go-units: `10k`, `1.5 MB`."""
    match = _SIZE.fullmatch(text)
    if not match or match[1].count(".") > 1:
        raise ValueError(f"invalid size: '{text}'")
    return min(int(float(match[1]) * base ** _POWERS[(match[2] or "").lower()]), (1 << 63) - 1)


def _count(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    if not -(1 << 63) <= int(text) < 1 << 63:
        raise ValueError(f'strconv.Atoi: parsing "{text}": value out of range')
    return int(text)


def _flag(text: str) -> bool:
    if text not in _TRUE + _FALSE:
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


def _attributes(options: Options, container: Container) -> dict[str, str]:
    """What each entry says of its container: some labels, some variables, a tag."""
    found: dict[str, str] = {}
    environment = dict(entry.split("=", 1) for entry in container.config["Env"] or [] if "=" in entry)
    for names, pattern, values in (
        (options.get("labels"), options.get("labels-regex"), container.labels),
        (options.get("env"), options.get("env-regex"), environment),
    ):
        found |= {name: values[name] for name in (names or "").split(",") if name in values}
        if pattern:
            expression = _regular_expression(pattern)
            found |= {name: value for name, value in values.items() if expression.search(name)}
    if options.get("tag"):
        found["tag"] = _Tag(container).of(options["tag"])
    return dict(sorted(found.items()))


def _regular_expression(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"error parsing regexp: {error}: `{pattern}`") from None


@dataclass(frozen=True)
class _Tag:
    """`--log-opt tag`: text with fields of the container, `{{.Name}}` and the like."""

    container: Container

    def of(self, template: str) -> str:
        parts = re.split(r"\{\{-?\s*(.*?)\s*-?\}\}", template)
        if any("{{" in literal for literal in parts[0::2]):
            raise ValueError("template: log-tag:1: unclosed action")
        fields = self._fields()
        text = parts[0]
        for expression, literal in zip(parts[1::2], parts[2::2], strict=True):
            if not re.fullmatch(r"\.\w+", expression):
                known = "only fields such as {{.Name}} are known"
                raise ValueError(f'template: log-tag:1: {known}, not "{expression}"')
            if expression[1:] not in fields:
                raise ValueError(
                    f'template: log-tag:1:{template.index(expression)}: executing "log-tag" at '
                    f"<{expression}>: can't evaluate field {expression[1:]} in type *logger.Info"
                )
            text += fields[expression[1:]] + literal
        return text

    def _fields(self) -> dict[str, str]:
        container = self.container
        return {
            "ID": container.short_id,
            "FullID": container.id,
            "Name": container.name,
            "Command": " ".join(container.argv),
            "ImageID": container.image[:12],
            "ImageFullID": container.image,
            "ImageName": container.config["Image"],
            "DaemonName": "docker",
        }
