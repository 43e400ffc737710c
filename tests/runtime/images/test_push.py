"""Push into a real registry, and back."""

import json
import re
from pathlib import Path

import pytest
from dockmagic_runtime.errors import EngineError, NotFound, Unauthorized
from dockmagic_runtime.images.push import push, push_all
from dockmagic_runtime.oci.reference import parse_reference

from tests.runtime.images.conftest import Bench
from tests.runtime.images.made import small
from tests.runtime.images.test_pull import seed
from tests.runtime.registry.servers import PASSWORD, USER, registry, run


async def test_an_image_built_here_is_pushed(bench: Bench, tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        name = parse_reference(f"{address}/mine:v1")
        made = bench.build("one", "two", names=(name.familiar(),))
        pushed = await push(bench.images, bench.registry, name, progress=bench.messages.append)
        inspected = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{address}/mine:v1"))
        assert inspected["Digest"] == pushed
        assert bench.messages[0] == {"status": f"The push refers to repository [{address}/mine]"}
        told = [message.get("status") for message in bench.messages]
        assert told.count("Pushed") == 2
        assert bench.messages[-1]["aux"]["Digest"] == pushed
        assert bench.images.get(made.id).repo_digests == [f"{address}/mine@{pushed}"]
        bench.messages.clear()
        assert await push(bench.images, bench.registry, name, progress=bench.messages.append) == pushed
        assert [message.get("status") for message in bench.messages].count("Layer already exists") == 2
        other = Bench.at(tmp_path / "other")
        assert (await other.pull(f"{address}/mine:v1")).id == made.id
        await other.registry.close()


@pytest.mark.parametrize("form", ["oci", "v2s2"])
async def test_what_was_pulled_keeps_its_digest(bench: Bench, tmp_path: Path, form: str) -> None:
    made = small()
    with registry(tmp_path) as address:
        seed(made, tmp_path, f"{address}/theirs:v1", "--format", form)
        image = await bench.pull(f"{address}/theirs:v1")
        bench.images.tag(image, parse_reference(f"{address}/copy:v2"))
        pushed = await push(bench.images, bench.registry, parse_reference(f"{address}/copy:v2"))
    assert image.repo_digests == [f"{address}/theirs@{pushed}"]


async def test_all_tags(bench: Bench, tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        bench.build("1", names=(f"{address}/mine:v1", f"{address}/mine:v2"))
        name = parse_reference(f"{address}/mine", default_tag=None)
        assert len(await push_all(bench.images, bench.registry, name)) == 2
        tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{address}/mine"))
    assert tags["Tags"] == ["v1", "v2"]


async def test_refusals(bench: Bench, tmp_path: Path) -> None:
    with registry(tmp_path, password=True) as address:
        name = parse_reference(f"{address}/mine:v1")
        with pytest.raises(NotFound, match=f"An image does not exist locally with the tag: {address}/mine"):
            await push(bench.images, bench.registry, name)
        bench.build("1", names=(name.familiar(),))
        with pytest.raises(EngineError, match=r"^no basic auth credentials$"):
            await push(bench.images, bench.registry, name)
        with pytest.raises(Unauthorized, match="unauthorized: authentication required"):
            await push(bench.images, bench.registry, name, {"username": USER, "password": "wrong"})
        await push(bench.images, bench.registry, name, {"username": USER, "password": PASSWORD})
        await bench.registry.login(address, {"username": USER, "password": PASSWORD})
        sentence = f"login attempt to http://{address}/v2/ failed with status: 401 Unauthorized"
        with pytest.raises(Unauthorized, match=re.escape(sentence)):
            await bench.registry.login(address, {"username": USER, "password": "wrong"})
