"""Commands against an engine: values, streams, stdin, exit codes, errors."""

import tarfile
from pathlib import Path

import docker
import pandas
import pytest
from docker.models.containers import Container
from docker.models.images import Image
from docker.models.networks import Network
from docker.models.volumes import Volume

from dockmagic.errors import ContainerExit, DockmagicError
from dockmagic.extension import picture
from dockmagic.grammar.values import Names, Result, Text

from .conftest import IMAGE, LABEL, Run


def test_a_foreground_run_is_a_result(run: Run) -> None:
    ran = run("%docker run --rm --network none IMAGE sh -c 'echo out; echo err >&2'")
    assert ran.error is None
    assert isinstance(ran.value, Result)
    assert (ran.value.exit_code, ran.value.stdout, ran.value.stderr) == (0, "out\n", "err\n")
    assert (ran.stdout, ran.stderr) == ("out\n", "err\n")


def test_exit_codes_fail_the_cell_unless_asked(run: Run) -> None:
    ran = run("%docker run --rm --network none IMAGE sh -c 'echo x; exit 3'")
    assert isinstance(ran.error, ContainerExit)
    assert ran.error.exit_code == 3
    assert str(ran.error) == "container exited with code 3"
    assert ran.error.result.output == "x\n"
    kept = run("%docker run --rm --no-check --network none IMAGE sh -c 'exit 3'")
    assert kept.error is None and kept.value.exit_code == 3


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/etc", 126, 'exec: "/etc": '),
    ],
)
def test_what_cannot_start_has_dockers_exit_code(run: Run, command: str, code: int, sentence: str) -> None:
    ran = run(f"%docker run --rm --network none IMAGE {command}")
    assert isinstance(ran.error, DockmagicError)
    assert ran.error.exit_code == code
    assert str(ran.error).startswith("Error response from daemon: ")
    assert str(ran.error).count("Error response from daemon") == 1
    assert sentence in str(ran.error)


def test_the_cells_body_is_stdin(run: Run) -> None:
    ran = run("%%container run -i --rm --network none IMAGE sort\nc\na\nb\n")
    assert ran.error is None
    assert ran.value.stdout == "a\nb\nc\n"


def test_a_large_body_arrives_while_output_is_read(run: Run) -> None:
    body = "".join(f"{number:07d} some words to fill the line\n" for number in range(20000))
    ran = run(f"%%container run -i --rm --network none IMAGE cat\n{body}")
    assert ran.error is None
    assert ran.value.stdout == body


def test_interactive_without_a_body_sees_the_end_of_stdin(run: Run) -> None:
    ran = run("%docker run -i --rm --network none IMAGE cat")
    assert ran.error is None and ran.value.output == ""


def test_a_terminal(run: Run) -> None:
    ran = run("%docker run -it --rm --network none IMAGE sh -c '[ -t 0 ] && echo tty; echo two'")
    assert ran.error is None
    assert ran.value.output == "tty\ntwo\n"


def test_the_words_of_a_line_are_dockers(run: Run) -> None:
    ran = run("""%docker run --rm --network none -e "A=x y" IMAGE sh -c 'echo "$A" $HOME {x}'""")
    assert ran.value.output == "x y /root {x}\n"


def test_python_values_where_asked_for(run: Run) -> None:
    run("words = ['-c', 'echo $A']; secret = 'a b'")
    ran = run("%docker --expand run --rm --network none -e A={secret} IMAGE sh {words}")
    assert ran.value.output == "a b\n"


def test_life_of_a_container(run: Run, name: str) -> None:
    web = run(f"web = %container run -d --network none --name {name} IMAGE sleep 100\nweb").value
    assert isinstance(web, Container)
    assert (web.name, web.status) == (name, "running")
    assert run(f"%container pause {name}").value.status == "paused"
    assert run(f"%container unpause {name}").value.status == "running"
    assert run(f"%container stop -t 0 {name}").value.status == "exited"
    assert run(f"%container start {name}").value.status == "running"
    assert run(f"%container rename {name} {name}-2").value.name == f"{name}-2"
    assert run(f"%container kill {name}-2").value.attrs["State"]["ExitCode"] == 137
    assert run(f"%container wait {name}-2").value == 137
    gone = run(f"%container rm {name}-2").value
    assert isinstance(gone, Names) and gone == [f"{name}-2"]


