"""`cp`, `export` and `commit`: a container's files, out of it, into it, and as an image."""

from pathlib import Path
from typing import Any

import click

from dockmagic.grammar import copying
from dockmagic.grammar.container.group import container
from dockmagic.grammar.pulling import reference
from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import argument, option, switch


@container.command("cp", help="Copy files/folders between a container and the local filesystem")
@switch("--archive", "-a", help="Archive mode (copy all uid/gid information)")
@switch("--follow-link", "-L", help="Always follow symbol link in SRC_PATH")
@switch("--quiet", "-q", help="Suppress progress output")
@argument("source", "CONTAINER:SRC_PATH|SRC_PATH")
@argument("destination", "DEST_PATH|CONTAINER:DEST_PATH")
@click.pass_obj
def cp(session: Session, source: str, destination: str, archive: bool, follow_link: bool, quiet: bool) -> Any:
    return copying.copy(session, source, destination, archive=archive, follow_link=follow_link, quiet=quiet)


@container.command("export", help="Export a container's filesystem as a tar archive")
@option("--output", "-o", help="Write to a file")
@argument("name", "CONTAINER")
@click.pass_obj
def export(session: Session, name: str, output: str | None) -> Path:
    target = copying.output_path(output)
    return copying.save_stream(session.stream("GET", f"/containers/{name}/export"), target)


@container.command("commit", help="Create a new image from a container's changes")
@option("--author", "-a", help="Author (e.g. 'John Hannibal Smith <hannibal@a-team.com>')")
@option("--change", "-c", multiple=True, help="Apply Dockerfile instruction to the created image")
@option("--message", "-m", help="Commit message")
@switch("--pause", "-p", default=True, help="Pause container during commit (default true)")
@argument("name", "CONTAINER")
@argument("image", "[REPOSITORY[:TAG]]", required=False)
@click.pass_obj
def commit(
    session: Session,
    name: str,
    image: str | None,
    author: str | None,
    change: tuple[str, ...],
    message: str | None,
    pause: bool,
) -> Any:
    repository, tag = reference(image) if image else (None, None)
    params = {
        "container": name,
        "repo": repository,
        "tag": tag,
        "author": author,
        "comment": message,
        "pause": int(pause),
        "changes": "\n".join(change) or None,
    }
    answer = session.post("/commit", {}, **{key: value for key, value in params.items() if value is not None})
    return session.client.images.get(answer["Id"])
