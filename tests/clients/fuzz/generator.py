"""Requests made up from `endpoints.json`: mostly what the description allows, in some places what it doesn't.

Everything follows from one seed, so that what has failed can be asked again. Bodies are broken in four ways:
values of another type, values beyond all bounds, JSON that is none, and bytes that are no tar.
"""

import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.clients.fuzz.extract import ENDPOINTS

Json = dict[str, Any]

_TEXTS = (
    *(
        "",
        " ",
        "x",
        "-",
        "a b",
        "/",
        "..",
        "../../etc/passwd",
        "/etc",
        "a:b:c",
        "0",
        "-1",
        "true",
        "null",
        "none",
    ),
    *("%s%n", "${PATH}", "a\x00b", "\n", "\u2028", "é漢字🙂", "\ud800", "'\"`;|&", "x" * 300, "x" * 70_000),
    *(
        "busybox",
        "host",
        "bridge",
        "container:x",
        "127.0.0.1",
        "::",
        "999.1.1.1",
        "80/tcp",
        "65536",
        "1-2",
        "{}",
    ),
    *(
        "[]",
        '{"a":{"b":true}}',
        "KILL",
        "SIGXYZ",
        "json-file",
        "on-failure",
        "sha256:" + "0" * 64,
        "0s",
        "1e9",
    ),
)
_NUMBERS = (
    0,
    1,
    -1,
    2,
    80,
    1000,
    2**31,
    -(2**31) - 1,
    2**53,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**30,
    0.5,
    1e308,
)
_OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[[]]],
    [None],
    {"": None},
    {"a": {"b": [1]}},
    "text",
    7,
    -1.5,
)
_NOT_JSON = (
    b"{",
    b"[1,",
    b"nonsense",
    b"\xff\xfe",
    b'{"a":1}{"b":2}',
    b"[" * 100_000,
    b'{"a":NaN}',
    b"\x00",
    b"7",
    b"[]",
)
# Questions that may rightly take as long as the client wants to wait.
PATIENT = (
    "/wait",
    "/stop",
    "/restart",
    "/events",
    "/stats",
    "/logs",
    "/attach",
    "/exec/",
    "/build",
    "/images/create",
)


@dataclass(frozen=True)
class Request:
    """What goes over the socket, and the endpoint it was made for."""

    endpoint: str
    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __str__(self) -> str:
        headers = {name: value[:50] for name, value in self.headers.items()}
        return f"{self.method} {self.target[:300]} {headers} {self.body[:1000]!r}"


