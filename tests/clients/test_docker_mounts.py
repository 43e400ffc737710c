"""The docker command's mounts: `-v`, `--mount`, `--tmpfs`, `--volume-driver`; what they show and refuse.

The sentences are those that Docker answered to the same commands.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import EngineProcess


def shell(engine: EngineProcess, *options: str, script: str) -> str:
    """What a container with these options prints."""
    done = engine.docker("run", "--rm", *options, "busybox", "sh", "-c", script)
    return done.stdout + done.stderr


def volume_path(engine: EngineProcess, name: str) -> Path:
    return Path(engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", name).stdout.strip())


def test_named_volume_outlives_its_container(engine: EngineProcess) -> None:
    shell(engine, "-v", "data:/data", script="echo kept > /data/file")
    assert shell(engine, "-v", "data:/data:ro", script="cat /data/file") == "kept\n"
    assert "Read-only" in shell(engine, "-v", "data:/data:ro", script="touch /data/no")
    assert "Read-only" in shell(
        engine, "--mount", "type=volume,src=data,dst=/data,readonly", script="touch /data/no"
    )
    assert engine.docker("volume", "rm", "data").returncode == 0


def test_anonymous_volume_goes_with_its_container(engine: EngineProcess) -> None:
    shell(engine, "-v", "/data", script="true")
    assert engine.docker("volume", "ls", "-q").stdout == ""
    engine.docker("create", "--name", "box", "-v", "/data", "-v", "named:/other", "busybox", "true")
    assert len(engine.docker("volume", "ls", "-q").stdout.split()) == 2
    engine.docker("rm", "-v", "box")
    assert engine.docker("volume", "ls", "-q").stdout == "named\n"


def test_bind(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    assert (
        shell(engine, "-v", f"{tmp_path}:/mnt", script="cat /mnt/file; touch /mnt/back") == "from the host\n"
    )
    assert (tmp_path / "back").exists()
    mount = f"type=bind,src={tmp_path}/file,dst=/one,readonly"
    assert "Read-only" in shell(engine, "--mount", mount, script="echo x > /one")


def test_v_makes_its_source_and_makes_it_again(engine: EngineProcess, tmp_path: Path) -> None:
    source = tmp_path / "made" / "here"
    engine.docker("create", "--name", "box", "-v", f"{source}:/mnt", "busybox", "touch", "/mnt/file")
    source.rmdir()
    assert engine.docker("start", "-a", "box").stderr == ""
    assert (source / "file").exists()


def test_mount_makes_its_source_only_if_asked(engine: EngineProcess, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    refused = shell(engine, "--mount", f"type=bind,src={missing},dst=/mnt", script="true")
    assert f'invalid mount config for type "bind": bind source path does not exist: {missing}' in refused
    assert not missing.exists()


def test_mounts_below_a_bind(engine: EngineProcess, tmp_path: Path) -> None:
    """They come along, read-only with it, unless `bind-recursive` says otherwise."""
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "below", below], check=True)
    try:
        source = f"type=bind,src={tmp_path},dst=/mnt"
        assert shell(engine, "--mount", source, script="touch /mnt/below/1 && echo made") == "made\n"
        for options in ("readonly", "readonly,bind-recursive=readonly,bind-propagation=rprivate"):
            said = shell(engine, "--mount", f"{source},{options}", script="touch /mnt/below/2")
            assert "Read-only" in said
        writable = f"{source},readonly,bind-recursive=writable"
        assert shell(engine, "--mount", writable, script="touch /mnt/below/3 && echo made") == "made\n"
        assert shell(engine, "--mount", f"{source},bind-recursive=disabled", script="ls /mnt/below") == ""
    finally:
        subprocess.run(["umount", below], check=True)


def test_propagation(engine: EngineProcess, tmp_path: Path) -> None:
    """What the container mounts in a shared bind, the host sees."""
    subprocess.run(["mount", "-t", "tmpfs", "shared", tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        (tmp_path / "here").mkdir()
        script = "mount -t tmpfs inside /mnt/here && echo > /mnt/here/file"
        privileged = ["--privileged", "--mount", f"type=bind,src={tmp_path},dst=/mnt,bind-propagation=shared"]
        assert shell(engine, *privileged, script=script) == ""
        assert (tmp_path / "here" / "file").exists()
        subprocess.run(["umount", tmp_path / "here"], check=True)
        subprocess.run(["mount", "--make-private", tmp_path], check=True)
        for kind, what in (("shared", "shared"), ("slave", "shared or slave")):
            mount = f"type=bind,src={tmp_path},dst=/mnt,bind-propagation={kind}"
            assert f"path {tmp_path} is mounted on {tmp_path} but it is not a {what} mount" in shell(
                engine, "--mount", mount, script="true"
            )
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_what_the_host_mounts_in_a_slave_the_container_sees(engine: EngineProcess, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "shared", tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        (tmp_path / "here").mkdir()
        mount = f"type=bind,src={tmp_path},dst=/mnt,bind-propagation=rslave"
        engine.docker("run", "-d", "--name", "box", "--mount", mount, "busybox", "sleep", "1000")
        subprocess.run(["mount", "-t", "tmpfs", "later", tmp_path / "here"], check=True)
        (tmp_path / "here" / "file").touch()
        assert engine.docker("exec", "box", "ls", "/mnt/here").stdout == "file\n"
        engine.docker("rm", "-f", "box")
        subprocess.run(["umount", tmp_path / "here"], check=True)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_subpath_of_a_volume(engine: EngineProcess) -> None:
    shell(engine, "-v", "data:/data", script="mkdir -p /data/a/b; echo deep > /data/a/b/file")
    subpath = ["--mount", "type=volume,src=data,dst=/mnt,volume-subpath=a/b"]
    assert shell(engine, *subpath, script="cat /mnt/file") == "deep\n"
    missing = shell(engine, "--mount", "type=volume,src=data,dst=/mnt,volume-subpath=no", script="true")
    assert f"cannot access path {volume_path(engine, 'data')}/no: No such file or directory" in missing


@pytest.mark.parametrize("target", ["/", "/etc", "../../../../../../../../etc"])
def test_subpath_leads_nowhere_out_of_its_volume(engine: EngineProcess, target: str) -> None:
    """A container has put a symbolic link in the place of the directory: it is followed inside the volume."""
    shell(engine, "-v", "data:/data", script=f"mkdir /data/etc; ln -s {target} /data/way")
    out = ["--mount", "type=volume,src=data,dst=/mnt,volume-subpath=way"]
    assert "passwd" not in shell(engine, *out, script="ls /mnt /mnt/etc")


def test_tmpfs(engine: EngineProcess) -> None:
    options = ["--tmpfs", "/new", "--tmpfs", "/a:size=1m,mode=700,uid=5,exec", "--tmpfs", "/home"]
    options += ["--mount", "type=tmpfs,dst=/b,tmpfs-size=2m,tmpfs-mode=0750"]
    script = "stat -c '%a %u %n' /new /home; grep -E '^[^ ]+ /[ab] ' /proc/mounts | sort"
    assert shell(engine, *options, script=script).splitlines() == [
        "1777 0 /new",  # a directory that the image does not have
        "755 0 /home",
        "tmpfs /a tmpfs rw,nosuid,nodev,relatime,size=1024k,mode=700,uid=5 0 0",
        "tmpfs /b tmpfs rw,nosuid,nodev,noexec,relatime,size=2048k,mode=750 0 0",
    ]


def test_a_read_only_root_with_places_to_write(engine: EngineProcess) -> None:
    options = ["--read-only", "--tmpfs", "/run", "-v", "data:/data"]
    assert shell(engine, *options, script="touch /run/a /data/b && echo written") == "written\n"
    assert "Read-only" in shell(engine, *options, script="touch /x")


def test_what_inspect_shows(engine: EngineProcess, tmp_path: Path) -> None:
    engine.docker(
        *("create", "--name", "box", "-v", "/a", "-v", "named:/b:ro", "-v", "named:/c:nocopy"),
        *("--mount", "type=volume,src=named,dst=/d,readonly,volume-nocopy", "--mount", "type=tmpfs,dst=/e"),
        *("--tmpfs", "/f:size=1m", "-v", f"{tmp_path}:/g:ro,Z", "-v", "named:/h"),
        *("--mount", f"type=bind,src={tmp_path},dst=/i,bind-propagation=rslave", "busybox", "true"),
    )
    shown = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "box").stdout)
    points = {point["Destination"]: point for point in shown}
    anonymous = points["/a"]["Name"]
    assert len(anonymous) == 64

    def volume(destination: str, mode: str, name: str = "named", writable: bool = True) -> dict[str, object]:
        return {
            "Type": "volume",
            "Name": name,
            "Source": str(volume_path(engine, name)),
            "Destination": destination,
            "Driver": "local",
            "Mode": mode,
            "RW": writable,
            "Propagation": "",
        }

    def bind(destination: str, mode: str, writable: bool, propagation: str) -> dict[str, object]:
        point: dict[str, object] = {"Type": "bind", "Source": str(tmp_path), "Destination": destination}
        return point | {"Mode": mode, "RW": writable, "Propagation": propagation}

    expected = [
        volume("/a", "", anonymous),
        volume("/b", "ro", writable=False),
        volume("/c", "nocopy"),
        volume("/d", "z", writable=False),
        {"Type": "tmpfs", "Source": "", "Destination": "/e", "Mode": "", "RW": True, "Propagation": ""},
        bind("/g", "ro,Z", False, "rprivate"),
        volume("/h", "z"),
        bind("/i", "", True, "rslave"),
    ]
    assert [points[path] for path in sorted(points)] == expected
    assert json.loads(engine.docker("inspect", "-f", "{{json .HostConfig.Tmpfs}}", "box").stdout) == {
        "/f": "size=1m"
    }


INVALID = "invalid volume specification: "


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("-v aa:/x:bad", "invalid mode: bad"),
        ("-v aa:/x:ro,rw", "invalid mode: ro,rw"),
        ("-v aa:/x:ro,ro", "invalid mode: ro,ro"),
        ("-v /tmp:/x:noexec", "invalid mode: noexec"),
        ("-v aa:ro", INVALID + "'aa:ro'"),
        ("-v aa:/x:y:z", INVALID + "'aa:/x:y:z'"),
        (
            "-v aa:rel",
            INVALID
            + "'aa:rel': invalid mount config for type \"volume\": "
            + "invalid mount path: 'rel' mount path must be absolute",
        ),
        (
            "-v /:/",
            INVALID + "'/:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
        (
            "-v aa:/x:rshared",
            INVALID
            + "'aa:/x:rshared': invalid mount config for type \"volume\": "
            + "field BindOptions must not be specified",
        ),
        (
            "-v /tmp:/x:nocopy",
            INVALID
            + "'/tmp:/x:nocopy': invalid mount config for type \"bind\": "
            + "field VolumeOptions must not be specified",
        ),
        ("-v a/b:/x", 'create a/b: "a/b" includes invalid characters for a local volume name'),
        ("-v aa:/x -v bb:/x", "Duplicate mount point: /x"),
        ("-v aa:/x --tmpfs /x", "Duplicate mount point: /x"),
        ("--mount type=bind,dst=/x", 'invalid mount config for type "bind": field Source must not be empty'),
        ("--mount type=odd,dst=/x", 'invalid mount config for type "odd": mount type unknown'),
        (
            "--mount type=bind,src=rel,dst=/x",
            "invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be absolute",
        ),
        (
            "--mount type=bind,src=/tmp,dst=/x,bind-propagation=odd",
            'invalid mount config for type "bind": invalid propagation mode: odd',
        ),
        (
            "--mount type=tmpfs,src=x,dst=/x",
            'invalid mount config for type "tmpfs": field Source must not be specified',
        ),
        (
            "--mount type=volume,dst=/",
            "invalid mount config for type \"volume\": invalid specification: destination can't be '/'",
        ),
        (
            "--mount type=volume,dst=/x,readonly",
            'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes',
        ),
        (
            "--mount type=volume,dst=/x,volume-subpath=a",
            'invalid mount config for type "volume": must not set Subpath when using anonymous volumes',
        ),
        (
            "--mount type=volume,src=aa,dst=/x,volume-subpath=../b",
            'invalid mount config for type "volume": subpath must be a relative path within the volume',
        ),
        ("--tmpfs rel", "invalid mount path: 'rel' mount path must be absolute"),
        ("--tmpfs /", "invalid specification: destination can't be '/'"),
        (
            "--volume-driver nosuch -v aa:/x",
            'error looking up volume plugin nosuch: plugin "nosuch" not found',
        ),
    ],
)
def test_refusals(engine: EngineProcess, options: str, sentence: str) -> None:
    """Nothing is left of what was refused: no container, and no volume."""
    refused = engine.docker("create", *options.split(), "busybox", "true")
    assert refused.returncode == 1
    assert f"Error response from daemon: {sentence}" in refused.stderr
    assert engine.docker("ps", "-aq").stdout == engine.docker("volume", "ls", "-q").stdout == ""


def test_a_taken_name_leaves_no_volume_behind(engine: EngineProcess) -> None:
    engine.docker("create", "--name", "box", "busybox", "true")
    refused = engine.docker("create", "--name", "box", "-v", "/data", "busybox", "true")
    assert 'Conflict. The container name "/box" is already in use by container "' in refused.stderr
    assert engine.docker("volume", "ls", "-q").stdout == ""


@pytest.mark.parametrize(("options", "told"), [("odd", '"odd"'), ("size=1m,odd=3", '"odd" "3"')])
def test_odd_tmpfs_options(engine: EngineProcess, options: str, told: str) -> None:
    refused = engine.docker("run", "--rm", "--tmpfs", f"/t:{options}", "busybox", "true")
    assert refused.returncode == 125
    assert f"Error response from daemon: invalid tmpfs option [{told}]" in refused.stderr


def test_an_empty_volume_starts_with_what_the_image_has_there(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN mkdir /data && echo first > /data/file && chown 7:8 /data/file && ln -s file /data/link\n"
    )
    engine.docker("build", "-t", "with-data", str(tmp_path))

    def run_with_data(*options: str) -> None:
        engine.docker("run", "--rm", *options, "with-data", "true")

    show = "cat /data/link; stat -c %u:%g /data/file"
    run_with_data("-v", "filled:/data")
    assert shell(engine, "-v", "filled:/data", script=show) == "first\n7:8\n"
    run_with_data("--mount", "type=volume,src=again,dst=/data")
    assert shell(engine, "-v", "again:/data", script=show) == "first\n7:8\n"
    run_with_data("-v", "bare:/data:nocopy")
    assert shell(engine, "-v", "bare:/data", script="ls /data") == ""
    run_with_data("--mount", "type=volume,src=bare,dst=/data,volume-nocopy")
    assert shell(engine, "-v", "bare:/data", script="ls /data") == ""
    engine.docker("rmi", "with-data")


@pytest.fixture
def lender(engine: EngineProcess, tmp_path: Path) -> Path:
    """A container `lender` with volumes, a bind mount of the returned directory, and a tmpfs."""
    options = ["-v", "lent:/data", "-v", "/anonymous", "-v", f"{tmp_path}:/outside", "--tmpfs", "/scratch"]
    engine.docker("create", "--name", "lender", *options, "busybox", "true")
    return tmp_path


def test_volumes_from(engine: EngineProcess, lender: Path) -> None:
    (lender / "file").write_text("outside\n")
    script = (
        "echo kept > /data/file; cat /outside/file; ls -d /anonymous; test -e /scratch || echo no scratch"
    )
    assert shell(engine, "--volumes-from", "lender", script=script) == "outside\n/anonymous\nno scratch\n"
    assert shell(engine, "--volumes-from", "lender:ro", script="cat /data/file") == "kept\n"
    assert "Read-only" in shell(engine, "--volumes-from", "lender:ro", script="touch /data/no")
    assert (volume_path(engine, "lent") / "file").read_text() == "kept\n"


def test_volumes_from_give_way_to_ones_own(engine: EngineProcess, lender: Path, tmp_path: Path) -> None:
    options = ["--volumes-from", "lender", "-v", "mine:/data"]
    engine.docker("create", "--name", "box", *options, "busybox", "true")
    mounts = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "box").stdout)
    assert {mount["Destination"]: mount.get("Name") for mount in mounts}["/data"] == "mine"
    assert {mount["Destination"] for mount in mounts} == {"/data", "/anonymous", "/outside"}


def test_lent_volumes_stay_while_somebody_has_them(engine: EngineProcess, lender: Path) -> None:
    engine.docker("create", "--name", "box", "--volumes-from", "lender", "busybox", "true")
    engine.docker("rm", "-v", "lender")
    assert len(engine.docker("volume", "ls", "-q").stdout.split()) == 2
    engine.docker("rm", "-v", "box")
    assert engine.docker("volume", "ls", "-q").stdout == "lent\n"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nobody", "No such container: nobody"),
        ("lender:wild", "invalid mode: wild"),
        ("lender:nocopy", "invalid mode: nocopy"),
    ],
)
def test_volumes_from_refused(engine: EngineProcess, lender: Path, given: str, sentence: str) -> None:
    done = engine.docker("create", "--volumes-from", given, "busybox", "true", check=False)
    assert (done.returncode, sentence in done.stderr) == (1, True), done.stderr


def test_a_volume_is_filled_when_the_container_is_created(engine: EngineProcess) -> None:
    engine.docker("create", "--name", "box", "-v", "filled:/etc", "busybox", "true")
    assert (volume_path(engine, "filled") / "passwd").exists()
    engine.docker("create", "--name", "other", "-v", "empty:/etc:nocopy", "busybox", "true")
    assert list(volume_path(engine, "empty").iterdir()) == []
