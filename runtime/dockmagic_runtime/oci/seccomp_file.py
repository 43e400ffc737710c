"""A seccomp profile as Docker's users write it (`--security-opt seccomp=FILE`), for one process.

Docker's format is the OCI one with conditions on top: rules that hold only on some architectures, with some
capabilities or from some kernel on (`includes`, `excludes`), and architectures by the name of the machine's
own (`archMap`). What remains once these are decided is `linux.seccomp` of the OCI runtime specification.
"""

import json
import os
from collections.abc import Collection
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.oci import shape
from dockmagic_runtime.oci.spec import LinuxSeccomp

Json = dict[str, Any]

# As Go names them, which is how Docker's files do.
_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}


def profile(text: str, capabilities: Collection[str]) -> LinuxSeccomp | None:
    """What the file says for a process whose bounding set is `capabilities`; None: no filter at all.

    Raises InvalidParameter if it is no profile.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"decoding seccomp profile failed: {error}") from None
    if not isinstance(given, dict):
        raise InvalidParameter("decoding seccomp profile failed: it must be a JSON object")
    rules = given.get("syscalls") or []
    if not given.get("defaultAction") and not rules:
        return None
    if given.get("architectures") and given.get("archMap"):
        raise InvalidParameter(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    name, architecture = _MACHINES.get(os.uname().machine, ("", ""))
    plain: Json = {key: value for key, value in given.items() if key not in ("archMap", "syscalls")}
    try:
        if given.get("archMap"):
            plain["architectures"] = _architectures(given["archMap"], architecture)
        plain["syscalls"] = [_rule(rule) for rule in rules if _applies(rule, name, capabilities)]
        shape.check(plain, LinuxSeccomp, "seccomp")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidParameter(f"decoding seccomp profile failed: {error!r}") from None
    found: LinuxSeccomp = plain  # type: ignore[assignment]  # its shape has just been checked
    return found


def _architectures(mapped: list[Json], own: str) -> list[str]:
    for entry in mapped:
        if entry["architecture"] == own:
            return [own, *(entry.get("subArchitectures") or ())]
    return []


def _rule(rule: Json) -> Json:
    if rule.get("name") and rule.get("names"):
        raise InvalidParameter(
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
        )
    kept = {key: rule[key] for key in ("names", "action", "errnoRet", "args") if rule.get(key) is not None}
    return kept | ({"names": [rule["name"]]} if rule.get("name") else {})


def _applies(rule: Json, machine: str, capabilities: Collection[str]) -> bool:
    without, only = rule.get("excludes") or {}, rule.get("includes") or {}
    if machine in (without.get("arches") or ()) or set(without.get("caps") or ()) & set(capabilities):
        return False
    if without.get("minKernel") and _kernel_is_at_least(without["minKernel"]):
        return False
    if only.get("arches") and machine not in only["arches"]:
        return False
    if not set(only.get("caps") or ()) <= set(capabilities):
        return False
    return not only.get("minKernel") or _kernel_is_at_least(only["minKernel"])


def _kernel_is_at_least(version: str) -> bool:
    """`4.8`: the kernel's version and major revision, as in uname(2)."""
    wanted = tuple(int(number) for number in version.split("."))
    release = os.uname().release.split("-")[0].split(".")
    return tuple(int(number) for number in release[:2]) >= wanted[:2]
