"""The options of `--tmpfs` and `--mount type=tmpfs`: Docker's own on top of mount(8)'s names."""

from dockmagic_runtime.errors import InvalidParameter

_DEFAULTS = ["noexec", "nosuid", "nodev"]
_FLAGS = frozenset(
    (
        *("defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async"),
        *("dirsync", "remount", "mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime"),
        *("norelatime", "strictatime", "nostrictatime", "bind", "rbind", "unbindable", "runbindable"),
        *("private", "rprivate", "shared", "rshared", "slave", "rslave"),
    )
)
_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"))


def mount_options(text: str) -> list[str]:
    """Docker's defaults and what the user said, which comes last and wins; raises InvalidParameter."""
    words = [word for word in text.split(",") if word]
    for word in words:
        name, equals, value = word.partition("=")
        if not (word in _FLAGS or (equals and name in _VALUES)):
            told = f'"{name}" "{value}"' if equals else f'"{name}"'
            raise InvalidParameter(f"invalid tmpfs option [{told}]")
    return [*_DEFAULTS, *(word for word in words if word != "defaults")]
