"""Data as the engines send them, one of each kind a picture has to cope with."""

from typing import Any

EVIL = "<script>alert('x')</script> & \"quotes\""

NAMESPACES: dict[str, Any] = {
    "pid": 4711,
    "kinds": [
        {"kind": "mnt", "inode": 4026532180, "host_inode": 4026531832, "shared": False},
        {"kind": "net", "inode": 4026531833, "host_inode": 4026531833, "shared": True},
        {"kind": "user", "inode": None, "host_inode": None, "shared": None},
    ],
    "note": "Something is not known.",
}

PORTS = [
    {
        "protocol": "tcp",
        "host_ip": "::",
        "host_port": 8080,
        "container_ip": "172.17.0.2",
        "container_port": 80,
        "container_id": "a" * 64,
        "container_name": "web",
    },
    {
        "protocol": "udp",
        "host_ip": "127.0.0.1",
        "host_port": 53,
        "container_ip": "fd00::2",
        "container_port": 5353,
        "container_id": "b" * 64,
        "container_name": "dns",
    },
]

TOPOLOGY: dict[str, Any] = {
    "host": {
        "interfaces": [{"name": EVIL, "addresses": ["192.0.2.2/24", "2001:db8::2/64"], "up": True}],
        "way_out": {"interface": "eth0", "gateway": "", "address": "192.0.2.2"},
    },
    "networks": [
        {
            "id": letter * 64,
            "name": name,
            "driver": driver,
            "interface": "br-1" if driver == "bridge" else "",
            "up": True,
            "addresses": ["172.18.0.1/16"],
            "subnets": ["172.18.0.0/16", "fd00::/64"],
            "internal": name == "inner",
        }
        for letter, name, driver in (
            ("a", EVIL, "bridge"),
            ("b", "inner", "bridge"),
            ("c", "host", "host"),
            ("d", "none", "null"),
            ("e", "lan", "macvlan"),
        )
    ],
    "containers": [
        {
            "id": "f" * 64,
            "name": EVIL,
            "joins": "",
            "endpoints": [
                {
                    "network": EVIL,
                    "interface": "eth0",
                    "addresses": ["172.18.0.2"],
                    "mac": "",
                    "port": "veth1",
                },
                {"network": "inner", "interface": "eth1", "addresses": [], "mac": "", "port": ""},
                {"network": "unknown", "interface": "eth2", "addresses": [], "mac": "", "port": ""},
            ],
            "ports": PORTS,
        },
        {"id": "0" * 64, "name": "joined", "joins": EVIL, "endpoints": [], "ports": []},
        {
            "id": "1" * 64,
            "name": "at home",
            "joins": "",
            "endpoints": [{"network": "host", "interface": "", "addresses": [], "mac": "", "port": ""}],
            "ports": [],
        },
    ],
}
NO_TOPOLOGY: dict[str, Any] = {
    "host": {"interfaces": [], "way_out": None},
    "networks": [],
    "containers": [],
}

HOPS: list[dict[str, Any]] = [
    {"where": EVIL, "what": "route", "name": "172.18.0.3", "words": "directly on eth0", "bad": False},
    {
        "where": "host",
        "what": "rule: drop",
        "name": "theirs x",
        "words": f'iifname "{EVIL}" drop',
        "bad": True,
    },
]

LAYERS: dict[str, Any] = {
    "name": "web",
    "image": "my-app:latest",
    "layers": [
        {
            "instruction": None,
            "created_by": "/bin/sh -c #(nop) ADD file:1 in / ",
            "size": 1_980_000,
            "empty": False,
            "origin": "pulled",
            "shared_with": ["busybox:latest", "my-other:1"],
        },
        {
            "instruction": "RUN make " + "x" * 200,
            "created_by": "",
            "size": 500,
            "empty": False,
            "origin": "built",
            "shared_with": [],
        },
        {
            "instruction": f"LABEL evil={EVIL}",
            "created_by": "",
            "size": 0,
            "empty": True,
            "origin": "cached",
            "shared_with": [],
        },
        {"created_by": "whatever", "size": 3, "empty": None, "origin": None, "shared_with": None},
    ],
    "writable": {
        "size": 20_000_000,
        "files": 2,
        "changes": [
            {"Kind": 1, "Path": f"/tmp/{EVIL}"},
            {"Kind": 0, "Path": "/tmp"},
            {"Kind": 2, "Path": "/x"},
        ],
    },
    "note": "Something is not known.",
}

CONTAINER: dict[str, Any] = {
    "Id": "0123456789abcdef" * 4,
    "Name": "/web",
    "Path": "sh",
    "Args": ["-c", f"echo {EVIL}"],
    "Config": {"Image": "nginx"},
    "State": {
        "Status": "running",
        "Running": True,
        "ExitCode": 0,
        "StartedAt": "2024-05-01T12:30:05.123456789Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
        "Health": {"Status": "healthy"},
    },
    "HostConfig": {"Memory": 67108864, "NanoCpus": 500_000_000, "PidsLimit": 20, "ReadonlyRootfs": True},
    "NetworkSettings": {
        "Ports": {
            "443/tcp": None,
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        },
        "Networks": {"bridge": {"IPAddress": "172.17.0.2"}},
    },
    "Mounts": [{"Type": "volume", "Name": "data", "Source": "/x", "Destination": "/var/lib/data"}],
}

IMAGE: dict[str, Any] = {
    "Id": "sha256:" + "ab" * 32,
    "RepoTags": ["my-app:latest", "my-app:1"],
    "Size": 1_980_000,
    "Os": "linux",
    "Architecture": "arm64",
    "Variant": "v8",
    "Created": "2024-05-01T12:30:05Z",
    "RootFS": {"Layers": ["sha256:1", "sha256:2"]},
    "Config": {
        "Entrypoint": ["/entry point"],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "WorkingDir": "/srv",
        "User": "nobody",
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"evil": EVIL},
    },
}

NETWORK: dict[str, Any] = {
    "Id": "cd" * 32,
    "Name": "mynet",
    "Driver": "bridge",
    "Scope": "local",
    "Internal": True,
    "IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]},
    "Containers": {
        "1": {"Name": "web", "IPv4Address": "172.18.0.3/16"},
        "2": {"Name": "db", "IPv4Address": "172.18.0.2/16"},
    },
}

VOLUME: dict[str, Any] = {
    "Name": "data",
    "Driver": "local",
    "Scope": "local",
    "Mountpoint": "/var/lib/volumes/data/_data",
    "CreatedAt": "2024-05-01T12:30:05Z",
    "Labels": {"a": "b"},
}


def stats(second: int, **changes: Any) -> dict[str, Any]:
    """One object of the stats stream, `second` seconds after the first: half of one CPU of two used."""
    return {
        "read": f"2024-05-01T12:30:{second:02}.000000001Z",
        "cpu_stats": {
            "cpu_usage": {"total_usage": 500_000_000 * second},
            "system_cpu_usage": 2_000_000_000 * second,
            "online_cpus": 2,
        },
        "precpu_stats": {},
        "memory_stats": {
            "usage": 30 * 2**20,
            "limit": 64 * 2**20,
            "stats": {"total_inactive_file": 10 * 2**20},
        },
        "pids_stats": {"current": 3},
        "networks": {"eth0": {"rx_bytes": 1000 * second, "tx_bytes": 10 * second}},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"op": "Read", "value": 4096 * second},
                {"op": "Write", "value": 0},
                {"op": "Total", "value": 4096 * second},
            ]
        },
        **changes,
    }