def test_lists_are_dataframes_with_dockers_columns(run: Run, name: str) -> None:
    run(f"%docker create --name {name} --network none IMAGE sh -c 'echo 1; sleep 100000'")
    running = run(f"%docker ps --filter name={name}").value
    assert isinstance(running, pandas.DataFrame) and len(running) == 0
    every = run(f"%docker ps -a --filter name={name}").value
    assert list(every.columns) == [
        "CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES",
    ]  # fmt: skip
    (row,) = every.to_dict("records")
    assert row["NAMES"] == name and row["IMAGE"] == IMAGE and row["STATUS"] == "Created"
    assert row["COMMAND"] == '"sh -c \'echo 1; slee…"'
    assert len(run(f"%docker ps -aq --filter name={name}").value[0]) == 12
    names = run(f"%docker ps -a --filter name={name} --format '{{{{.Names}}}} {{{{.State}}}}'").value
    assert names == f"{name} created"
    images = run("%docker images").value
    assert list(images.columns) == ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    assert (images[["REPOSITORY", "TAG"]] == IMAGE.split(":")).all(axis=1).any()


def test_exec(run: Run, name: str) -> None:
    run(f"%docker run -d --network none --name {name} IMAGE sleep 100")
    ran = run(f"%docker exec -e A=1 -w /tmp {name} sh -c 'echo $A $PWD; echo bad >&2'")
    assert (ran.value.stdout, ran.value.stderr, ran.value.exit_code) == ("1 /tmp\n", "bad\n", 0)
    failed = run(f"%docker exec {name} sh -c 'exit 5'")
    assert isinstance(failed.error, ContainerExit) and failed.error.exit_code == 5
    missing = run(f"%docker exec {name} nosuch")
    assert isinstance(missing.error, DockmagicError) and missing.error.exit_code in (126, 127)
    fed = run(f"%%container exec -i {name} wc -l\na\nb\n")
    assert fed.value.stdout.strip() == "2"


def test_logs(run: Run, name: str) -> None:
    run(
        f"%docker run --network none --name {name} IMAGE sh -c 'for i in 1 2 3; do echo $i; done; echo e >&2'"
    )
    logs = run(f"%docker logs {name}")
    assert isinstance(logs.value, Text) and sorted(logs.value.split()) == ["1", "2", "3", "e"]
    assert logs.stdout == "", "without -f, logs are a value and not output"
    assert run(f"%docker logs --tail 1 {name}").value.count("\n") == 1
    stamped = run(f"%docker logs -t {name}").value.splitlines()[0].split()[0]
    assert stamped.endswith("Z") and "T" in stamped
    followed = run(f"%docker logs -f {name}")
    assert sorted((followed.stdout + followed.stderr).split()) == ["1", "2", "3", "e"]


def test_start_attached(run: Run, name: str) -> None:
    run(f"%docker create --network none --name {name} IMAGE echo hello")
    assert run(f"%docker start -a {name}").value.output == "hello\n"


def test_inspect_and_templates(run: Run, name: str) -> None:
    run(f"%docker create --network none --name {name} --label a.b=c IMAGE true")
    documents = run(f"%docker inspect {name}").value
    assert documents[0]["Name"] == f"/{name}"
    form = "'{{.Name}} {{index .Config.Labels \"a.b\"}}'"
    assert run(f"%docker inspect -f {form} {name}").value == f"/{name} c"
    assert run("%docker inspect IMAGE").value[0]["RepoTags"] == [IMAGE]


