"""The default profile against Docker's: the same answer for every call, argument, capability and machine."""

import json
from pathlib import Path

import pytest
from dockmagic_runtime.kernel import seccomp
from dockmagic_runtime.oci.seccomp_profile import default_profile

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "seccomp-default.json"

MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}
CAPABILITY_SETS = [
    (),
    *[
        (name,)
        for name in (
            *("CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_BOOT", "CAP_SYS_CHROOT"),
            *("CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO"),
            *("CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN"),
        )
    ],
    ("CAP_SYS_ADMIN", "CAP_SYS_TIME", "CAP_BPF"),
]


def reference() -> dict:
    if not REFERENCE.exists():
        pytest.fail(f"Docker's default profile is needed for the comparison, as {REFERENCE}")
    return json.loads(REFERENCE.read_text())


def resolved(profile: dict, go_machine: str, capabilities: tuple[str, ...]) -> set:
    """The rules of Docker's conditional document that hold here: {(call, action, errno, conditions)}."""
    rules = set()
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        if includes.get("arches") and go_machine not in includes["arches"]:
            continue
        if not set(includes.get("caps", ())) <= set(capabilities):
            continue
        if go_machine in excludes.get("arches", ()) or set(excludes.get("caps", ())) & set(capabilities):
            continue
        rules |= flattened([rule])
    return rules


def flattened(rules: list) -> set:
    return {
        (
            name,
            rule["action"],
            rule.get("errnoRet"),
            tuple((a["index"], a["value"], a.get("valueTwo", 0), a["op"]) for a in rule.get("args") or ()),
        )
        for rule in rules
        for name in rule["names"]
    }


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("capabilities", CAPABILITY_SETS, ids="+".join)
def test_allows_exactly_what_docker_allows(machine: str, capabilities: tuple[str, ...]) -> None:
    ours = default_profile(set(capabilities), machine)
    assert flattened(ours["syscalls"]) == resolved(reference(), MACHINES[machine][0], capabilities)


@pytest.mark.parametrize("machine", MACHINES)
def test_answers_for_the_same_architectures(machine: str) -> None:
    (entry,) = [e for e in reference()["archMap"] if e["architecture"] == MACHINES[machine][1]]
    expected = [entry["architecture"], *(entry["subArchitectures"] or ())]
    assert default_profile(set(), machine)["architectures"] == expected


def test_denies_by_default_with_dockers_errno() -> None:
    ours, docker = default_profile(set()), reference()
    assert (ours["defaultAction"], ours["defaultErrnoRet"]) == (
        docker["defaultAction"],
        docker["defaultErrnoRet"],
    )


def test_compiles_into_one_program() -> None:
    assert len(seccomp.compile(default_profile({"CAP_CHOWN"}))) % 8 == 0
