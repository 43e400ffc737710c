"""What each layer of an image does to its files, and what of them is hidden by later ones."""

import os
from pathlib import Path

from dockmagic_runtime.images.contents import LARGEST, contents
from dockmagic_runtime.storage import overlayform


def made(root: Path, **files: int) -> Path:
    for name, size in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return root


def delete(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    fd = os.open((root / path).parent, os.O_RDONLY)
    overlayform.make_whiteout(fd, os.fsencode(Path(path).name))
    os.close(fd)


def counts(layer: dict[str, int]) -> tuple[int, int, int, int]:
    return layer["added"], layer["changed"], layer["removed"], layer["hidden"]


def test_added_changed_removed_and_hidden(tmp_path: Path) -> None:
    first = made(tmp_path / "1", a=10, b=20, dir__c=30, dir__d=40, other=1)
    second = made(tmp_path / "2", a=100, dir__new=7)
    delete(second, "b")
    third = made(tmp_path / "3", dir__c=300, other__now=5)
    fd = os.open(third / "dir", os.O_RDONLY)
    overlayform.make_opaque(fd)
    os.close(fd)
    fourth = tmp_path / "4"
    delete(fourth, "other")
    one, two, three, four = contents([first, second, third, fourth])
    assert counts(one) == (5, 0, 0, 10 + 20 + 30 + 40 + 1)
    assert counts(two) == (1, 1, 1, 7)
    # The opaque directory removes what was in it but for the file that is there again; a file became one.
    assert counts(three) == (1, 1, 3, 5)
    assert counts(four) == (0, 0, 1, 0)
    assert two["largest"][0] == {"kind": "changed", "path": "/a", "size": 100}
    assert {"kind": "removed", "path": "/b", "size": 20} in two["largest"]
    assert {"kind": "added", "path": "/dir/new", "size": 7, "hidden": True} in two["largest"]
    assert all(each.get("hidden") for each in one["largest"]), "all five are hidden in the end"


def test_of_many_files_the_largest_are_named(tmp_path: Path) -> None:
    layer = made(tmp_path / "1", **{f"f{number}": number for number in range(LARGEST + 5)})
    (told,) = contents([layer])
    assert told["added"] == LARGEST + 5 and len(told["largest"]) == LARGEST
    assert told["largest"][0]["path"] == f"/f{LARGEST + 4}"


def test_links_count_once(tmp_path: Path) -> None:
    layer = made(tmp_path / "1", a=1000)
    (layer / "b").hardlink_to(layer / "a")
    (told,) = contents([layer])
    assert [(each["path"], each["size"]) for each in told["largest"]] == [("/a", 1000), ("/b", 0)]
