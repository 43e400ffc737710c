"""From the flags of `run` and `create` to the body of `POST /containers/create`.

What a single value means is read before (options.py names its kind); here is what several flags mean
together, and what is read from files of this machine: `--env-file`, `--label-file`, a seccomp profile.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dockmagic.errors import UsageMistake
from dockmagic.grammar.endpoints import endpoints
from dockmagic.grammar.flags import conflict
from dockmagic.grammar.mounts import bind
from dockmagic.grammar.options import CONFIG, HOST, RESOURCES, filled
from dockmagic.grammar.ports import exposed, port_map
from dockmagic.grammar.session import host_path
from dockmagic.grammar.specifications import halves, resolved

Config = dict[str, Any]


def container_config(image: str, command: tuple[str, ...], given: dict[str, Any], *, stdin: bool) -> Config:
    """The body for the flags `given`. `stdin`: something will be fed to it. Raises UsageMistake."""
    opens_stdin = stdin or given["interactive"]
    host = host_config(given)
    config: Config = {
        **filled(CONFIG, given),
        "Image": image,
        "Cmd": list(command) or None,
        "Tty": given["tty"],
        "OpenStdin": opens_stdin,
        "StdinOnce": opens_stdin,
        "Env": resolved([*_lines_of(given["env_file"]), *given["env"]]),
        "Labels": dict(map(halves, [*_lines_of(given["label_file"]), *given["label"]])),
        "HostConfig": host,
    }
    if given["entrypoint"] is not None:
        # An empty --entrypoint resets the image's; the API spells that as one empty word.
        config["Entrypoint"] = [given["entrypoint"]]
    ports: Config = {port: {} for port in [*exposed(given["expose"]), *host.get("PortBindings", {})]}
    if ports:
        config["ExposedPorts"] = ports
    anonymous = [spec for spec in given["volume"] if ":" not in spec]
    if anonymous:
        config["Volumes"] = {path: {} for path in anonymous}
    if health := healthcheck(given):
        config["Healthcheck"] = health
    if attached := endpoints(given):
        config["NetworkingConfig"] = {"EndpointsConfig": attached}
    return {key: value for key, value in config.items() if value is not None}


def host_config(given: dict[str, Any]) -> Config:
    """The `HostConfig` part."""
    host = filled(HOST, given)
    _check_namespaces(given)
    if given["security_opt"]:
        host.update(security(given["security_opt"]))
    if given["restart"]:
        host["RestartPolicy"] = restart_policy(given["restart"])
        if given["rm"] and host["RestartPolicy"]["Name"] not in ("", "no"):
            raise conflict("conflicting options: cannot specify both --restart and --rm")
    binds = [bind(spec) for spec in given["volume"] if ":" in spec]
    if binds:
        host["Binds"] = binds
    if given["tmpfs"]:
        host["Tmpfs"] = {
            path: options for path, _, options in (spec.partition(":") for spec in given["tmpfs"])
        }
    if given["publish"]:
        host["PortBindings"] = port_map(given["publish"])
    if given["network"]:
        host["NetworkMode"] = given["network"][0][0]
    if given["log_driver"] or given["log_opt"]:
        if given["log_driver"] == "none" and given["log_opt"]:
            raise conflict("invalid logging opts for driver none")
        host["LogConfig"] = {"Type": given["log_driver"] or "", "Config": dict(given["log_opt"])}
    return host


def shape_config(given: dict[str, Any]) -> Config:
    """Other ports and mounts for a container that exists; empty if none are asked for."""
    unpublish = [port if "/" in port else f"{port}/tcp" for port in given["unpublish"]]
    for spec in given["volume"]:
        if ":" not in spec:
            raise UsageMistake(f"-v {spec}: say what to mount there, as in -v data:{spec}")
    shape = {
        "PortBindings": port_map(given["publish"]),
        "Binds": [bind(spec) for spec in given["volume"]],
        "Mounts": list(given["mount"]),
        "Unpublish": unpublish,
        "Unmount": list(given["unmount"]),
    }
    return {key: value for key, value in shape.items() if value}


def update_config(given: dict[str, Any], *, needed: bool = True) -> Config:
    """The body of `POST /containers/{id}/update`. Raises UsageMistake if it is empty but `needed`."""
    body = filled(RESOURCES, given)
    if given["restart"] is not None:
        body["RestartPolicy"] = restart_policy(given["restart"])
    if needed and not body:
        raise UsageMistake("you must provide one or more flags when using this command")
    return body


def _check_namespaces(given: dict[str, Any]) -> None:
    """Modes that Docker's command refuses by itself; what else they may be is the engine's to say."""
    shared = given["pid"] or "host"
    if shared != "host" and not shared.startswith("container:"):
        raise conflict("--pid: invalid PID mode")
    if given["uts"] not in (None, "", "host"):
        raise conflict("--uts: invalid UTS mode")
    if given["userns"] not in (None, "", "host"):
        raise conflict("--userns: invalid USER mode")
    if given["cgroupns"] not in (None, "", "host", "private"):
        raise conflict("--cgroupns: invalid CGROUP mode")


def restart_policy(text: str) -> Config:
    """`on-failure:3`. Which names there are is the engine's to say."""
    name, colon, count = text.partition(":")
    if colon and (not name or not count.lstrip("+-").isdigit()):
        why = "maximum retry count must be an integer" if name else "no policy provided before colon"
        raise conflict(f"invalid restart policy format: {why}")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def security(options: tuple[str, ...]) -> Config:
    """`SecurityOpt`, and the paths that `systempaths=unconfined` shows.

    A seccomp profile is read here, where the file is; the API takes its content.
    """
    result: Config = {}
    kept = []
    for text in options:
        key, separator, value = text.partition("=" if "=" in text else ":")
        if not separator and text != "no-new-privileges":
            raise conflict(f'Invalid --security-opt: "{text}"')
        if text == "systempaths=unconfined":
            result.update(MaskedPaths=[], ReadonlyPaths=[])
            continue
        if key == "seccomp" and value not in ("unconfined", "builtin"):
            try:
                text = f"seccomp={Path(host_path(value)).read_text()}"
            except OSError as error:
                raise conflict(
                    f"opening seccomp profile ({value}) failed: open {value}: {_reason(error)}"
                ) from None
        kept.append(text)
    return {**result, "SecurityOpt": kept} if kept else result


