"""`docker image …`: the value of `pull`, `tag`, `import` is the image; of `ls` and `history` a table; of
`load` a list."""

from pathlib import Path
from typing import Any

import click

from dockmagic.errors import DockmagicError
from dockmagic.grammar import filters, template
from dockmagic.grammar.build import build
from dockmagic.grammar.container import inspected, one_or_all
from dockmagic.grammar.copying import save_stream
from dockmagic.grammar.pulling import messages, pull_image, reference, shown, transfer
from dockmagic.grammar.session import Session, each, host_path
from dockmagic.grammar.syntax import DockerGroup, argument, option, switch
from dockmagic.grammar.values import Names

image = DockerGroup("image", help="Manage images")
image.add_command(build, "build")

IMAGE_COLUMNS = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
IMAGE_FIELDS = {
    "REPOSITORY": "Repository",
    "TAG": "Tag",
    "DIGEST": "Digest",
    "IMAGE ID": "ID",
    "CREATED": "CreatedSince",
    "SIZE": "Size",
}
HISTORY_FIELDS = {
    "IMAGE": "ID",
    "CREATED": "CreatedSince",
    "CREATED BY": "CreatedBy",
    "SIZE": "Size",
    "COMMENT": "Comment",
}


@image.command("ls", help="List images")
@switch("--all", "-a", help="Show all images (default hides intermediate images)")
@switch("--digests", help="Show digests")
@option("--filter", "-f", multiple=True, help="Filter output based on conditions provided")
@option("--format", help="Format output using a Go template, 'table TEMPLATE' or 'json'")
@switch("--no-trunc", help="Don't truncate output")
@switch("--quiet", "-q", help="Only show image IDs")
@argument("name", "[REPOSITORY[:TAG]]", required=False)
@click.pass_obj
def ls(
    session: Session,
    all: bool,
    digests: bool,
    filter: tuple[str, ...],
    format: str | None,
    no_trunc: bool,
    quiet: bool,
    name: str | None,
) -> Any:
    from dockmagic.views.tables import table

    wanted = (*filter, f"reference={name}") if name else filter
    summaries = session.get("/images/json", all=int(all), filters=filters.encoded(wanted))
    rows = [row for summary in summaries for row in image_rows(summary, no_trunc=no_trunc)]
    if quiet and not format:
        return Names(dict.fromkeys(row["ID"] for row in rows))
    if format:
        return template.listing(format, rows, IMAGE_FIELDS)
    columns = [column for column in IMAGE_FIELDS if digests or column != "DIGEST"]
    cells = [[row[IMAGE_FIELDS[column]] for column in columns] for row in rows]
    return table(cells, columns, "Images", empty="No images.")


image.add_command(ls, "list")


def image_rows(summary: dict[str, Any], *, no_trunc: bool) -> list[dict[str, Any]]:
    """One row for each tag of an image, with the fields that `docker images --format` knows."""
    from dockmagic.views.units import ago, clock, short, size

    digests = {name.partition("@")[0]: name.partition("@")[2] for name in summary.get("RepoDigests") or ()}
    tags = [tag for tag in summary.get("RepoTags") or () if tag != "<none>:<none>"]
    names = [tag.rpartition(":")[::2] for tag in tags]
    names += [(name, "<none>") for name in digests if name != "<none>" and name not in {n for n, _ in names}]
    return [
        {
            "ID": summary["Id"] if no_trunc else short(summary["Id"]),
            "Repository": repository,
            "Tag": tag,
            "Digest": digests.get(repository, "<none>"),
            "CreatedSince": ago(summary["Created"]),
            "CreatedAt": clock(summary["Created"]),
            "Size": size(summary["Size"]),
        }
        for repository, tag in names or [("<none>", "<none>")]
    ]


