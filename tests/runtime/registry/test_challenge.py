import pytest
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.images.progress import bar, human_size
from dockmagic_runtime.oci.reference import parse_reference
from dockmagic_runtime.registry.challenge import Challenge, parse_challenges
from dockmagic_runtime.registry.endpoints import endpoints, is_insecure


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.example/token",service="reg, one",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "reg, one",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        ("Negotiate, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        (
            'Basic realm="quo\\"ted" , Bearer a=b',
            [Challenge("basic", {"realm": 'quo"ted'}), Challenge("bearer", {"a": "b"})],
        ),
        ("", []),
        ("=,=", []),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges([header]) == expected


def test_endpoints() -> None:
    config = EngineConfig(
        registry_mirrors=("http://m1:5000/", "https://m2"), insecure_registries=("10.0.0.0/8",)
    )
    nginx = parse_reference("nginx")
    assert [each.url for each in endpoints(nginx, config)] == [
        "http://m1:5000",
        "https://m2",
        "https://registry-1.docker.io",
    ]
    assert [each.url for each in endpoints(nginx, config, push=True)] == ["https://registry-1.docker.io"]
    assert [each.url for each in endpoints(parse_reference("r.example/x"), config)] == ["https://r.example"]
    local = endpoints(parse_reference("localhost:5000/x"), config)
    assert [(each.url, each.verify) for each in local] == [
        ("https://localhost:5000", False),
        ("http://localhost:5000", False),
    ]


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.3.2.1", True),
        ("[::1]:5000", True),
        ("localhost", True),
        ("10.1.2.3:5000", True),
        ("plain.example:5000", True),
        ("plain.example", False),
        ("secure.example", False),
        ("11.0.0.1", False),
    ],
)
def test_insecure(host: str, insecure: bool) -> None:
    config = EngineConfig(insecure_registries=("10.0.0.0/8", "plain.example:5000"))
    assert is_insecure(host, config) is insecure


def test_progress_bars_are_dockers() -> None:
    # Taken from a real dockerd.
    assert bar(34816, 1982298) == f"[>{' ' * 50}]  34.82kB/1.982MB"
    assert bar(1996800, 1982298) == f"[{'=' * 50}>]  1.997MB"
    assert bar(107, 107) == f"[{'=' * 50}>]     107B/107B"
    assert bar(0, 0) == ""
    assert [human_size(size) for size in (0, 999, 1000, 1234567, 10**12)] == [
        "0B",
        "999B",
        "1kB",
        "1.235MB",
        "1TB",
    ]
