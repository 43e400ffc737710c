"""testcontainers, a library of many test suites, starts stand-ins of PostgreSQL and Redis on the engine."""

from collections.abc import Iterator

import pytest

from tests.conftest import EngineProcess


@pytest.fixture(autouse=True)
def found_by_its_environment(engine: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from testcontainers.core.config import testcontainers_config

    monkeypatch.setenv("DOCKER_HOST", engine.address)
    # Its cleaner is an image of Docker Hub's; the fixture `engine` cleans up after us.
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    yield


def test_postgres() -> None:
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer("postgres:15", username="me", password="secret", dbname="shop", driver=None) as db:
        host, port = db.get_container_host_ip(), db.get_exposed_port(5432)
        assert db.get_connection_url() == f"postgresql://me:secret@{host}:{port}/shop"
        statement = "create table t as select 42; select * from t"
        command = f"PGPASSWORD=secret psql -h 127.0.0.1 -U me -d shop -Atc '{statement}'"
        code, output = db.exec(["sh", "-c", command])
        assert (code, output.split()) == (0, [b"SELECT", b"1", b"42"])
        out, err = db.get_logs()
        assert b"database system is ready to accept connections" in out + err


def test_redis() -> None:
    from testcontainers.community.redis import RedisContainer

    with RedisContainer("redis:7") as store:
        client = store.get_client()
        client.set("word", "said")
        assert client.get("word") == b"said"
        client.close()


def test_a_container_and_a_network_by_hand() -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    with Network() as network:
        server = DockerContainer("busybox").with_command("sh -c 'echo ready; sleep 1000'")
        server = server.with_network(network).with_network_aliases("server").with_env("WORD", "said")
        with server.waiting_for(LogMessageWaitStrategy("ready")):
            assert server.exec(["sh", "-c", "echo $WORD"]).output == b"said\n"
            with DockerContainer("busybox").with_network(network).with_command("sleep 1000") as client:
                assert client.exec("ping -c 1 -w 5 server").exit_code == 0
