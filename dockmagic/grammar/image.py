"""`docker image …`: the value of `pull`, `tag`, `import` is the image; of `ls` and `history` a table; of
`load` a list."""

import json
from pathlib import Path
from typing import Any

import click

from dockmagic.errors import DockmagicError, UsageMistake
from dockmagic.grammar import pruning, rows
from dockmagic.grammar.build import build, explained
from dockmagic.grammar.copying import opened, output_path, save_stream
from dockmagic.grammar.filters import Filter, encoded
from dockmagic.grammar.kinds import Kind
from dockmagic.grammar.listing import (
    LISTING_FORMAT,
    filter_option,
    format_option,
    inspected,
    listed,
    listing_options,
    no_trunc_option,
)
from dockmagic.grammar.pruning import force_switch
from dockmagic.grammar.pulling import messages, pull_image, reference, shown, transfer
from dockmagic.grammar.session import Session, each, host_path, one_or_all
from dockmagic.grammar.syntax import DockerGroup, argument, option, refused_switch, switch
from dockmagic.grammar.values import Names

image = DockerGroup("image", help="Manage images")
image.add_command(build, "build")

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


def platform(text: str) -> str:
    """`linux/arm64/v8` as the API takes it: a JSON object."""
    parts = dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))
    if not 2 <= len(text.split("/")) <= 3 or not all(parts.values()):
        raise ValueError("a platform is os/architecture[/variant], such as linux/arm64")
    return json.dumps(parts)


PLATFORM = Kind("platform", platform)


def platform_option(since: str) -> Any:
    return option(
        "--platform", type=PLATFORM, since=since, help="Only this platform of the image (e.g. linux/amd64)"
    )


@image.command("ls", help="List images")
@switch("--all", "-a", help="Show all images (default hides intermediate images)")
@switch("--digests", help="Show digests")
@listing_options
@no_trunc_option
@refused_switch(
    "--tree", why="the engine keeps one platform of an image; see %image layers NAME for its parts"
)
@argument("name", "[REPOSITORY[:TAG]]", required=False)
@click.pass_obj
def ls(
    session: Session,
    all: bool,
    digests: bool,
    filter: tuple[Filter, ...],
    format: str | None,
    no_trunc: bool,
    quiet: bool,
    name: str | None,
) -> Any:
    wanted = (*filter, ("reference", name)) if name else filter
    summaries = session.get("/images/json", all=int(all), filters=encoded(wanted))
    told = digests or "{{.Digest}}" in (format or "")
    return listed(
        [row for each in summaries for row in rows.of_image(each, no_trunc=no_trunc, digests=told)],
        IMAGE_FIELDS,
        "Images",
        empty="No images.",
        format=format,
        names="ID" if quiet else None,
        columns=[column for column in IMAGE_FIELDS if digests or column != "DIGEST"],
    )


image.add_command(ls, "list")


@image.command("pull", help="Download an image from a registry")
@switch("--all-tags", "-a", help="Download all tagged images in the repository")
@switch("--disable-content-trust", hidden=True, expose_value=False)
@option("--platform", help="Set platform if server is multi-platform capable")
@switch("--quiet", "-q", help="Suppress verbose output")
@argument("name", "NAME[:TAG|@DIGEST]")
@click.pass_obj
def pull(
    session: Session,
    name: str,
    all_tags: bool,
    platform: str | None,
    quiet: bool,
) -> Any:
    if all_tags:
        if reference(name) != (name, "latest"):
            raise UsageMistake("tag can't be used with --all-tags/-a")
        transfer(session, "/images/create", {"fromImage": name}, name, f"Pulling {name}", quiet=quiet)
        return session.client.images.list(name)
    return pull_image(session, name, platform=platform, quiet=quiet)


@image.command("push", help="Upload an image to a registry")
@switch("--all-tags", "-a", help="Push all tags of an image to the repository")
@switch("--disable-content-trust", hidden=True, expose_value=False)
@platform_option("1.46")
@switch("--quiet", "-q", help="Suppress verbose output")
@argument("name", "NAME[:TAG]")
@click.pass_obj
def push(session: Session, name: str, all_tags: bool, platform: str | None, quiet: bool) -> Any:
    repository, tag = reference(name)
    params = {} if all_tags else {"tag": tag}
    if platform:
        params["platform"] = platform
    transfer(session, f"/images/{repository}/push", params, repository, f"Pushing {name}", quiet=quiet)
    return session.client.images.get(name)


@image.command("inspect", help="Display detailed information on one or more images")
@format_option("--format", "-f")
@platform_option("1.49")
@argument("images", "IMAGE [IMAGE...]", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, images: tuple[str, ...], format: str | None, platform: str | None) -> Any:
    return inspected(
        each(images, lambda name: session.get(f"/images/{name}/json", platform=platform)), format
    )