@image.command("pull", help="Download an image from a registry")
@switch("--all-tags", "-a", help="Download all tagged images in the repository")
@switch("--disable-content-trust", help="Skip image verification (no effect)")
@option("--platform", help="Set platform if server is multi-platform capable")
@switch("--quiet", "-q", help="Suppress verbose output")
@argument("name", "NAME[:TAG|@DIGEST]")
@click.pass_obj
def pull(
    session: Session,
    name: str,
    all_tags: bool,
    disable_content_trust: bool,
    platform: str | None,
    quiet: bool,
) -> Any:
    if all_tags:
        transfer(session, "/images/create", {"fromImage": name}, name, f"Pulling {name}", quiet=quiet)
        return session.client.images.list(name)
    return pull_image(session, name, platform=platform, quiet=quiet)


@image.command("push", help="Upload an image to a registry")
@switch("--all-tags", "-a", help="Push all tags of an image to the repository")
@switch("--disable-content-trust", help="Skip image signing (no effect)")
@switch("--quiet", "-q", help="Suppress verbose output")
@argument("name", "NAME[:TAG]")
@click.pass_obj
def push(session: Session, name: str, all_tags: bool, disable_content_trust: bool, quiet: bool) -> Any:
    repository, tag = reference(name)
    params = {} if all_tags else {"tag": tag}
    transfer(session, f"/images/{repository}/push", params, repository, f"Pushing {name}", quiet=quiet)
    return session.client.images.get(name)


@image.command("inspect", help="Display detailed information on one or more images")
@option("--format", "-f", help="Format output using a Go template, or 'json'")
@argument("images", "IMAGE [IMAGE...]", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, images: tuple[str, ...], format: str | None) -> Any:
    return inspected(each(images, lambda name: session.get(f"/images/{name}/json")), format)


@image.command("history", help="Show the history of an image")
@option("--format", help="Format output using a Go template, 'table TEMPLATE' or 'json'")
@switch("--human", "-H", help="Has no effect: sizes and dates are human readable")
@switch("--no-trunc", help="Don't truncate output")
@switch("--quiet", "-q", help="Only show image IDs")
@argument("name", "IMAGE")
@click.pass_obj
def history(session: Session, name: str, format: str | None, human: bool, no_trunc: bool, quiet: bool) -> Any:
    from dockmagic.views.tables import table
    from dockmagic.views.units import ago, short, shorten, size

    rows = [
        {
            "ID": entry["Id"] if no_trunc or entry["Id"] == "<missing>" else short(entry["Id"]),
            "CreatedSince": ago(entry["Created"]),
            "CreatedBy": entry["CreatedBy"] if no_trunc else shorten(entry["CreatedBy"], 45),
            "Size": size(entry["Size"]),
            "Comment": entry["Comment"],
        }
        for entry in session.get(f"/images/{name}/history")
    ]
    if quiet:
        return Names(row["ID"] for row in rows)
    if format:
        return template.listing(format, rows, HISTORY_FIELDS)
    cells = [[row[field] for field in HISTORY_FIELDS.values()] for row in rows]
    return table(cells, list(HISTORY_FIELDS), f"History of {name}")


@image.command("tag", help="Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE")
@argument("source", "SOURCE_IMAGE[:TAG]")
@argument("target", "TARGET_IMAGE[:TAG]")
@click.pass_obj
def tag(session: Session, source: str, target: str) -> Any:
    repository, name = reference(target)
    session.post(f"/images/{source}/tag", repo=repository, tag=name)
    return session.client.images.get(target)


@image.command("rm", help="Remove one or more images")
@switch("--force", "-f", help="Force removal of the image")
@switch("--no-prune", help="Do not delete untagged parents")
@argument("images", "IMAGE [IMAGE...]", nargs=-1, required=True)
@click.pass_obj
def rm(session: Session, images: tuple[str, ...], force: bool, no_prune: bool) -> Names:
    answers = each(images, lambda name: session.api.remove_image(name, force=force, noprune=no_prune))
    return Names(_gone(entry) for answer in answers for entry in answer)


def _gone(entry: dict[str, str]) -> str:
    return f"Untagged: {entry['Untagged']}" if "Untagged" in entry else f"Deleted: {entry['Deleted']}"


