"""What the generator needs of Docker's description of its API: `python -m tests.clients.fuzz.extract FILE`.

FILE is moby's `docs/api/v1.47.yaml` (Apache-2.0). What is kept, in `endpoints.json`, are facts only: methods
and paths, names of parameters and fields, and their types. A type is one of

    "string" "integer" "boolean" "number" "binary" "any"
    ["a", "b"]           one of these strings
    {"[]": T}            an array of T
    {"{}": T}            an object that maps any name to T
    {"field": T, …}      an object with these fields
"""

import json
import sys
from pathlib import Path
from typing import Any

ENDPOINTS = Path(__file__).with_name("endpoints.json")

# What no engine without Swarm and plugins reads: their endpoints are refused whatever the body is.
_UNREAD = ("/swarm", "/services", "/secrets", "/configs", "/nodes", "/tasks", "/plugins")

Json = dict[str, Any]


def extract(description: Json) -> list[Json]:
    """One entry for each endpoint, in the order of the description."""
    found = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            if method not in ("get", "head", "post", "put", "delete"):
                continue
            entry: Json = {"method": method.upper(), "path": path}
            given = [*methods.get("parameters", []), *operation.get("parameters", [])]
            for place in ("query", "header"):
                named = {each["name"]: _type(each, description) for each in given if each["in"] == place}
                entry |= {place: named} if named else {}
            bodies = [each for each in given if each["in"] == "body"]
            if bodies and not path.startswith(_UNREAD):
                entry["body"] = _type(bodies[0]["schema"], description)
            found.append(entry)
    return found


def _type(schema: Json, description: Json) -> Any:
    if reference := schema.get("$ref"):
        return _type(description["definitions"][reference.rpartition("/")[2]], description)
    if parts := schema.get("allOf"):
        kinds = [_type(part, description) for part in parts]
        return {name: kind for each in kinds if isinstance(each, dict) for name, kind in each.items()}
    values = schema.get("enum", [])
    if values and all(isinstance(value, str) for value in values):
        return values
    if schema.get("format") == "binary":
        return "binary"
    if schema.get("type") == "array":
        return {"[]": _type(schema["items"], description)}
    if fields := schema.get("properties"):
        return {name: _type(field, description) for name, field in fields.items()}
    if isinstance(mapped := schema.get("additionalProperties"), dict):
        return {"{}": _type(mapped, description)}
    kind = schema.get("type", "any")
    return {"{}": "any"} if kind == "object" else kind


def main() -> None:
    import yaml

    entries = extract(yaml.safe_load(Path(sys.argv[1]).read_text()))
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    ENDPOINTS.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
