"""The options of `run` and `create`, and what they are in the Engine API's container config.

One table per kind: a flag, its place in the config, its help. Flags whose value has a syntax of its own
(`-v`, `--mount`, `--ulimit`, `--device`…) have a reader below.
"""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dockmagic.errors import UsageMistake
from dockmagic.grammar.ports import exposed, port_map
from dockmagic.grammar.session import host_path
from dockmagic.grammar.syntax import DURATION, SIZE, SIZE_OR_UNLIMITED, option, switch

F = TypeVar("F", bound=Callable[..., Any])
Config = dict[str, Any]

# flag -> (declarations, click type, key in HostConfig, help); `resources` are also what `update` accepts.
RESOURCES: dict[str, tuple[tuple[str, ...], Any, str, str]] = {
    "memory": (("--memory", "-m"), SIZE, "Memory", "Memory limit"),
    "memory_swap": (("--memory-swap",), SIZE_OR_UNLIMITED, "MemorySwap", "Memory plus swap; -1: no limit"),
    "memory_reservation": (("--memory-reservation",), SIZE, "MemoryReservation", "Memory soft limit"),
    "cpu_shares": (("--cpu-shares", "-c"), int, "CpuShares", "CPU shares (relative weight)"),
    "cpu_period": (("--cpu-period",), int, "CpuPeriod", "CPU CFS period in microseconds"),
    "cpu_quota": (("--cpu-quota",), int, "CpuQuota", "CPU CFS quota in microseconds"),
    "cpu_rt_period": (("--cpu-rt-period",), int, "CpuRealtimePeriod", "CPU real-time period in microseconds"),
    "cpu_rt_runtime": (
        ("--cpu-rt-runtime",),
        int,
        "CpuRealtimeRuntime",
        "CPU real-time runtime in microseconds",
    ),
    "cpuset_cpus": (("--cpuset-cpus",), str, "CpusetCpus", "CPUs in which to allow execution (0-3, 0,1)"),
    "cpuset_mems": (("--cpuset-mems",), str, "CpusetMems", "Memory nodes in which to allow execution"),
    "pids_limit": (("--pids-limit",), int, "PidsLimit", "Tune container pids limit; -1: no limit"),
    "blkio_weight": (("--blkio-weight",), int, "BlkioWeight", "Block I/O weight, between 10 and 1000"),
}
HOST: dict[str, tuple[tuple[str, ...], Any, str, str]] = {
    **RESOURCES,
    "memory_swappiness": (("--memory-swappiness",), int, "MemorySwappiness", "Memory swappiness (0 to 100)"),
    "kernel_memory": (("--kernel-memory",), SIZE, "KernelMemory", "Kernel memory limit"),
    "shm_size": (("--shm-size",), SIZE, "ShmSize", "Size of /dev/shm"),
    "oom_score_adj": (("--oom-score-adj",), int, "OomScoreAdj", "OOM preferences (-1000 to 1000)"),
    "pid": (("--pid",), str, "PidMode", "PID namespace to use"),
    "ipc": (("--ipc",), str, "IpcMode", "IPC mode to use"),
    "uts": (("--uts",), str, "UTSMode", "UTS namespace to use"),
    "userns": (("--userns",), str, "UsernsMode", "User namespace to use"),
    "cgroupns": (("--cgroupns",), click.Choice(["host", "private"]), "CgroupnsMode", "Cgroup namespace"),
    "cgroup_parent": (("--cgroup-parent",), str, "CgroupParent", "Parent cgroup of the container"),
    "runtime": (("--runtime",), str, "Runtime", "Runtime to use for this container"),
    "isolation": (("--isolation",), str, "Isolation", "Container isolation technology"),
    "volume_driver": (("--volume-driver",), str, "VolumeDriver", "Volume driver for the container"),
}
HOST_SWITCHES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "privileged": (("--privileged",), "Privileged", "Give extended privileges to this container"),
    "read_only": (("--read-only",), "ReadonlyRootfs", "Mount the container's root filesystem as read only"),
    "init": (("--init",), "Init", "Run an init that forwards signals and reaps processes"),
    "publish_all": (("--publish-all", "-P"), "PublishAllPorts", "Publish all exposed ports to random ports"),
    "oom_kill_disable": (("--oom-kill-disable",), "OomKillDisable", "Disable OOM killer"),
}
HOST_LISTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "cap_add": (("--cap-add",), "CapAdd", "Add Linux capabilities"),
    "cap_drop": (("--cap-drop",), "CapDrop", "Drop Linux capabilities"),
    "dns": (("--dns",), "Dns", "Set custom DNS servers"),
    "dns_search": (("--dns-search",), "DnsSearch", "Set custom DNS search domains"),
    "dns_option": (("--dns-option", "--dns-opt"), "DnsOptions", "Set DNS options"),
    "group_add": (("--group-add",), "GroupAdd", "Add additional groups to join"),
    "volumes_from": (("--volumes-from",), "VolumesFrom", "Mount volumes from the specified container(s)"),
    "link": (("--link",), "Links", "Add link to another container"),
    "security_opt": (("--security-opt",), "SecurityOpt", "Security options"),
    "device_cgroup_rule": (("--device-cgroup-rule",), "DeviceCgroupRules", "Add a rule to the devices list"),
}
CONFIG: dict[str, tuple[tuple[str, ...], Any, str, str]] = {
    "hostname": (("--hostname", "-h"), str, "Hostname", "Container host name"),
    "domainname": (("--domainname",), str, "Domainname", "Container NIS domain name"),
    "user": (("--user", "-u"), str, "User", "Username or UID (format: <name|uid>[:<group|gid>])"),
    "workdir": (("--workdir", "-w"), str, "WorkingDir", "Working directory inside the container"),
    "stop_signal": (("--stop-signal",), str, "StopSignal", "Signal to stop the container"),
    "stop_timeout": (("--stop-timeout",), int, "StopTimeout", "Timeout (in seconds) to stop a container"),
}
LISTS: dict[str, tuple[tuple[str, ...], str]] = {
    "env": (("--env", "-e"), "Set environment variables"),
    "env_file": (("--env-file",), "Read in a file of environment variables"),
    "volume": (("--volume", "-v"), "Bind mount a volume"),
    "mount": (("--mount",), "Attach a filesystem mount to the container"),
    "tmpfs": (("--tmpfs",), "Mount a tmpfs directory"),
    "publish": (("--publish", "-p"), "Publish a container's port(s) to the host"),
    "expose": (("--expose",), "Expose a port or a range of ports"),
    "network": (("--network", "--net"), "Connect a container to a network"),
    "network_alias": (("--network-alias", "--net-alias"), "Add network-scoped alias for the container"),
    "add_host": (("--add-host",), "Add a custom host-to-IP mapping (host:ip)"),
    "ulimit": (("--ulimit",), "Ulimit options"),
    "device": (("--device",), "Add a host device to the container"),
    "device_read_bps": (("--device-read-bps",), "Limit read rate (bytes per second) from a device"),
    "device_write_bps": (("--device-write-bps",), "Limit write rate (bytes per second) to a device"),
    "device_read_iops": (("--device-read-iops",), "Limit read rate (IO per second) from a device"),
    "device_write_iops": (("--device-write-iops",), "Limit write rate (IO per second) to a device"),
    "label": (("--label", "-l"), "Set meta data on a container"),
    "label_file": (("--label-file",), "Read in a line delimited file of labels"),
    "annotation": (("--annotation",), "Add an annotation to the container"),
    "log_opt": (("--log-opt",), "Log driver options"),
    "storage_opt": (("--storage-opt",), "Storage driver options for the container"),
    "sysctl": (("--sysctl",), "Sysctl options"),
    "attach": (("--attach", "-a"), "Attach to STDIN, STDOUT or STDERR"),
}
SINGLES: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "name": (("--name",), str, "Assign a name to the container"),
    "cpus": (("--cpus",), float, "Number of CPUs"),
    "ip": (("--ip",), str, "IPv4 address"),
    "ip6": (("--ip6",), str, "IPv6 address"),
    "mac_address": (("--mac-address",), str, "Container MAC address"),
    "restart": (("--restart",), str, "Restart policy to apply when a container exits"),
    "entrypoint": (("--entrypoint",), str, "Overwrite the default ENTRYPOINT of the image"),
    "log_driver": (("--log-driver",), str, "Logging driver for the container"),
    "gpus": (("--gpus",), str, "GPU devices to add to the container ('all' to pass all GPUs)"),
    "health_cmd": (("--health-cmd",), str, "Command to run to check health"),
    "health_interval": (("--health-interval",), DURATION, "Time between running the check (ms|s|m|h)"),
    "health_timeout": (("--health-timeout",), DURATION, "Maximum time to allow one check to run"),
    "health_start_period": (("--health-start-period",), DURATION, "Start period before counting retries"),
    "health_start_interval": (("--health-start-interval",), DURATION, "Time between checks during start"),
    "health_retries": (("--health-retries",), int, "Consecutive failures needed to report unhealthy"),
    "pull": (("--pull",), click.Choice(["always", "missing", "never"]), "Pull image before running"),
    "platform": (("--platform",), str, "Set platform if server is multi-platform capable"),
    "cidfile": (("--cidfile",), str, "Write the container ID to the file"),
}
SWITCHES: dict[str, tuple[tuple[str, ...], str]] = {
    "interactive": (("--interactive", "-i"), "Keep STDIN open: it is the cell's body"),
    "tty": (("--tty", "-t"), "Allocate a pseudo-TTY"),
    "rm": (("--rm",), "Automatically remove the container when it exits"),
    "no_healthcheck": (("--no-healthcheck",), "Disable any container-specified HEALTHCHECK"),
    "quiet": (("--quiet", "-q"), "Suppress the pull output"),
    "disable_content_trust": (("--disable-content-trust",), "Skip image verification (no effect)"),
}