@image.command("history", help="Show the history of an image")
@format_option(help=LISTING_FORMAT)
@switch("--human", "-H", default=True, help="Print sizes and dates in human readable format (default true)")
@no_trunc_option
@platform_option("1.48")
@switch("--quiet", "-q", help="Only show image IDs")
@argument("name", "IMAGE")
@click.pass_obj
def history(
    session: Session,
    name: str,
    format: str | None,
    human: bool,
    no_trunc: bool,
    platform: str | None,
    quiet: bool,
) -> Any:
    entries = session.get(f"/images/{name}/history", platform=platform)
    steps = [rows.of_history(entry, human=human, no_trunc=no_trunc) for entry in entries]
    if quiet:
        return Names(step["ID"] for step in steps)
    return listed(steps, HISTORY_FIELDS, f"History of {name}", empty="No history.", format=format)


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
@option("--platform", type=PLATFORM, multiple=True, since="1.50", help="Remove only these platforms")
@argument("images", "IMAGE [IMAGE...]", nargs=-1, required=True)
@click.pass_obj
def rm(
    session: Session, images: tuple[str, ...], force: bool, no_prune: bool, platform: tuple[str, ...]
) -> Names:
    def remove(name: str) -> Any:
        params = {"force": int(force), "noprune": int(no_prune), "platforms": list(platform)}
        return session.delete(f"/images/{name}", **params)

    return Names(pruning.deleted(entry) for answer in each(images, remove) for entry in answer)


image.add_command(rm, "remove")


@image.command("prune", help="Remove unused images")
@switch("--all", "-a", help="Remove all unused images, not just dangling ones")
@filter_option()
@force_switch
@click.pass_obj
def prune(session: Session, all: bool, filter: tuple[Filter, ...], force: bool) -> Names:
    return pruning.prune(session, pruning.images(filter, all=all), force=force)


@image.command("save", help="Save one or more images to a tar archive")
@option("--output", "-o", help="Write to a file")
@platform_option("1.48")
@argument("images", "IMAGE [IMAGE...]", nargs=-1, required=True)
@click.pass_obj
def save(session: Session, images: tuple[str, ...], output: str | None, platform: str | None) -> Path:
    target = output_path(output)
    params = {"names": list(images), "platform": platform}
    return save_stream(session.stream("GET", "/images/get", params=params), target)


@image.command("load", help="Load an image from a tar archive")
@option("--input", "-i", "source", help="Read from tar archive file")
@platform_option("1.48")
@switch("--quiet", "-q", help="Suppress the load output")
@click.pass_obj
def load(session: Session, source: str | None, platform: str | None, quiet: bool) -> Any:
    if source is None:
        raise UsageMistake("requested load from stdin, but stdin is empty: name the archive with --input")
    loaded: list[str] = []
    with opened(source) as archive:
        params = {"quiet": int(quiet), "platform": platform}
        response = session.stream("POST", "/images/load", data=archive, params=params)
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
    if source == "-":
        raise UsageMistake("a cell's body is text and no archive: name the file or the URL to import")
    from_url = "://" in source
    params: dict[str, Any] = {"fromSrc": source if from_url else "-", "changes": list(change)}
    params.update({k: v for k, v in (("message", message), ("platform", platform)) if v})
    if name:
        params["repo"], params["tag"] = reference(name)
    if from_url:
        return _imported(session, session.stream("POST", "/images/create", params=params))
    with opened(source) as archive:
        return _imported(session, session.stream("POST", "/images/create", params=params, data=archive))


def _imported(session: Session, response: Any) -> Any:
    """The image whose id the engine names last."""
    identity = ""
    for answer in messages(response):
        if answer.get("error"):
            raise DockmagicError(answer["error"])
        identity = answer.get("status", identity)
    return session.client.images.get(identity)


@image.command("explain", help="Say what each line of a Dockerfile does to the image (dockmagic)")
@option("--target", help="Set the target build stage")
@argument("file", "FILE | DIRECTORY")
@click.pass_obj
def explain(session: Session, file: str, target: str | None) -> Any:
    path = Path(host_path(file))
    path = path / "Dockerfile" if path.is_dir() else path
    try:
        text = path.read_text(errors="replace")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DockmagicError(f"{path}: {reason}") from None
    return explained(session, text, path.parent, target, path)


@image.command("layers", help="Show an image's layers: size, cached or built, shared by whom (dockmagic)")
@argument("name", "IMAGE")
@click.pass_obj
def layers(session: Session, name: str) -> Any:
    from dockmagic.views.layers import Layers

    return Layers(session.client, session.client.images.get(name))
