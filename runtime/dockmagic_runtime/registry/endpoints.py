"""Where a repository can be fetched from: the mirrors in order, then the registry itself.

Docker's rules: mirrors are for Docker Hub only; a registry on loopback, or one listed as insecure, is tried
over TLS without verification and then in plain HTTP; anything else must have a certificate that we trust.
Certificates come from the system, and per host from `certs.d/<host[:port]>/` (`*.crt` authorities, `*.cert`
with `*.key` for ourselves).
"""

import ipaddress
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.oci.reference import DEFAULT_DOMAIN, Reference

HUB = "https://registry-1.docker.io"
CERTIFICATE_ROOTS = (Path("/etc/dockmagic/certs.d"), Path("/etc/docker/certs.d"))


@dataclass(frozen=True)
class Endpoint:
    """One base URL that speaks the distribution protocol. `verify`: its certificate must be a trusted one."""

    url: str
    verify: bool = True
    mirror: bool = False

    @property
    def host(self) -> str:
        """`host[:port]`"""
        return urlsplit(self.url).netloc


def endpoints(reference: Reference, config: EngineConfig, *, push: bool = False) -> list[Endpoint]:
    """Every endpoint to try for `reference`, best first. Pushes go to the registry itself only."""
    if reference.domain != DEFAULT_DOMAIN:
        return _both_schemes(reference.domain, config)
    mirrors = [] if push else [_mirror(url, config) for url in config.registry_mirrors]
    return [*mirrors, Endpoint(HUB)]


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """The trust that `endpoint` gets."""
    context = ssl.create_default_context()
    for folder in (root / endpoint.host for root in CERTIFICATE_ROOTS):
        for authority in sorted(folder.glob("*.crt")):
            context.load_verify_locations(authority)
        for certificate in sorted(folder.glob("*.cert")):
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    if not endpoint.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def is_insecure(host: str, config: EngineConfig) -> bool:
    """Whether `host[:port]` may be spoken to without a trusted certificate."""
    name = urlsplit(f"//{host}").hostname or ""
    address = _address("127.0.0.1" if name == "localhost" else name)
    if address and address.is_loopback:
        return True
    for entry in config.insecure_registries:
        if entry in (host, name):
            return True
        network = _network(entry)
        if network and address and address in network:
            return True
    return False


def _both_schemes(host: str, config: EngineConfig) -> list[Endpoint]:
    if not is_insecure(host, config):
        return [Endpoint(f"https://{host}")]
    secure = Endpoint(f"https://{host}", verify=False)
    return [secure, replace(secure, url=f"http://{host}")]


def _mirror(url: str, config: EngineConfig) -> Endpoint:
    endpoint = Endpoint(url.rstrip("/"), mirror=True)
    return replace(endpoint, verify=not is_insecure(endpoint.host, config))


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry) if "/" in entry else None
    except ValueError:
        return None
