"""docker-py on volumes."""

import docker
import pytest
from docker.errors import APIError, NotFound
from docker.types import DriverConfig, Mount


def test_a_volume(api: docker.APIClient, client: docker.DockerClient) -> None:
    volume = client.volumes.create("made", driver="local", labels={"of": "test"})
    assert (volume.name, volume.id) == ("made", "made")
    assert volume.short_id == volume.id[:12]
    volume.reload()
    assert volume == client.volumes.get("made")
    assert volume.attrs["Labels"] == {"of": "test"} and volume.attrs["Mountpoint"].endswith("/made/_data")
    assert api.inspect_volume("made") == volume.attrs
    # Made again, it is the same one.
    assert client.volumes.create("made") == volume
    volume.remove()
    with pytest.raises(NotFound, match="no such volume"):
        client.volumes.get("made")
    with pytest.raises(NotFound):
        api.remove_volume("made")


def test_a_volume_without_a_name(client: docker.DockerClient) -> None:
    volume = client.volumes.create()
    assert len(volume.name) == 64
    volume.remove(force=True)


def test_drivers_and_options_that_are_not(api: docker.APIClient, client: docker.DockerClient) -> None:
    with pytest.raises(APIError) as caught:
        api.create_volume("odd", driver_opts={"nosuch": "1"})
    assert (caught.value.status_code, caught.value.explanation) == (
        400,
        'create odd: invalid option: "nosuch"',
    )
    with pytest.raises(APIError) as caught:
        client.volumes.create("other", driver="nosuch")
    assert (caught.value.status_code, caught.value.explanation) == (
        404,
        'create other: error looking up volume plugin nosuch: plugin "nosuch" not found',
    )


def test_lists(api: docker.APIClient, client: docker.DockerClient) -> None:
    one, two = client.volumes.create("one", labels={"which": "1"}), client.volumes.create("two")
    client.containers.create("busybox", volumes=["two:/v"])
    assert sorted(volume.name for volume in client.volumes.list()) == ["one", "two"]
    assert client.volumes.list(filters={"dangling": True}) == [one]
    assert client.volumes.list(filters={"dangling": False}) == [two]
    assert client.volumes.list(filters={"label": "which=1", "driver": "local"}) == [one]
    assert [volume["Name"] for volume in api.volumes(filters={"name": "tw"})["Volumes"]] == ["two"]
    assert client.volumes.list(filters={"name": "nosuch"}) == []


def test_what_is_in_a_volume_outlives_its_containers(client: docker.DockerClient) -> None:
    mount = Mount("/v", "kept", labels={"by": "a mount"}, driver_config=DriverConfig("local"))
    client.containers.run("busybox", "sh -c 'echo kept >/v/file'", mounts=[mount], remove=True)
    volume = client.volumes.get("kept")
    assert volume.attrs["Labels"] == {"by": "a mount"}
    read = client.containers.run("busybox", "cat /v/file", volumes=["kept:/v:ro"], remove=True)
    assert read == b"kept\n"
    container = client.containers.create("busybox", volumes=["kept:/v"])
    with pytest.raises(APIError) as caught:
        volume.remove()
    assert (caught.value.status_code, "volume is in use" in caught.value.explanation) == (409, True)
    container.remove(v=True)
    volume.remove()


def test_prune(api: docker.APIClient, client: docker.DockerClient) -> None:
    client.volumes.create("named")
    unnamed = client.volumes.create().name
    client.volumes.create("labelled", labels={"keep": "1"})
    assert client.volumes.prune()["VolumesDeleted"] == [unnamed]
    pruned = client.volumes.prune(filters={"all": True, "label!": "keep=1"})
    assert pruned == {"VolumesDeleted": ["named"], "SpaceReclaimed": 0}
    assert api.prune_volumes(filters={"all": True})["VolumesDeleted"] == ["labelled"]