def test_files_go_in_and_out(run: Run, name: str, tmp_path: Path) -> None:
    run(f"%docker create --network none --name {name} IMAGE cat /tmp/renamed")
    source = tmp_path / "source"
    source.write_text("content\n")
    assert run(f"%docker cp {source} {name}:/tmp/renamed").error is None
    assert run(f"%docker start -a {name}").value.output == "content\n"
    run(f"%docker cp {name}:/tmp/renamed {tmp_path}/back")
    assert (tmp_path / "back").read_text() == "content\n"
    (tmp_path / "dir").mkdir()
    run(f"%docker cp {name}:/tmp/renamed {tmp_path}/dir")
    assert (tmp_path / "dir/renamed").read_text() == "content\n"


def test_what_a_container_changed(run: Run, name: str, tmp_path: Path) -> None:
    run(f"%docker run --network none --name {name} IMAGE touch /tmp/made")
    changes = run(f"%docker diff {name}").value
    assert ["A", "/tmp/made"] in changes.values.tolist()
    exported = run(f"%docker export -o {tmp_path}/fs.tar {name}").value
    with tarfile.open(exported) as tar:
        assert "tmp/made" in tar.getnames()


def test_commit(run: Run, name: str) -> None:
    run(f"%docker run --network none --name {name} IMAGE touch /tmp/made")
    committed = run(f"%docker commit -m why {name} dockmagic-test/committed:1").value
    assert isinstance(committed, Image) and committed.tags == ["dockmagic-test/committed:1"]
    run("%docker rmi dockmagic-test/committed:1")


def test_images(run: Run, tmp_path: Path) -> None:
    tagged = run("%docker tag IMAGE dockmagic-test/other:2").value
    assert isinstance(tagged, Image) and "dockmagic-test/other:2" in tagged.tags
    history = run("%docker history IMAGE").value
    assert list(history.columns) == ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    archive = tmp_path / "image.tar"
    assert run(f"%docker save -o {archive} dockmagic-test/other:2").value == archive
    assert "Untagged: dockmagic-test/other:2" in run("%docker rmi dockmagic-test/other:2").value
    loaded = run(f"%docker load -i {archive}").value
    assert "dockmagic-test/other:2" in loaded.tags
    run("%docker rmi dockmagic-test/other:2")


def test_networks(run: Run, name: str) -> None:
    network = run(f"%network create --label LABEL --subnet 10.98.7.0/24 {name}").value
    assert isinstance(network, Network)
    listed = run(f"%network ls --filter name={name}").value
    assert list(listed.columns) == ["NETWORK ID", "NAME", "DRIVER", "SCOPE"]
    assert name == listed.iloc[0].NAME
    run(f"%docker run -d --network {name} --name {name} IMAGE sleep 100")
    busy = run(f"%network rm {name}")
    assert isinstance(busy.error, DockmagicError)
    assert "has active endpoints" in str(busy.error)
    run(f"%docker rm -f {name}")
    assert run(f"%network rm {name}").value == [name]


def test_volumes(run: Run, name: str) -> None:
    volume = run(f"%volume create --label LABEL {name}").value
    assert isinstance(volume, Volume) and volume.name == name
    run(f"%docker run --rm --network none -v {name}:/data IMAGE sh -c 'echo kept > /data/file'")
    assert (
        run(f"%docker run --rm --network none -v {name}:/data IMAGE cat /data/file").value.output == "kept\n"
    )
    assert list(run("%volume ls").value.columns) == ["DRIVER", "VOLUME NAME", "USED BY"]
    assert run(f"%volume rm {name}").value == [name]


def test_the_engine_itself(run: Run) -> None:
    version = run("%docker version").value
    assert version["Server"]["ApiVersion"] and version["Client"]["Version"]
    assert run("%system info").value["Containers"] >= 0
    assert run("%docker version -f '{{.Server.Version}}'").value == version["Server"]["Version"]
    assert list(run("%system df").value["TYPE"])[:3] == ["Images", "Containers", "Local Volumes"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("logs dockmagic-nosuch", "Error response from daemon: No such container: dockmagic-nosuch"),
        ("rm dockmagic-nosuch", "Error response from daemon: No such container: dockmagic-nosuch"),
        ("volume inspect dockmagic-nosuch", "dockmagic-nosuch"),
        ("run --pull never dockmagic/nosuch", "No such image: dockmagic/nosuch:latest"),
        ("run Dockmagic/Nosuch", "must be lowercase"),
    ],
)
def test_what_is_not_there(run: Run, line: str, sentence: str) -> None:
    ran = run(f"%docker {line}")
    assert isinstance(ran.error, DockmagicError)
    assert sentence in str(ran.error)


