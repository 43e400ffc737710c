"""Arguments that every build has: proxies for RUN, and the platforms (BuildKit's "predefined ARGs").

The proxies are known to each RUN without an ARG, and no part of the cache key. The platforms are known before
the first FROM; in a stage they need their ARG, which needs no default.
"""

from collections.abc import Mapping

from dockmagic_runtime.oci.image import Platform

PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
EPOCH = "SOURCE_DATE_EPOCH"


def proxies_of(given: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each proxy in capitals and in small letters: some programs read only the one, some the other."""
    values = {name.upper(): given[name] for name in sorted(PROXIES & given.keys())}
    return sorted((*values.items(), *((name.lower(), value) for name, value in values.items())))


def automatic(target: Platform, stage: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """The platform arguments; what the client gives goes before."""
    found: dict[str, str] = {"TARGETSTAGE": stage or "default"}
    for role, platform in (("TARGET", target), ("BUILD", Platform.host())):
        found |= {
            f"{role}PLATFORM": str(platform),
            f"{role}OS": platform.os,
            f"{role}ARCH": platform.architecture,
            f"{role}VARIANT": platform.variant,
        }
    return {name: given.get(name, value) for name, value in found.items()}