class Generator:
    """`names` are what exists, by the kind of thing: container, image, network, volume, exec."""

    def __init__(self, seed: int, names: Mapping[str, Sequence[str]]) -> None:
        self._random = random.Random(seed)
        self._names = names
        self._endpoints: list[Json] = json.loads(ENDPOINTS.read_text())

    def requests(self, rounds: int) -> Iterator[Request]:
        """So many for each endpoint, in an order of its own in each round."""
        for _ in range(rounds):
            for entry in self._random.sample(self._endpoints, len(self._endpoints)):
                yield self._request(entry)

    def _request(self, entry: Json) -> Request:
        choose = self._random
        path = entry["path"]
        for kind, placeholder in (
            ("exec", "/exec/{id}"),
            ("network", "/networks/{id}"),
            ("container", "/{id}"),
        ):
            path = path.replace(placeholder, placeholder.replace("{id}", self._name(kind)))
        kind = "volume" if path.startswith("/volumes") else "image"
        path = path.replace("{name}", self._name(kind)).replace("{id}", self._name("container"))
        query = [
            f"{name}={quote(self._parameter(name, kind), safe='')}"
            for name, kind in entry.get("query", {}).items()
            if choose.random() < 0.5
            for _ in range(choose.choice((1, 1, 1, 2)))
        ]
        version = choose.choice(("", "", "/v1.47", "/v1.24", "/v1.40", "/v1.99", "/v0.1"))
        headers, body = self._body(entry.get("body"))
        if choose.random() < 0.1:
            headers["X-Registry-Auth"] = choose.choice(("", "e30=", "nonsense", "eyJhIjoxfQ==", "x" * 9000))
        target = version + path + ("?" + "&".join(query) if query else "")
        return Request(f"{entry['method']} {entry['path']}", entry["method"], target, headers, body)

    def _name(self, kind: str) -> str:
        choose = self._random
        known = self._names.get(kind)
        if known and choose.random() < 0.6:
            return quote(choose.choice(known), safe="")
        return quote(choose.choice(_TEXTS).encode("utf-8", "surrogatepass"), safe="/")

    def _parameter(self, name: str, kind: Any) -> str | bytes:
        choose = self._random
        if name == "filters" and choose.random() < 0.8:
            keys = ("label", "name", "id", "status", "until", "dangling", "before", "type", "event", "x")
            values: Any = [choose.choice(_TEXTS) for _ in range(choose.choice((0, 1, 2)))]
            if choose.random() < 0.5:
                values = dict.fromkeys(values, True)
            if choose.random() < 0.1:
                values = choose.choice(_OTHERS)
            return json.dumps({choose.choice(keys): values})
        if name == "image" and choose.random() < 0.5:
            return "busybox"
        if name == "fromImage" or name == "remote" or name == "fromSrc":
            return choose.choice(
                ("-", "", "busybox", "a b", "nosuch.invalid/x", "127.0.0.1:1/x", "http://127.0.0.1:1/")
            )
        value = self._value(kind) if choose.random() < 0.6 else choose.choice((*_TEXTS, *map(str, _NUMBERS)))
        return str(value).encode("utf-8", "surrogatepass")

    def _body(self, kind: Any) -> tuple[dict[str, str], bytes]:
        choose = self._random
        if kind is None:
            return ({}, b"") if choose.random() < 0.9 else ({"Content-Type": "application/json"}, b"{}")
        if kind == "binary":
            return {"Content-Type": "application/x-tar"}, self._archive()
        headers = {"Content-Type": "application/json"}
        if choose.random() < 0.05:
            headers = choose.choice(({}, {"Content-Type": "text/plain"}, {"Content-Type": "\xff"}))
        if choose.random() < 0.1:
            return headers, choose.choice(_NOT_JSON)
        value = self._value(kind)
        if isinstance(value, dict) and "Image" in value and choose.random() < 0.8:
            value["Image"] = "busybox"
        return headers, json.dumps(value).encode("utf-8", "surrogatepass")

    def _value(self, kind: Any) -> Any:
        choose = self._random
        if choose.random() < 0.03:
            return choose.choice((*_OTHERS, *_NUMBERS, *_TEXTS))
        match kind:
            case "string" | "binary":
                return choose.choice(_TEXTS)
            case "integer" | "number":
                return choose.choice(_NUMBERS)
            case "boolean":
                return choose.random() < 0.5
            case "any":
                return choose.choice(_OTHERS)
            case list():
                return choose.choice(kind)
            case {"[]": item}:
                return [self._value(item) for _ in range(choose.choice((0, 1, 1, 2)))]
            case {"{}": item}:
                return {choose.choice(_TEXTS): self._value(item) for _ in range(choose.choice((0, 1, 1, 2)))}
        # Most fields are left out, or hardly anything would ever get past the first that is wrong.
        chance = min(0.5, 3 / max(1, len(kind)))
        return {name: self._value(item) for name, item in kind.items() if choose.random() < chance}

    def _archive(self) -> bytes:
        choose = self._random
        spool = io.BytesIO()
        with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for _ in range(choose.randrange(4)):
                name = choose.choice(
                    ("Dockerfile", "manifest.json", "file", "../up", "/abs", "a/b", "x" * 300)
                )
                content = choose.choice(
                    (b"", b"FROM busybox\n", b"FROM x\nRUN", b"[]", b'[{"Config":"../x"}]', b"{")
                )
                member = tarfile.TarInfo(name)
                member.type = choose.choice(
                    (tarfile.REGTYPE,) * 4 + (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)
                )
                member.linkname = choose.choice(("", "/etc", "../.."))
                member.size = len(content) if member.type == tarfile.REGTYPE else 0
                tar.addfile(member, io.BytesIO(content))
        whole = spool.getvalue()
        if choose.random() < 0.3:
            return whole[: choose.randrange(len(whole))]
        if choose.random() < 0.2:
            return choose.randbytes(2000)
        return whole
