"""References as Docker parses and shows them."""

import pytest
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.oci.reference import parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "familiar", "normalized"),
    [
        ("nginx", "nginx:latest", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "nginx:1.25", "docker.io/library/nginx:1.25"),
        ("library/nginx", "nginx:latest", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "nginx:latest", "docker.io/library/nginx:latest"),
        ("index.docker.io/me/app", "me/app:latest", "docker.io/me/app:latest"),
        ("docker.io/library/a/b", "library/a/b:latest", "docker.io/library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("ghcr.io/x/y", "ghcr.io/x/y:latest", "ghcr.io/x/y:latest"),
        ("a__b/c-d.e", "a__b/c-d.e:latest", "docker.io/a__b/c-d.e:latest"),
        (f"nginx@{DIGEST}", f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}"),
    ],
)
def test_forms(text: str, familiar: str, normalized: str) -> None:
    reference = parse_reference(text)
    assert reference.familiar() == familiar
    assert reference.normalized() == normalized
    assert parse_reference(normalized) == reference


def test_untagged_on_request() -> None:
    assert parse_reference("nginx", default_tag=None).familiar() == "nginx"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("nginx\n", "invalid reference format"),
        ("a/../b", "invalid reference format"),
        ("Nginx", "invalid reference format: repository name (library/Nginx) must be lowercase"),
        ("me/App:1", "invalid reference format: repository name (me/App) must be lowercase"),
        ("x" * 256, "repository name must not be more than 255 characters"),
        ("ab" * 32, f"invalid repository name ({'ab' * 32}), cannot specify 64-byte hexadecimal strings"),
        ("a@md5:" + "a" * 32, "unsupported digest algorithm"),
        ("a@sha256:" + "a" * 40, "invalid checksum digest length"),
    ],
)
def test_sentences(text: str, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_reference(text)
    assert str(caught.value) == sentence
