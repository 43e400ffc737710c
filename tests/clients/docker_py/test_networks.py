"""docker-py on networks: made with every option, connected to and left, listed in all ways, pruned."""

import docker
import pytest
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool


def test_a_network(client: docker.DockerClient) -> None:
    pool = IPAMPool(
        "10.88.0.0/16", iprange="10.88.7.0/24", gateway="10.88.0.9", aux_addresses={"a": "10.88.7.1"}
    )
    network = client.networks.create(
        "made",
        driver="bridge",
        options={"com.docker.network.bridge.name": "dm-made"},
        ipam=IPAMConfig(driver="default", pool_configs=[pool]),
        check_duplicate=True,
        labels={"of": "test"},
        attachable=True,
        scope="local",
    )
    assert (network.name, network.short_id) == ("made", network.id[:12])
    network.reload()
    assert network == client.networks.get("made") == client.networks.get(network.id[:12])
    (config,) = network.attrs["IPAM"]["Config"]
    assert config == {
        "Subnet": "10.88.0.0/16",
        "IPRange": "10.88.7.0/24",
        "Gateway": "10.88.0.9",
        "AuxiliaryAddresses": {"a": "10.88.7.1"},
    }
    assert network.attrs["Labels"] == {"of": "test"} and network.attrs["Attachable"] is True
    # From the range, whose first address is one like any other of the subnet, and .1 is taken.
    first = client.containers.run("busybox", "sleep 1000", network="made", detach=True)
    first.reload()
    assert first.attrs["NetworkSettings"]["Networks"]["made"]["IPAddress"] == "10.88.7.0"
    second = client.containers.run("busybox", "hostname -i", network="made", remove=True)
    assert second == b"10.88.7.2\n"
    first.remove(force=True)
    network.remove()
    with pytest.raises(NotFound, match="network made not found"):
        client.networks.get("made")


def test_lists(api: docker.APIClient, client: docker.DockerClient, container: Container) -> None:
    one = client.networks.create("uno", labels={"which": "1"})
    two = client.networks.create("two", internal=True)
    two.connect(container)
    assert {network.name for network in client.networks.list()} >= {"bridge", "host", "none", "uno", "two"}
    assert client.networks.list(names=["uno"]) == client.networks.list(ids=[one.id]) == [one]
    assert client.networks.list(filters={"label": "which=1", "driver": "bridge", "type": "custom"}) == [one]
    assert client.networks.list(filters={"dangling": True}) == [one]
    (listed,) = client.networks.list("two")
    assert listed.containers == []
    (listed,) = client.networks.list("two", greedy=True)
    assert listed.containers == [container]
    assert [network["Name"] for network in api.networks(names=["tw"], filters={"scope": "local"})] == ["two"]
    with pytest.raises(APIError) as caught:
        client.networks.list(filters={"nosuch": "1"})
    assert caught.value.status_code == 400


def test_a_container_comes_and_goes(
    api: docker.APIClient, client: docker.DockerClient, container: Container
) -> None:
    pool = docker.types.IPAMPool("10.89.0.0/24")
    network = client.networks.create("joined", ipam=IPAMConfig(pool_configs=[pool]))
    network.connect(container, aliases=["db"], ipv4_address="10.89.0.77")
    network.reload()
    assert network.containers == [container]
    seen = api.inspect_network("joined", verbose=True)["Containers"][container.id]
    assert (seen["Name"], seen["IPv4Address"]) == (container.name, "10.89.0.77/24")
    container.reload()
    endpoint = container.attrs["NetworkSettings"]["Networks"]["joined"]
    assert "db" in endpoint["Aliases"] and endpoint["IPAddress"] == "10.89.0.77"
    command = "ping -c 1 -w 5 db"
    assert b"10.89.0.77" in client.containers.run("busybox", command, network="joined", remove=True)
    with pytest.raises(APIError) as caught:
        network.remove()
    assert caught.value.status_code == 403
    assert "has active endpoints" in caught.value.explanation
    network.disconnect(container)
    network.reload()
    assert network.containers == []
    with pytest.raises(APIError, match="is not connected to"):
        network.disconnect(container.name, force=False)
    api.connect_container_to_network(container.id, network.id, links=None, driver_opt={"a": "b"})
    api.disconnect_container_from_network(container.id, network.id, force=True)
    network.remove()


def test_endpoints_that_a_container_is_made_with(api: docker.APIClient, client: docker.DockerClient) -> None:
    network = api.create_network("given", ipam=IPAMConfig(pool_configs=[IPAMPool("10.90.0.0/24")]))["Id"]
    endpoint = api.create_endpoint_config(
        aliases=["web"], ipv4_address="10.90.0.5", mac_address="02:42:0a:5a:00:05"
    )
    config = api.create_networking_config({"given": endpoint})
    made = api.create_container(
        "busybox",
        "cat /sys/class/net/eth0/address",
        networking_config=config,
        host_config=api.create_host_config(network_mode="given"),
    )
    api.start(made["Id"])
    assert api.wait(made["Id"]) == {"StatusCode": 0}
    assert api.logs(made["Id"]) == b"02:42:0a:5a:00:05\n"
    model = client.containers.create(
        "busybox", "hostname -i", network="given", networking_config={"given": endpoint}
    )
    model.start()
    model.wait()
    assert model.logs() == b"10.90.0.5\n"
    client.containers.prune()
    api.remove_network(network)


def test_two_of_one_name_and_what_makes_no_sense(client: docker.DockerClient) -> None:
    client.networks.create("twice")
    with pytest.raises(APIError) as caught:
        client.networks.create("twice")
    assert (caught.value.status_code, caught.value.explanation) == (
        409,
        "network with name twice already exists",
    )
    with pytest.raises(APIError) as caught:
        client.networks.create("odd", ipam=IPAMConfig(pool_configs=[IPAMPool("10.0.0.0/99")]))
    assert caught.value.status_code == 400
    with pytest.raises(APIError) as caught:
        client.networks.create("odd", driver="nosuch")
    assert caught.value.status_code == 404
    with pytest.raises(APIError) as caught:
        client.networks.create("odd", scope="swarm")
    assert (caught.value.status_code, caught.value.explanation) == (
        403,
        "cannot create a swarm scoped network when swarm is not active",
    )


def test_prune(api: docker.APIClient, client: docker.DockerClient, container: Container) -> None:
    client.networks.create("used").connect(container)
    client.networks.create("kept", labels={"keep": ""})
    for name in ("a", "b"):
        client.networks.create(name, labels={"go": name})
    assert client.networks.prune(filters={"label": "go=a"}) == {"NetworksDeleted": ["a"]}
    assert api.prune_networks(filters={"label!": "keep"}) == {"NetworksDeleted": ["b"]}
    assert client.networks.prune() == {"NetworksDeleted": ["kept"]}
    assert client.networks.prune() == {"NetworksDeleted": None}
