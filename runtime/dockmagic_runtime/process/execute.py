"""The last steps of a process that becomes a container's program: give up power, find the program, exec.

Used by a container's first process (`init.py`) and by those added later (`exec.py`). All of it runs inside
the container's root, so nothing may be imported or loaded here any more: the file system is not ours.
"""

import errno
import os
import resource
import signal
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dockmagic_runtime.kernel import capabilities, libc, paths, seccomp
from dockmagic_runtime.process.messages import StartFailed

Process = Mapping[str, Any]

_KEYCTL_JOIN_SESSION_KEYRING = 1
_PASSWD_LIMIT = 1 << 20
_CAP_SYS_ADMIN = 1 << 21


def set_oom_score(process: Process, warn: Callable[[str], None]) -> None:
    """Through the host's procfs, so before the root is changed and before we become undumpable."""
    score = process.get("oomScoreAdj")
    if score is None:
        return
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write(str(score))
    except PermissionError:
        warn(f"oom_score_adj {score} may not be set by this user: left as it is")


def set_rlimits(limits: Iterable[Mapping[str, Any]], warn: Callable[[str], None]) -> None:
    """Each as asked; a hard limit that this user may not raise stays, with a warning."""
    for limit in limits:
        name, soft, hard = limit["type"], _rlim(limit["soft"]), _rlim(limit["hard"])
        kind = getattr(resource, name, None)
        if kind is None:
            raise StartFailed(f"rlimit {name} is not known here")
        try:
            resource.setrlimit(kind, (soft, hard))
        except (PermissionError, ValueError):
            # Python says ValueError for the EPERM of a hard limit that may not be raised.
            most = resource.getrlimit(kind)[1]
            clamped = (_at_most(soft, most), _at_most(hard, most))
            resource.setrlimit(kind, clamped)
            asked = f"{limit['soft']}:{limit['hard']}"
            warn(f"{name}={asked} may not be raised by this user: {clamped[0]}:{clamped[1]}")


def enter_directory(cwd: str) -> None:
    """Change into `cwd` of the present root, and prove that it is inside.

    Magic links are not followed: `/proc/self/fd/N` could be a directory of the host.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = paths.open_in_root(root, cwd, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise StartFailed(f'chdir to cwd ("{cwd}") set in config.json failed: {_words(error)}', 127) from None
    finally:
        os.close(root)
    os.fchdir(fd)
    os.close(fd)
    try:
        here = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        here = ""
    # The kernel says "(unreachable)…" for a directory outside of the root; glibc makes that ENOENT.
    if not here.startswith("/"):
        raise StartFailed("current working directory is outside of container mount namespace root")


def environment(process: Process) -> list[str]:
    """The program's variables; HOME from the container's own user list unless it is set."""
    env = list(process.get("env") or [])
    if not any(entry.startswith("HOME=") for entry in env):
        env.append(f"HOME={_home(process.get('user', {}).get('uid', 0))}")
    return env


def _home(uid: int) -> str:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = paths.open_in_root(root, "/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return "/"  # an image need not have users
    finally:
        os.close(root)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return "/"
        text = os.read(fd, _PASSWD_LIMIT)
    finally:
        os.close(fd)
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == b"%d" % uid and fields[5]:
            return os.fsdecode(fields[5])
    return "/"


def own_stdio(uid: int) -> None:
    """Give pipes and terminals to the user, so that /dev/stdout can be opened by name."""
    for fd in range(3):
        status = os.fstat(fd)
        terminal = stat.S_ISCHR(status.st_mode) and os.isatty(fd)
        if status.st_uid != uid and (stat.S_ISFIFO(status.st_mode) or terminal):
            try:
                os.fchown(fd, uid, -1)
            except PermissionError:
                continue  # in a user namespace, of a pipe made outside


def join_session_keyring(name: str) -> None:
    """A session keyring of the container's own, else it would have the engine's."""
    try:
        libc.syscall(libc.NR["keyctl"], _KEYCTL_JOIN_SESSION_KEYRING, name.encode())
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EDQUOT, errno.EPERM):
            raise


def become_user(process: Process, *, keep_for_seccomp: bool) -> None:
    """Bounding set, groups, user, and no capability left but those asked for.

    `keep_for_seccomp` leaves CAP_SYS_ADMIN in the sets until `load_filter`.
    """
    wanted = process.get("capabilities") or {}
    sets = {
        kind: capabilities.bits(wanted.get(kind) or ()) for kind in ("bounding", "effective", "permitted")
    }
    inheritable = capabilities.bits(wanted.get("inheritable") or ())
    user = process.get("user") or {}
    capabilities.drop_bounding(sets["bounding"])
    # Keep the permitted set across the change of user; execve clears the flag.
    libc.prctl(libc.PR_SET_KEEPCAPS, 1)
    if _may_set_groups():
        os.setgroups(user.get("additionalGids") or [])
    gid, uid = user.get("gid", 0), user.get("uid", 0)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if user.get("umask") is not None:
        os.umask(user["umask"])
    spare = _CAP_SYS_ADMIN if keep_for_seccomp else 0
    capabilities.set_caps(sets["effective"] | spare, sets["permitted"] | spare, inheritable)


def load_filter(process: Process, program: bytes | None, flags: int) -> None:
    """seccomp, then the final capability sets: after this only the exec is left."""
    wanted = process.get("capabilities") or {}
    effective = capabilities.bits(wanted.get("effective") or ())
    permitted = capabilities.bits(wanted.get("permitted") or ())
    inheritable = capabilities.bits(wanted.get("inheritable") or ())
    ambient = capabilities.bits(wanted.get("ambient") or ())
    if ambient:
        capabilities.set_ambient(ambient & permitted & inheritable)
    if process.get("noNewPrivileges"):
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if program is not None:
        seccomp.load(program, flags)
        if not process.get("noNewPrivileges"):
            capabilities.set_caps(effective, permitted, inheritable)


def reset_signals() -> None:
    """What Python (or whoever started us) ignores, the program must not inherit as ignored."""
    libc.default_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def find_program(name: str, env: Iterable[str]) -> str:
    """The path to execute, as Go's `exec.LookPath` finds it; its words for what is wrong."""
    if "/" in name:
        reason = _unusable(name)
        if reason:
            raise StartFailed(f'exec: "{name}": {reason[0]}', reason[1])
        return name
    search = next((entry[5:] for entry in env if entry.startswith("PATH=")), "")
    for directory in search.split(":"):
        path = f"{directory or '.'}/{name}"
        if _unusable(path) is None:
            return path
    raise StartFailed(f'exec: "{name}": executable file not found in $PATH', 127)