def test_several_references_do_what_they_can(run: Run, name: str) -> None:
    run(f"%docker create --network none --name {name} IMAGE true")
    ran = run(f"%docker rm dockmagic-nosuch {name}")
    assert str(ran.error) == "Error response from daemon: No such container: dockmagic-nosuch"
    assert run(f"%docker ps -aq --filter name={name}").value == []


def test_build_from_a_cell(run: Run, tmp_path: Path) -> None:
    (tmp_path / "message").write_text("from the context\n")
    (tmp_path / "secret").write_text("never\n")
    (tmp_path / ".dockerignore").write_text("sec*\n")
    tag = f"dockmagic-test/built-{tmp_path.name.replace('_', '')}:1"
    text = "FROM IMAGE\nCOPY . /c/\nCMD cat /c/message\n"
    built = run(f"%%dockerfile -t {tag} --context {tmp_path} --label LABEL\n{text}")
    assert built.error is None, built.error
    assert isinstance(built.value, Image) and tag in built.value.tags
    assert run(f"%docker run --rm --network none {tag}").value.output == "from the context\n"
    assert "secret" not in run(f"%docker run --rm --network none {tag} ls /c").value.output
    failed = run("%%dockerfile --force-rm\nFROM IMAGE\nRUN exit 4\n")
    assert isinstance(failed.error, DockmagicError)
    assert "exit 4" in str(failed.error) and "4" in str(failed.error)
    run(f"%docker rmi {tag}")


def test_a_terminals_input_left_unread_is_no_error(run: Run) -> None:
    for _ in range(20):
        ran = run("%docker run -it --rm --network none IMAGE echo two")
        assert ran.error is None and ran.value.output == "two\n"


def test_only_the_streams_that_are_attached(run: Run) -> None:
    ran = run("%docker run --rm -a stderr --network none IMAGE sh -c 'echo out; echo err >&2'")
    assert ran.error is None and (ran.value.stdout, ran.value.stderr) == ("", "err\n")


def test_attach_follows_to_the_end(run: Run, name: str) -> None:
    script = "while [ ! -e /tmp/go ]; do sleep 0.05; done; sleep 0.5; echo seen; exit 3"
    run(f"%docker run -d --network none --name {name} IMAGE sh -c '{script}'")
    run(f"%docker exec {name} touch /tmp/go")
    ran = run(f"%docker attach --detach-keys ctrl-a --no-check {name}")
    assert (ran.value.output, ran.value.exit_code) == ("seen\n", 3)
    assert ran.stderr.startswith("WARNING: --detach-keys has no effect: ")
    stopped = run(f"%docker attach {name}")
    assert str(stopped.error) == "cannot attach to a stopped container, start it first"


def test_health_is_seen_wherever_a_container_is(run: Run, docker_host: str, name: str) -> None:
    client = docker.DockerClient(base_url=docker_host)
    wanted = {"container": name, "event": "health_status"}
    changes = client.events(decode=True, filters=wanted)
    box = run(
        f"box = %docker run -d --network none --name {name} --health-cmd 'test -e /tmp/well' "
        "--health-interval 100ms --health-retries 1 --restart on-failure:3 IMAGE sleep 100\nbox"
    ).value
    assert next(changes)["Action"] == "health_status: unhealthy"
    assert "● running, unhealthy" in picture(box, "ContainerCard").text()
    status = f"%docker ps --filter name={name} --format '{{{{.Status}}}}'"
    assert run(status).value.endswith(" (unhealthy)")
    run(f"%docker exec {name} touch /tmp/well")
    assert next(changes)["Action"] == "health_status: healthy"
    changes.close()
    assert run(status).value.endswith(" (healthy)")
    card = picture(box, "ContainerCard").text()
    for words in ("● running, healthy", "the last check passed", "on-failure, 3 times at most; so far never"):
        assert words in card
    client.close()