def resource_options(command: F) -> F:
    """The limits that `update` can change."""
    for name, (declarations, kind, _key, help) in RESOURCES.items():
        command = option(name, *declarations, type=kind, help=help)(command)
    command = option("cpus", "--cpus", type=float, help="Number of CPUs")(command)
    return option("restart", "--restart", help="Restart policy to apply when a container exits")(command)


def container_options(command: F) -> F:
    """All options that `run` and `create` share; they reach the command as keywords."""
    for name, (declarations, kind, _key, help) in {**HOST, **CONFIG}.items():
        command = option(name, *declarations, type=kind, help=help)(command)
    for name, (switches, _key, help) in HOST_SWITCHES.items():
        command = switch(name, *switches, help=help)(command)
    for name, (switches, help) in SWITCHES.items():
        command = switch(name, *switches, help=help)(command)
    for name, (lists, _key, help) in HOST_LISTS.items():
        command = option(name, *lists, multiple=True, help=help)(command)
    for name, (lists, help) in LISTS.items():
        command = option(name, *lists, multiple=True, help=help)(command)
    for name, (singles, kind, help) in SINGLES.items():
        command = option(name, *singles, type=kind, help=help)(command)
    return command


def container_config(image: str, command: tuple[str, ...], given: dict[str, Any], *, stdin: bool) -> Config:
    """The body of `POST /containers/create` for the options `given`. `stdin`: something will be fed to it."""
    host = host_config(given)
    config: Config = {
        key: given[name] for name, (_d, _t, key, _h) in CONFIG.items() if given[name] is not None
    }
    opens_stdin = stdin or given["interactive"]
    config.update(
        Image=image,
        Cmd=list(command) or None,
        Tty=given["tty"],
        OpenStdin=opens_stdin,
        StdinOnce=opens_stdin,
        Env=environment(given["env"], given["env_file"]),
        Labels=labels(given["label"], given["label_file"]),
        HostConfig=host,
    )
    if given["entrypoint"] is not None:
        # An empty --entrypoint resets the image's; the API spells that as one empty word.
        config["Entrypoint"] = [given["entrypoint"]]
    ports: Config = {port: {} for port in [*exposed(given["expose"]), *host.get("PortBindings", {})]}
    if ports:
        config["ExposedPorts"] = ports
    anonymous = [spec for spec in given["volume"] if ":" not in spec]
    if anonymous:
        config["Volumes"] = {path: {} for path in anonymous}
    if given["mac_address"]:
        config["MacAddress"] = given["mac_address"]
    if health := healthcheck(given):
        config["Healthcheck"] = health
    if endpoints := endpoint_configs(given):
        config["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return {key: value for key, value in config.items() if value is not None}


def host_config(given: dict[str, Any]) -> Config:
    """The `HostConfig` part."""
    host: Config = {key: given[name] for name, (_d, _t, key, _h) in HOST.items() if given[name] is not None}
    host.update({key: True for name, (_d, key, _h) in HOST_SWITCHES.items() if given[name]})
    host.update({key: list(given[name]) for name, (_d, key, _h) in HOST_LISTS.items() if given[name]})
    if given["security_opt"]:
        host["SecurityOpt"] = [security_option(text) for text in given["security_opt"]]
    if given["cpus"] is not None:
        host["NanoCpus"] = nano_cpus(given["cpus"])
    if given["rm"]:
        host["AutoRemove"] = True
    if given["restart"]:
        host["RestartPolicy"] = restart_policy(given["restart"])
    binds = [bind(spec) for spec in given["volume"] if ":" in spec]
    if binds:
        host["Binds"] = binds
    if given["mount"]:
        host["Mounts"] = [mount(spec) for spec in given["mount"]]
    if given["tmpfs"]:
        host["Tmpfs"] = dict(_halves(spec, ":") for spec in given["tmpfs"])
    if given["publish"]:
        host["PortBindings"] = port_map(given["publish"])
    if given["network"]:
        host["NetworkMode"] = network_name(given["network"][0])
    if given["add_host"]:
        host["ExtraHosts"] = [extra_host(text) for text in given["add_host"]]
    if given["ulimit"]:
        host["Ulimits"] = [ulimit(text) for text in given["ulimit"]]
    if given["device"]:
        host["Devices"] = [device(text) for text in given["device"]]
    for name, key in (("device_read_bps", "BlkioDeviceReadBps"), ("device_write_bps", "BlkioDeviceWriteBps")):
        if given[name]:
            host[key] = [_rate(text, SIZE) for text in given[name]]
    for name, key in (
        ("device_read_iops", "BlkioDeviceReadIOps"),
        ("device_write_iops", "BlkioDeviceWriteIOps"),
    ):
        if given[name]:
            host[key] = [_rate(text, click.INT) for text in given[name]]
    for name, key in (
        ("sysctl", "Sysctls"),
        ("storage_opt", "StorageOpt"),
        ("annotation", "Annotations"),
    ):
        if given[name]:
            host[key] = dict(_halves(text, "=") for text in given[name])
    if given["log_driver"] or given["log_opt"]:
        options = dict(_halves(text, "=") for text in given["log_opt"])
        host["LogConfig"] = {"Type": given["log_driver"] or "json-file", "Config": options}
    if given["gpus"]:
        host["DeviceRequests"] = [gpus(given["gpus"])]
    return host


def endpoint_configs(given: dict[str, Any]) -> Config:
    """`NetworkingConfig.EndpointsConfig`: one entry for each `--network` that is a network of its own."""
    networks = given["network"] or ("default",)
    wants_detail = given["network_alias"] or given["ip"] or given["ip6"] or len(networks) > 1
    configs: Config = {}
    for position, spec in enumerate(networks):
        fields = _fields(spec) if "=" in spec else {"name": spec}
        name = fields.get("name", "")
        if not wants_detail and len(fields) == 1:
            continue
        endpoint: Config = {}
        if position == 0:
            endpoint["Aliases"] = list(given["network_alias"])
            addresses = {"IPv4Address": given["ip"], "IPv6Address": given["ip6"]}
            endpoint["IPAMConfig"] = {key: value for key, value in addresses.items() if value}
        if "alias" in fields:
            endpoint["Aliases"] = [*endpoint.get("Aliases", []), fields["alias"]]
        if "ip" in fields:
            endpoint["IPAMConfig"] = {"IPv4Address": fields["ip"]}
        configs[name] = {key: value for key, value in endpoint.items() if value}
    return configs


def network_name(spec: str) -> str:
    return _fields(spec).get("name", spec) if "=" in spec else spec


def environment(pairs: tuple[str, ...], files: tuple[str, ...]) -> list[str]:
    """`KEY=value` lines; a bare KEY takes this kernel's value and is left out when it has none."""
    lines: list[str] = []
    for file in files:
        lines += _lines_of(file)
    lines += pairs
    result = []
    for line in lines:
        key, equals, _value = line.partition("=")
        if not key:
            raise UsageMistake(f"docker: invalid environment variable: {line}", exit_code=125)
        if equals:
            result.append(line)
        elif key in os.environ:
            result.append(f"{key}={os.environ[key]}")
    return result


def labels(pairs: tuple[str, ...], files: tuple[str, ...]) -> dict[str, str]:
    lines = [line for file in files for line in _lines_of(file)]
    return dict(_halves(text, "=") for text in [*lines, *pairs])


def _lines_of(file: str) -> list[str]:
    try:
        lines = Path(host_path(file)).read_text().splitlines()
    except OSError as error:
        sentence = (error.strerror or str(error)).lower()
        raise UsageMistake(f"docker: open {file}: {sentence}", exit_code=125) from None
    return [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def nano_cpus(cpus: float) -> int:
    if cpus < 0:
        raise UsageMistake(f"docker: invalid value for --cpus: {cpus}", exit_code=125)
    return round(cpus * 10**9)


def restart_policy(text: str) -> Config:
    name, _, count = text.partition(":")
    if name not in ("no", "always", "unless-stopped", "on-failure"):
        raise UsageMistake(
            f"docker: Error response from daemon: invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
            exit_code=125,
        )
    if count and not count.isdigit():
        raise UsageMistake(
            "docker: invalid restart policy format: maximum retry count must be an integer", exit_code=125
        )
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def bind(spec: str) -> str:
    """`source:target[:mode]` with the source as a name of a volume or an absolute path."""
    source, _, rest = spec.partition(":")
    source = host_path(source)
    if ":" in source:
        raise UsageMistake(f"docker: invalid volume specification: '{spec}'", exit_code=125)
    if source.startswith("."):
        source = str(Path(source).resolve())
    return f"{source}:{rest}"


_MOUNT_KEYS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}


def mount(spec: str) -> Config:
    """The `Mount` object of `--mount type=bind,source=…,target=…,readonly`."""
    fields = {_MOUNT_KEYS.get(key, key): value for key, value in _fields(spec).items()}
    kind = fields.pop("type", "volume")
    target = fields.pop("target", None)
    if target is None:
        raise UsageMistake(
            f'docker: invalid argument "{spec}" for "--mount" flag: target is required', exit_code=125
        )
    result: Config = {"Type": kind, "Target": target}
    if "source" in fields:
        source = fields.pop("source")
        result["Source"] = str(Path(host_path(source)).absolute()) if kind == "bind" else source
    if fields.pop("readonly", "false") in ("", "true", "1"):
        result["ReadOnly"] = True
    volume: Config = {}
    for key, value in fields.items():
        match key:
            case "bind-propagation":
                result.setdefault("BindOptions", {})["Propagation"] = value
            case "bind-nonrecursive":
                result.setdefault("BindOptions", {})["NonRecursive"] = value in ("", "true", "1")
            case "tmpfs-size":
                result.setdefault("TmpfsOptions", {})["SizeBytes"] = SIZE.convert(value, None, None)
            case "tmpfs-mode":
                result.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
            case "volume-nocopy":
                volume["NoCopy"] = value in ("", "true", "1")
            case "volume-subpath":
                volume["Subpath"] = value
            case "consistency":
                result["Consistency"] = value
            case _:
                raise UsageMistake(
                    f'docker: invalid argument "{spec}" for "--mount" flag: unexpected key \'{key}\' in '
                    f"'{key}={value}'",
                    exit_code=125,
                )
    if volume:
        result["VolumeOptions"] = volume
    return result


def ulimit(text: str) -> Config:
    name, equals, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        values = int(soft), int(hard or soft)
    except ValueError:
        equals = ""
        values = 0, 0
    if not equals:
        raise UsageMistake(
            f'invalid argument "{text}" for "--ulimit" flag: invalid ulimit argument: {text}', exit_code=125
        )
    return {"Name": name, "Soft": values[0], "Hard": values[1]}


def device(text: str) -> Config:
    host, _, rest = text.partition(":")
    inside, _, permissions = rest.partition(":")
    if inside and set(inside) <= set("rwm"):
        inside, permissions = "", inside
    return {
        "PathOnHost": host,
        "PathInContainer": inside or host,
        "CgroupPermissions": permissions or "rwm",
    }


def extra_host(text: str) -> str:
    host, separator, address = text.partition("=")
    if not separator:
        host, separator, address = text.partition(":")
    if not address:
        raise UsageMistake(
            f'invalid argument "{text}" for "--add-host" flag: bad format for add-host: "{text}"',
            exit_code=125,
        )
    return f"{host}:{address.strip('[]')}"


def security_option(text: str) -> str:
    """`seccomp=profile.json` is read here, where the file is; the API takes its content."""
    key, _, value = text.partition("=")
    if key == "seccomp" and value not in ("unconfined", "builtin", ""):
        try:
            return f"seccomp={Path(host_path(value)).read_text()}"
        except OSError as error:
            raise UsageMistake(
                f"docker: opening seccomp profile ({value}) failed: {(error.strerror or '').lower()}",
                exit_code=125,
            ) from None
    return text


def healthcheck(given: dict[str, Any]) -> Config:
    if given["no_healthcheck"]:
        return {"Test": ["NONE"]}
    times = {
        "Interval": given["health_interval"],
        "Timeout": given["health_timeout"],
        "StartPeriod": given["health_start_period"],
        "StartInterval": given["health_start_interval"],
        "Retries": given["health_retries"],
    }
    health: Config = {key: value for key, value in times.items() if value is not None}
    if given["health_cmd"]:
        health["Test"] = ["CMD-SHELL", given["health_cmd"]]
    return health


def gpus(text: str) -> Config:
    if text == "all":
        return {"Count": -1, "Capabilities": [["gpu"]]}
    if text.isdigit():
        return {"Count": int(text), "Capabilities": [["gpu"]]}
    return {"DeviceIDs": text.removeprefix("device=").split(","), "Capabilities": [["gpu"]]}


def _rate(text: str, kind: click.ParamType) -> Config:
    path, colon, rate = text.rpartition(":")
    if not colon:
        raise UsageMistake(f'invalid argument "{text}": bad format: {text}', exit_code=125)
    return {"Path": path, "Rate": kind.convert(rate, None, None)}


def _halves(text: str, separator: str) -> tuple[str, str]:
    left, _, right = text.partition(separator)
    return left, right


def _fields(spec: str) -> dict[str, str]:
    """`a=1,b` in CSV, as Docker reads it (quotes may hold commas)."""
    return dict(_halves(field, "=") for field in next(csv.reader([spec])))