def _unusable(path: str) -> tuple[str, int] | None:
    """Why `path` can't be executed, with the exit code that says so."""
    here = os.open("." if not path.startswith("/") else "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Links are followed by the kernel in the present root, but never a magic one: /proc/self/exe is us.
        fd = paths.openat2(here, path, os.O_PATH, paths.RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return f"stat {path}: {_words(error)}", 127 if error.errno == errno.ENOENT else 126
        return ("permission denied" if error.errno == errno.ELOOP else _words(error)), 126
    finally:
        os.close(here)
    mode = os.fstat(fd).st_mode
    os.close(fd)
    if stat.S_ISDIR(mode):
        return "is a directory", 126
    if not os.access(path, os.X_OK, effective_ids=True):
        return "permission denied", 126
    return None


class Program:
    """All that the exec needs, made ready beforehand."""

    def __init__(self, path: str, argv: Iterable[str], env: Iterable[str]):
        self._path = os.fsencode(path)
        self._argv = libc.string_array([os.fsencode(a) for a in argv])
        self._env = libc.string_array([os.fsencode(e) for e in env])

    def run(self) -> StartFailed:
        """Become the program; comes back only to say why not."""
        error = libc.execve(self._path, self._argv, self._env)
        code = 127 if error.errno == errno.ENOENT else 126
        return StartFailed(f"exec {os.fsdecode(self._path)}: {_words(error)}", code)


def _may_set_groups() -> bool:
    # The host's /proc is gone by now; a user namespace that denies it says so by EPERM alone.
    try:
        os.setgroups([])
    except PermissionError:
        return False
    return True


def _rlim(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= (1 << 64) - 1 else value


def _at_most(value: int, most: int) -> int:
    if most == resource.RLIM_INFINITY:
        return value
    return most if value == resource.RLIM_INFINITY else min(value, most)


def _words(error: OSError) -> str:
    """As Go spells errno, in small letters."""
    text = os.strerror(error.errno or 0)
    return text[:1].lower() + text[1:]
