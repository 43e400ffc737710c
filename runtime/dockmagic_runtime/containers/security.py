"""`--security-opt`, `--cap-add`, `--cap-drop`, `--privileged`: what a container's processes may do.

Docker's rules and sentences (moby's `parseSecurityOpt` and `caps.TweakCapabilities`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import InvalidParameter, NotImplementedHere
from dockmagic_runtime.kernel import capabilities
from dockmagic_runtime.oci import seccomp_file
from dockmagic_runtime.oci.seccomp_profile import default_profile
from dockmagic_runtime.oci.spec import LinuxSeccomp

Json = dict[str, Any]

DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP"),
        *("SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True)
class SecurityOptions:
    """`seccomp` is `` (the default profile), `unconfined`, `builtin`, or the text of a profile."""

    no_new_privileges: bool = False
    seccomp: str = ""

    @classmethod
    def parse(cls, options: Sequence[str]) -> "SecurityOptions":
        """Raises InvalidParameter; NotImplementedHere for a confinement that would have to be put on."""
        no_new_privileges, seccomp = False, ""
        for option in options:
            name, separator, value = option.partition("=" if "=" in option else ":")
            if option == "no-new-privileges":
                no_new_privileges = True
            elif option == "disable":
                continue  # as label=disable
            elif not separator:
                raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
            elif name == "no-new-privileges" and value in (*_TRUE, *_FALSE):
                no_new_privileges = value in _TRUE
            elif name == "seccomp":
                seccomp = value
            elif name in ("apparmor", "label"):
                _check_label(name, value)
            else:
                raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
        return cls(no_new_privileges, seccomp)

    def filter(self, granted: Sequence[str], *, privileged: bool) -> LinuxSeccomp | None:
        """The seccomp profile of a process with these capabilities; privileged has only one it asks for."""
        if self.seccomp == "unconfined" or (privileged and self.seccomp in ("", "builtin")):
            return None
        if self.seccomp in ("", "builtin"):
            return default_profile(set(granted))
        return seccomp_file.profile(self.seccomp, granted)


def _check_label(kind: str, value: str) -> None:
    """Where the kernel has no such labels every one is as good as none, and passes, as with Docker."""
    if value in ("unconfined", "disable"):
        return
    if kind == "apparmor" and Path("/sys/module/apparmor").exists():
        raise NotImplementedHere("AppArmor profiles are not applied by this engine: use apparmor=unconfined")
    if kind == "label" and Path("/sys/fs/selinux/enforce").exists():
        raise NotImplementedHere("SELinux labels are not applied by this engine: use label=disable")


@cache
def _grantable() -> list[str]:
    """What the engine itself may not do it cannot give: a privileged container gets the rest."""
    return capabilities.names(capabilities.current()["permitted"])


def granted_capabilities(host: Json) -> list[str]:
    """Docker's 14, with `--cap-add` and `--cap-drop` applied; all of the kernel's if privileged."""
    added, dropped = _full("CapAdd", host["CapAdd"]), _full("CapDrop", host["CapDrop"])
    known = _grantable()
    if host["Privileged"]:
        return list(known)
    base = list(known) if "ALL" in added else [] if "ALL" in dropped else list(DEFAULT_CAPABILITIES)
    base += [name for name in added if name != "ALL" and name not in base]
    return [name for name in base if name not in dropped]


def _full(field: str, names: Sequence[str] | None) -> list[str]:
    """`net_admin` as CAP_NET_ADMIN; raises InvalidParameter for one that no kernel has."""
    wanted = []
    for name in names or ():
        upper = name.upper()
        upper = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if upper != "ALL" and upper not in capabilities.NAMES:
            raise InvalidParameter(f'invalid {field}: unknown capability: "{upper}"')
        wanted.append(upper)
    return wanted


def capability_sets(granted: list[str]) -> Json:
    """Inheritable and ambient stay empty: what setuid programs gain is the kernel's affair alone."""
    return {"bounding": granted, "effective": granted, "permitted": granted}