@image.command("prune", help="Remove unused images")
@switch("--all", "-a", help="Remove all unused images, not just dangling ones")
@option("--filter", multiple=True, help="Provide filter values (e.g. 'until=<timestamp>')")
@switch("--force", "-f", help="Has no effect: a magic does not ask")
@click.pass_obj
def prune(session: Session, all: bool, filter: tuple[str, ...], force: bool) -> Names:
    from dockmagic.views.units import size

    wanted = (*filter, f"dangling={'false' if all else 'true'}")
    answer = session.post("/images/prune", filters=filters.encoded(wanted))
    session.cell.write(f"Total reclaimed space: {size(answer.get('SpaceReclaimed') or 0)}\n")
    return Names(_gone(entry) for entry in answer.get("ImagesDeleted") or ())


@image.command("save", help="Save one or more images to a tar archive")
@option("--output", "-o", required=True, help="Write to a file")
@argument("images", "IMAGE [IMAGE...]", nargs=-1, required=True)
@click.pass_obj
def save(session: Session, images: tuple[str, ...], output: str) -> Path:
    response = session.stream("GET", "/images/get", params={"names": list(images)})
    return save_stream(response, Path(host_path(output)))


@image.command("load", help="Load an image from a tar archive")
@option("--input", "-i", "source", required=True, help="Read from tar archive file")
@switch("--quiet", "-q", help="Suppress the load output")
@click.pass_obj
def load(session: Session, source: str, quiet: bool) -> Any:
    loaded: list[str] = []
    with _opened(source) as archive:
        response = session.stream("POST", "/images/load", data=archive, params={"quiet": int(quiet)})
        seen: list[dict[str, Any]] = []
        error = shown(session, _noting(messages(response), seen), f"Loading {source}", quiet=quiet)
    if error:
        raise DockmagicError(error)
    for message in seen:
        for prefix in ("Loaded image: ", "Loaded image ID: "):
            text = (message.get("stream") or "").strip()
            if text.startswith(prefix):
                loaded.append(text.removeprefix(prefix))
    return one_or_all([session.client.images.get(name) for name in loaded])


def _noting(stream: Any, seen: list[dict[str, Any]]) -> Any:
    for message in stream:
        seen.append(message)
        yield message


def _opened(source: str) -> Any:
    try:
        return Path(host_path(source)).open("rb")
    except OSError as error:
        raise DockmagicError(f"open {source}: {(error.strerror or str(error)).lower()}") from None


@image.command("import", help="Import the contents from a tarball to create a filesystem image")
@option("--change", "-c", multiple=True, help="Apply Dockerfile instruction to the created image")
@option("--message", "-m", help="Set commit message for imported image")
@option("--platform", help="Set platform if server is multi-platform capable")
@argument("source", "file|URL")
@argument("name", "[REPOSITORY[:TAG]]", required=False)
@click.pass_obj
def import_(
    session: Session,
    source: str,
    name: str | None,
    change: tuple[str, ...],
    message: str | None,
    platform: str | None,
) -> Any:
    from_url = "://" in source
    params: dict[str, Any] = {"fromSrc": source if from_url else "-", "changes": list(change)}
    params.update({k: v for k, v in (("message", message), ("platform", platform)) if v})
    if name:
        params["repo"], params["tag"] = reference(name)
    if from_url:
        return _imported(session, session.stream("POST", "/images/create", params=params))
    with _opened(source) as archive:
        return _imported(session, session.stream("POST", "/images/create", params=params, data=archive))


def _imported(session: Session, response: Any) -> Any:
    """The image whose id the engine names last."""
    identity = ""
    for answer in messages(response):
        if answer.get("error"):
            raise DockmagicError(answer["error"])
        identity = answer.get("status", identity)
    return session.client.images.get(identity)


@image.command("layers", help="Show an image's layers: size, cached or built, shared by whom (dockmagic)")
@argument("name", "IMAGE")
@click.pass_obj
def layers(session: Session, name: str) -> Any:
    from dockmagic.views.layers import Layers

    return Layers(session.client, session.client.images.get(name))
