"""A recipe becomes a directory: the files of its one layer.

A root without a base comes from mmdebstrap or from the one busybox binary. A root on a base is the upper
directory of an overlay whose lower is the base's: packages are installed in the merged view, inside a mount
namespace of its own, so that no mount outlives the command however it ends.
"""

import os
import shutil
import subprocess
from pathlib import Path

from tests.images.recipes import Recipe

_BUSYBOX = Path("/bin/busybox")

_WITHOUT = ("doc", "man", "info", "locale", "lintian")

# $1 lower, $2 upper, $3 work, $4 merged, $5 apt's lists and archives, $6 the script that runs inside
_INSIDE = """
mount -t overlay -o "lowerdir=$1,upperdir=$2,workdir=$3,redirect_dir=off,metacopy=off,index=off" overlay "$4"
mount -t proc proc "$4/proc"
mount --rbind /dev "$4/dev"
mount --bind /etc/resolv.conf "$4/etc/resolv.conf"
mount --bind "$5/lists" "$4/var/lib/apt/lists"
mount --bind "$5/cache" "$4/var/cache/apt"
exec chroot "$4" sh -euc "$6"
"""

_INSTALL = """
export DEBIAN_FRONTEND=noninteractive APT_CONFIG=/var/cache/apt/acquire.conf
apt-get -qq update
apt-get -qq install --no-install-recommends {packages} >/dev/null
"""

_FORGET = (
    "rm -rf /var/log/apt /var/log/*.log /var/cache/ldconfig/* /var/lib/dpkg/*-old /var/cache/debconf/*-old\n"
)


def make_root(recipe: Recipe, destination: Path, base: Path | None, apt: Path) -> None:
    """Fill the empty directory `destination` with the files of `recipe`'s layer.

    `base` is the base recipe's root, `apt` a directory that keeps downloaded packages for the next recipe.
    """
    match recipe.origin:
        case "debian":
            _debian(destination)
        case "busybox":
            _busybox(destination)
    if recipe.packages or recipe.run:
        assert base is not None, f"{recipe.name}: packages and scripts need a base"
        _run_on(base, destination, apt, _script(recipe))
    for path, content in recipe.files.items():
        target = destination / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(0o755 if content.startswith("#!") else 0o644)


def _script(recipe: Recipe) -> str:
    install = _INSTALL.format(packages=" ".join(recipe.packages)) if recipe.packages else ""
    return install + recipe.run + "\n" + _FORGET


def _debian(destination: Path) -> None:
    excludes = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _WITHOUT]
    tidy = "--customize-hook=rm -rf $1/var/log/apt $1/var/log/*.log $1/var/cache/ldconfig/*"
    form = ["--variant=apt", "--format=directory", "--skip=output/dev"]
    subprocess.run(
        ["mmdebstrap", "--quiet", *form, *excludes, tidy, "bookworm", str(destination), "-"],
        input=_debian_sources(),
        text=True,
        check=True,
    )


def _debian_sources() -> str:
    """This machine's own Debian 12 sources (it may use a mirror), else Debian's."""
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ours = sorted({line for line in targets.splitlines() if " bookworm" in line})
    return "\n".join(ours or ["deb http://deb.debian.org/debian bookworm main"]) + "\n"


def _busybox(destination: Path) -> None:
    for folder in (
        "bin",
        "dev",
        "etc",
        "home",
        "proc",
        "root",
        "sys",
        "tmp",
        "usr/bin",
        "usr/sbin",
        "var/www",
    ):
        (destination / folder).mkdir(parents=True)
    (destination / "tmp").chmod(0o1777)
    (destination / "root").chmod(0o700)
    (destination / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n"
    )
    (destination / "etc/group").write_text(
        "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwheel:x:10:root\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n"
    )
    (destination / "etc/shadow").write_text("root:*::0:::::\n")
    (destination / "etc/shadow").chmod(0o640)
    busybox = destination / "bin/busybox"
    shutil.copyfile(_BUSYBOX, busybox)
    busybox.chmod(0o755)
    listed = subprocess.run([_BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        if applet != "busybox":
            os.link(busybox, destination / "bin" / applet)


def _run_on(base: Path, upper: Path, apt: Path, script: str) -> None:
    for folder in ("lists", "cache"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    # Proxies and the like of this machine's apt hold inside too.
    settings = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)
    kept = [line for line in settings.stdout.splitlines() if "::IndexTargets::" not in line]
    (apt / "cache/acquire.conf").write_text("\n".join(kept) + "\n")
    work, merged = upper.with_name("work"), upper.with_name("merged")
    work.mkdir()
    merged.mkdir()
    arguments = [str(path) for path in (base, upper, work, merged, apt)]
    subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-euc",
            _INSIDE,
            "stand-in",
            *arguments,
            script,
        ],
        stdin=subprocess.DEVNULL,
        check=True,
    )
