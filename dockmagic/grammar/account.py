"""`docker login`, `logout` and `search`: a registry and who one is there.

The password is kept where the docker command keeps it, so that either finds what the other has stored: in the
credential store that Docker's configuration names, else in that file itself.
"""

import base64
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import click

from dockmagic.errors import DockmagicError, UsageMistake
from dockmagic.grammar.filters import Filter, encoded
from dockmagic.grammar.kinds import INTEGER
from dockmagic.grammar.listing import LISTING_FORMAT, filter_option, format_option, listed, no_trunc_option
from dockmagic.grammar.pulling import credentials
from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import DockerCommand, argument, option, switch
from dockmagic.grammar.values import Text

SEARCH_FIELDS = {
    "NAME": "Name",
    "DESCRIPTION": "Description",
    "STARS": "StarCount",
    "OFFICIAL": "IsOfficial",
}
NO_TERMINAL = (
    "Cannot perform an interactive login from a non TTY device: write the password below "
    "`%%docker login -u NAME --password-stdin`, or be asked for it: "
    "`%docker --expand login -u NAME -p {getpass()}` after `from getpass import getpass`"
)


@click.command("login", cls=DockerCommand, help="Authenticate to a registry")
@option("--password", "-p", help="Password or Personal Access Token (PAT)")
@switch("--password-stdin", help="Take the password from stdin: the cell's body")
@option("--username", "-u", help="Username")
@argument("server", "[SERVER]", required=False)
@click.pass_obj
def login(
    session: Session, server: str | None, username: str | None, password: str | None, password_stdin: bool
) -> Text:
    if password_stdin:
        if password is not None:
            raise UsageMistake("conflicting options: cannot specify both --password and --password-stdin")
        if not username:
            raise UsageMistake("the --password-stdin option requires --username to be set")
        password = (session.cell.body or "").rstrip("\r\n")
    if not username or not password:
        raise DockmagicError(f"Error: {NO_TERMINAL}")
    server = address(server)
    body = {"username": username, "password": password, "serveraddress": server}
    answer = session.post("/auth", body) or {}
    Accounts(session).add(server, username, password, answer.get("IdentityToken") or "")
    return Text(answer.get("Status") or "Login Succeeded")


@click.command("logout", cls=DockerCommand, help="Log out from a registry")
@argument("server", "[SERVER]", required=False)
@click.pass_obj
def logout(session: Session, server: str | None) -> Text:
    server = address(server)
    Accounts(session).remove(server)
    return Text(f"Removing login credentials for {server}")


@click.command("search", cls=DockerCommand, help="Search a registry for images")
@filter_option("--filter", "-f")
@format_option(help=LISTING_FORMAT)
@option("--limit", type=INTEGER, help="Max number of search results")
@no_trunc_option
@argument("term", "TERM")
@click.pass_obj
def search(
    session: Session,
    term: str,
    filter: tuple[Filter, ...],
    format: str | None,
    limit: int | None,
    no_trunc: bool,
) -> Any:
    from dockmagic.views.units import shorten

    params = {"term": term, "limit": limit, "filters": encoded(filter)}
    path, headers = session.api._url("/images/search"), credentials(session, term)
    found = session.api._result(session.api._get(path, params=params, headers=headers), json=True)
    rows = [
        {
            "Name": entry["name"],
            "Description": entry["description"] if no_trunc else shorten(entry["description"], 45),
            "StarCount": str(entry["star_count"]),
            "IsOfficial": "[OK]" if entry["is_official"] else "",
        }
        for entry in found
    ]
    return listed(rows, SEARCH_FIELDS, f"Images like {term}", empty="No images.", format=format)


def address(server: str | None) -> str:
    """The registry's name in Docker's configuration: a host, or Docker Hub's old address."""
    from docker.auth import INDEX_NAME, INDEX_URL, convert_to_hostname

    host = convert_to_hostname(server) if server else INDEX_NAME
    return INDEX_URL if host in (INDEX_NAME, f"index.{INDEX_NAME}") else host


class Accounts:
    """Docker's configuration as far as it holds accounts."""

    def __init__(self, session: Session) -> None:
        self._session = session
        folder = os.environ.get("DOCKER_CONFIG")
        self.file = (Path(folder) if folder else Path.home() / ".docker") / "config.json"

    def add(self, server: str, username: str, password: str, token: str) -> None:
        from docker.auth import TOKEN_USERNAME
        from docker.credentials.errors import StoreError

        config = self._read()
        store = self._store(config, server)
        if store is not None:
            try:
                store.store(server, TOKEN_USERNAME if token else username, token or password)
            except StoreError as error:
                raise DockmagicError(f"Error saving credentials: {error}") from None
        else:
            entry = {"identitytoken": token} if token else {}
            pair = f"{username}:{'' if token else password}"
            entry["auth"] = base64.b64encode(pair.encode()).decode()
            config.setdefault("auths", {})[server] = entry
            self._write(config)
            self._session.warn(f"Your credentials are stored unencrypted in '{self.file}'.")
        self._session.api.reload_config()

    def remove(self, server: str) -> None:
        """Forget the account; that there is none is no error, as for Docker."""
        from docker.credentials.errors import StoreError

        config = self._read()
        store = self._store(config, server)
        if store is not None:
            try:
                store.erase(server)
            except StoreError as error:
                self._session.warn(f"could not erase credentials: {error}")
        if config.get("auths", {}).pop(server, None) is not None:
            self._write(config)
        self._session.api.reload_config()

    def _store(self, config: dict[str, Any], server: str) -> Any:
        from docker.credentials import Store

        name = config.get("credHelpers", {}).get(server) or config.get("credsStore")
        return Store(name) if name else None

    def _read(self) -> dict[str, Any]:
        try:
            config: dict[str, Any] = json.loads(self.file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise DockmagicError(f"loading config file: {self.file}: {error}") from None
        return config

    def _write(self, config: dict[str, Any]) -> None:
        """Beside it first: the file also holds what is not ours."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.file.parent, delete=False) as beside:
            json.dump(config, beside, indent="\t")
        Path(beside.name).rename(self.file.resolve())