def healthcheck(given: dict[str, Any]) -> Config:
    """`Healthcheck`; empty where none of its flags was given."""
    times = {
        "Interval": given["health_interval"],
        "Timeout": given["health_timeout"],
        "StartPeriod": given["health_start_period"],
        "StartInterval": given["health_start_interval"],
        "Retries": given["health_retries"],
    }
    health: Config = {key: value for key, value in times.items() if value}
    if given["health_cmd"]:
        health["Test"] = ["CMD-SHELL", given["health_cmd"]]
    if given["no_healthcheck"]:
        if health:
            raise conflict("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    for name in ("interval", "timeout", "start_period", "start_interval", "retries"):
        if (given[f"health_{name}"] or 0) < 0:
            raise conflict(f"--health-{name.replace('_', '-')} cannot be negative")
    return health


def _lines_of(files: Iterable[str]) -> list[str]:
    """`KEY=value` lines of files; comments and empty lines left out."""
    found = []
    for file in files:
        try:
            lines = Path(host_path(file)).read_text().splitlines()
        except OSError as error:
            raise conflict(f"open {file}: {_reason(error)}") from None
        for line in (line.lstrip() for line in lines):
            key = line.partition("=")[0]
            if not line or line.startswith("#"):
                continue
            if not key:
                raise conflict(f"invalid env file ({file}): no variable name on line '{line}'")
            if len(key.split()) > 1 or key != key.rstrip():
                raise conflict(f"invalid env file ({file}): variable '{key}' contains whitespaces")
            found.append(line)
    return found


def environment(pairs: tuple[str, ...], files: tuple[str, ...]) -> list[str]:
    """What `exec` adds to the environment."""
    return resolved([*_lines_of(files), *pairs])


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