def test_the_nearest_name_is_offered(run: Run, name: str) -> None:
    run(f"%docker create --network none --name {name} IMAGE true")
    for line in ("logs", "inspect --type container", "rm -f"):
        mistaken = run(f"%docker {line} {name[:-1]}")
        assert str(mistaken.error).endswith(f"{name[:-1]}. Did you mean '{name}'?")
    mistaken = run("%docker image inspect IMAGEx")
    assert str(mistaken.error).endswith(f". Did you mean '{IMAGE}'?")


def test_events_are_a_value(run: Run, name: str) -> None:
    run(f"%docker create --network none --name {name} IMAGE true")
    form = "'{{.Type}} {{.Action}}'"
    ran = run(f"%docker events --since 1m --until 0s --filter container={name} --format {form}")
    assert ran.stdout == "container create\n"
    assert [event["Actor"]["Attributes"]["name"] for event in ran.value] == [name]
    bad = run("%docker events --since yesterday")
    assert 'failed to parse value as time or duration: "yesterday"' in str(bad.error)


def test_disk_usage_thing_by_thing(run: Run, name: str) -> None:
    run(f"%docker create --network none --name {name} -v {name}:/data IMAGE true")
    picture = run("%docker system df -v").value
    assert picture.frame().columns.tolist() == [
        "REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS",
    ]  # fmt: skip
    words = picture.text()
    assert name in words.partition("Local Volumes space usage")[0]
    assert name in words.partition("Local Volumes space usage")[2]
    assert run("%docker system df --format '{{.Type}}'").value.splitlines()[-1] == "Build Cache"


def test_stats_of_several(run: Run, name: str) -> None:
    names = [f"{name}-{number}" for number in range(3)]
    for one in names:
        run(f"%docker run -d --network none --name {one} IMAGE sleep 100")
    table = run(f"%docker stats --no-stream {' '.join(names)}").value
    assert list(table["NAME"]) == names
    assert list(table["PIDS"]) == ["1"] * 3


def test_labels_in_a_format(run: Run, name: str) -> None:
    run(f"%docker create --network none --name {name} -l app=shop IMAGE true")
    form = "'{{.Names}} {{.Label \"app\"}}'"
    assert run(f"%docker ps -a --filter name={name} --format {form}").value == f"{name} shop"


def test_contexts(run: Run, docker_host: str) -> None:
    assert run("%docker context show").value == "default"
    listed = run("%docker context ls").value
    assert list(listed.columns) == ["NAME", "DESCRIPTION", "DOCKER ENDPOINT"]
    assert docker_host in list(listed["DOCKER ENDPOINT"])
    assert str(run("%docker context use nosuch").error) == 'context "nosuch": context not found'
    assert run("%docker context use default").value == "default"
    assert run("%docker context inspect").value[0]["Endpoints"]["docker"]["Host"] == docker_host
    assert run("%docker ps -q").error is None


def test_the_pictures(run: Run, name: str) -> None:
    run(f"%docker run -d --network none --name {name} IMAGE sleep 100")
    for line, words in (
        (f"%container namespaces {name}", "pid"),
        (f"%container layers {name}", IMAGE),
        (f"%container ports {name}", ""),
        (f"%container resources --seconds 1 {name}", name),
        ("%image layers IMAGE", IMAGE),
    ):
        ran = run(line)
        assert ran.error is None, (line, ran.error)
        bundle = ran.value.bundle()
        assert (words in bundle["text/plain"] and "<table" in bundle["text/html"]) or "<p" in bundle[
            "text/html"
        ]


def test_help(run: Run) -> None:
    assert run("%docker run --help").value.startswith("Usage:  docker run [OPTIONS] IMAGE")
    assert "namespaces" in run("%container").value
    assert LABEL
