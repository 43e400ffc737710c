"""What a build is lent: `--secret`, `--ssh`, `--allow`.

They are posted before the build, and the build takes them by the ID of that answer. Only dockmagic's own
engine has the address they go to.
"""

import base64
import os
from pathlib import Path
from typing import Any

from dockmagic.errors import DockmagicError
from dockmagic.grammar.session import Session, host_path

PATH = "/dockmagic/build-sessions"


def lent(session: Session, given: dict[str, Any]) -> str | None:
    """The ID for `POST /build?session=`, or None if nothing is lent. Raises DockmagicError."""
    asked = {
        "Secrets": dict(map(_secret, given["secret"])),
        "Agents": dict(map(_agent, given["ssh"])),
        "Allow": list(given["allow"]),
    }
    if not any(asked.values()):
        return None
    from dockmagic.views.engine import is_ours

    if not is_ours(session.client):
        raise DockmagicError(
            "--secret, --ssh and --allow need dockmagic's own engine: this one's builds cannot take them"
        )
    api = session.api
    answer = api._post_json(f"{api.base_url}{PATH}", asked)
    return str(api._result(answer, json=True)["Id"])


def _secret(text: str) -> tuple[str, str]:
    """`id=key,src=file`, `id=key,env=NAME`; `src` is the ID's own name where neither is given."""
    fields = _fields(text, {"id", "src", "source", "env", "type"})
    identity = fields.get("id") or ""
    if not identity:
        raise DockmagicError(f"--secret {text}: an id is needed, as in id=key,src=key.txt")
    source = fields.get("src") or fields.get("source")
    if name := fields.get("env") or (source if fields.get("type") == "env" else None):
        if name not in os.environ:
            raise DockmagicError(f"--secret {text}: the environment has no variable {name}")
        value = os.environb[os.fsencode(name)]
    elif source is None and identity in os.environ and fields.get("type") != "file":
        value = os.environb[os.fsencode(identity)]
    else:
        path = Path(host_path(source or identity))
        try:
            value = path.read_bytes()
        except OSError as error:
            raise DockmagicError(f"--secret {text}: {path}: {error.strerror}") from None
    return identity, base64.b64encode(value).decode()


def _agent(text: str) -> tuple[str, str]:
    """`default`, or `id=/path/of/a/socket`."""
    identity, _, path = text.partition("=")
    path = host_path(path) if path else os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise DockmagicError(f"--ssh {text}: there is no agent: SSH_AUTH_SOCK is not set")
    if not Path(path).is_socket():
        raise DockmagicError(
            f"--ssh {text}: {path} is not the socket of an agent; add the key to one (ssh-add)"
        )
    return identity, str(Path(path).absolute())


def _fields(text: str, known: set[str]) -> dict[str, str]:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    for key in fields:
        if key not in known:
            raise DockmagicError(f"--secret {text}: unexpected key '{key}'")
    return fields
