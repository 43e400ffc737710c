"""What the pictures say, for data whose answer is known."""

import re

import pytest

from dockmagic.views import cards, layers, life, namespaces, ports, progress, resources, source, tables
from dockmagic.views.view import View
from tests.notebook.views import examples
from tests.notebook.views.reading import check_says_the_same
from tests.notebook.views.test_same_words import a_build, a_pull, some_samples


def test_layers_stand_top_first_with_the_writable_one_on_top() -> None:
    frame = View(*layers.parts(examples.LAYERS)).frame()
    assert list(frame["Layer"]) == ["writable", "4", "3", "2", "1"]
    assert list(frame["Origin"]) == ["+ written", "not known", "settings only", "+ built", "↓ pulled"]
    assert list(frame["Shared with"]) == [
        "only this container",
        "not known",
        "",
        "not shared",
        "= busybox:latest, my-other:1",
    ]
    assert list(frame["Size"]) == ["20MB", "3B", "0B", "500B", "1.98MB"]
    assert frame["Instruction"][4] == "ADD file:1 in /"
    text = View(*layers.parts(examples.LAYERS)).text()
    assert "3 layers, 1.98MB, read-only; 1.98MB of it stored once for several images." in text
    assert "removed  /x" in text


@pytest.mark.parametrize(
    ("created_by", "instruction"),
    [
        ("/bin/sh -c apt-get update", "RUN apt-get update"),
        ('/bin/sh -c #(nop)  CMD ["sh"]', 'CMD ["sh"]'),
        ("RUN /bin/sh -c make # buildkit", "RUN make"),
        ("RUN |1 A=1 /bin/sh -c make # buildkit", "RUN make"),
        ("|1 A=1 /bin/sh -c make", "RUN make"),
        ("COPY . /src # buildkit", "COPY . /src"),
    ],
)
def test_the_instruction_behind_a_history_entry(created_by: str, instruction: str) -> None:
    assert layers.instruction({"created_by": created_by}) == instruction


def test_the_machine_itself_as_the_lowest_layer() -> None:
    machine = {
        "instruction": "the machine's own root",
        "size": 0,
        "empty": True,
        "origin": "host",
        "shared_with": [],
    }
    picture = View(*layers.parts({"name": "host", "image": "host", "layers": [machine], "writable": None}))
    assert list(picture.frame().loc[0])[2:4] == ["not counted", "this machine"]
    assert "0B" not in picture.text(), "its size is not nothing"


def test_a_stream_without_a_message() -> None:
    build = progress.BuildProgress("Building")
    assert "Waiting for the engine." in build.text()
    build.close()
    assert "The engine sent nothing." in build.text()


def test_many_changes_are_cut_and_counted() -> None:
    changes = [{"Kind": 1, "Path": f"/{number}"} for number in range(1000)]
    text = View(
        *layers.parts({**examples.LAYERS, "writable": {"size": 0, "files": 1000, "changes": changes}})
    ).text()
    assert "1000 changes in the writable layer" in text
    assert "… 800 more" in text


def test_namespaces_side_by_side() -> None:
    frame = View(*namespaces.parts("web", examples.NAMESPACES)).frame()
    assert list(frame.columns) == ["Namespace", "Isolates", "web", "Host", "Relation"]
    assert list(frame.loc[0]) == ["mnt", "mounts and files", "4026532180", "4026531832", "≠ its own"]
    assert list(frame["Relation"]) == ["≠ its own", "= shared with the host", "not known"]


def test_ports_in_order_with_their_addresses() -> None:
    frame = View(*ports.parts(examples.PORTS, kernel=True)).frame()
    assert list(frame["Host"]) == ["127.0.0.1:53", "[::]:8080"]
    assert list(frame["Address in its network"]) == ["[fd00::2]:5353", "172.17.0.2:80"]
    assert "kernel" in View(*ports.parts([], kernel=True)).text()
    assert "its records" in View(*ports.parts([], kernel=False)).text()


def test_a_container_card() -> None:
    text = View(*cards.container_parts(examples.CONTAINER)).text()
    assert "● running, healthy" in text
    assert "0.0.0.0:8080 → 80/tcp, [::]:8080 → 80/tcp" in text
    assert "443" not in text, "exposed, not published"
    assert "memory 64MiB, 0.5 CPUs, 20 processes, read-only root" in text
    assert "data → /var/lib/data" in text
    assert "2024-05-01 12:30:05 UTC" in text


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ({}, None),
        ({"Status": "none"}, None),
        ({"Status": "starting", "Log": []}, "not checked yet"),
        ({"Status": "healthy", "FailingStreak": 0, "Log": [{"ExitCode": 0}]}, "the last check passed"),
        (
            {
                "Status": "healthy",
                "FailingStreak": 1,
                "Log": [{"ExitCode": 0}, {"ExitCode": 1, "Output": ""}],
            },
            "the last check ended with code 1",
        ),
        (
            {"Status": "unhealthy", "FailingStreak": 3, "Log": [{"ExitCode": 7, "Output": "no\nanswer\n"}]},
            "the last check ended with code 7, the 3rd failure in a row: no answer",
        ),
    ],
)
def test_what_a_health_check_found(health: dict, words: str | None) -> None:
    assert life.checks({"Health": health}) == words


@pytest.mark.parametrize(
    ("name", "most", "count", "words"),
    [
        ("no", 0, 0, None),
        ("", 0, 0, None),
        ("always", 0, 0, "always; so far never"),
        ("on-failure", 3, 2, "on-failure, 3 times at most; so far twice"),
        ("unless-stopped", 0, 5, "unless-stopped; so far 5 times"),
    ],
)
def test_what_a_restart_policy_did(name: str, most: int, count: int, words: str | None) -> None:
    policy = {"Name": name, "MaximumRetryCount": most}
    assert life.restarts({"HostConfig": {"RestartPolicy": policy}, "RestartCount": count}) == words


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"Status": "exited", "ExitCode": 0}, "■ exited with code 0"),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, "✗ exited with code 137, out of memory"),
        ({"Status": "paused"}, "‖ paused"),
        ({"Status": "running", "Health": {"Status": "unhealthy"}}, "● running, unhealthy"),
        ({"Status": "running", "Health": {"Status": "starting"}}, "● running, health starting"),
        ({"Status": "running", "Health": {"Status": "none"}}, "● running"),
        ({"Status": "restarting", "Health": {"Status": "unhealthy"}}, "↻ restarting"),
    ],
)
def test_the_status_of_a_card(state: dict, words: str) -> None:
    assert life.status(state).words == words


def test_members_of_a_network_by_name() -> None:
    assert "db 172.18.0.2, web 172.18.0.3" in View(*cards.network_parts(examples.NETWORK)).text()


def test_resources_are_docker_s_numbers() -> None:
    one = some_samples(1)[0]
    assert one.cpu == pytest.approx(50)
    assert one.memory == 20 * 2**20, "without the cache that can be taken back"
    frame = (
        View(*resources.parts("web", some_samples(5), {"NanoCpus": 500_000_000, "Memory": 1}))
        .frame()
        .set_index("Resource")
    )
    assert list(frame.loc["CPU"]) == ["50.0%", "50.0%", "50.0%", "50%"]
    assert list(frame.loc["Memory"]) == ["20MiB", "20MiB", "20MiB", "64MiB"]
    assert list(frame.loc["Network received"]) == ["5kB", "1kB/s", "1kB/s", ""]
    assert list(frame.loc["Block read"]) == ["20.5kB", "4.1kB/s", "4.1kB/s", ""]


def test_no_cpu_without_an_earlier_reading() -> None:
    assert resources.sample(examples.stats(1), None, 0.0) is None


def test_the_drawing_takes_its_ink_from_the_page() -> None:
    svg = resources.draw(some_samples(3))
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert resources.INK not in svg
    assert "<image" not in svg
    stripped = re.sub(r"<style.*?</style>|<!--.*?-->|<[^>]*>", "", svg, flags=re.DOTALL)
    assert not stripped.split(), "a page that strips the drawing shows nothing of it"


def test_a_build_step_by_step() -> None:
    build = a_build(fails=False)
    frame = build.frame()
    assert list(frame["Instruction"]) == ["FROM busybox", "RUN echo <b>", "RUN false"]
    assert list(frame["State"]) == ["= base", "✓ cached", "+ built"]
    assert list(frame["Size"]) == ["981kB", "0B", "7B"]
    assert isinstance(build, progress.BuildProgress)
    assert build.image == "sha256:" + "1" * 64
    assert build.steps[2].output == [examples.EVIL, "", "more"]


def test_a_failing_build_marks_the_line() -> None:
    build = a_build(fails=True)
    assert list(build.frame()["State"]) == ["= base", "✓ cached", "✗ failed"]
    text = build.text()
    assert "✗ The command 'false' <failed>" in text
    assert "It is line 6 of the Dockerfile" in text
    assert "▶  6 RUN false" in text


@pytest.mark.parametrize(("step", "line"), [(1, 2), (2, 3), (3, 6), (4, 9), (5, None)])
def test_the_line_of_a_step(step: int, line: int | None) -> None:
    dockerfile = "# x\nFROM a\nRUN b \\\n  # in between\n  c\nRUN <<EOF\nRUN not this\nEOF\nCMD d\n"
    assert source.line_of(dockerfile, step) == line


def planned(dockerfile: str) -> progress.BuildProgress:
    """A build that our engine has told the plan of."""
    build = progress.BuildProgress("Building", dockerfile)
    steps = [
        {"index": number, "instruction": text, "line": number, "stage": "stage 0"}
        for number, text in enumerate(dockerfile.splitlines(), 1)
    ]
    build.feed({"aux": {"dockmagic.plan": {"steps": steps, "skipped": []}}})
    return build


def record(build: progress.BuildProgress, index: int, state: str, **place: int) -> None:
    told = {"index": index, "state": state, "seconds": 1.0, "size": 0, **place}
    build.feed({"aux": {"dockmagic.step": told}})


BESIDE = ["   1 FROM a", "   2 COPY one \\"]


@pytest.mark.parametrize(
    ("index", "line", "column", "shown"),
    [
        (
            2,
            3,
            6,
            [
                "It is line 3, column 6, of the Dockerfile",
                *BESIDE,
                "▶  3 \ttwo gone /x/",
                "     \t    ^",
                "   4 RUN \\",
                "   5   true",
            ],
        ),
        (
            3,
            4,
            1,
            ["It is line 4 of the Dockerfile", *BESIDE, "   3 \ttwo gone /x/", "▶  4 RUN \\", "▶  5   true"],
        ),
    ],
)
def test_a_step_that_failed_at_a_place_of_its_own(
    index: int, line: int, column: int, shown: list[str]
) -> None:
    dockerfile = "FROM a\nCOPY one \\\n\ttwo gone /x/\nRUN \\\n  true\n"
    build = progress.BuildProgress("Building", dockerfile)
    begins = [("FROM a", 1), ("COPY one two gone /x/", 2), ("RUN true", 4)]
    steps = [{"instruction": text, "line": number, "stage": "stage 0"} for text, number in begins]
    build.feed({"aux": {"dockmagic.plan": {"steps": steps, "skipped": []}}})
    record(build, index, "failed", line=line, column=column)
    build.feed({"error": "COPY failed: <gone>"})
    build.close()
    told = ["✗ COPY failed: <gone>", "", shown[0], *(f"    {each}" for each in shown[1:])]
    assert build.text().splitlines()[-len(told) :] == told
    check_says_the_same(build.text(), build.html())


def test_of_a_failed_step_the_last_lines_are_open() -> None:
    build = planned("RUN long")
    record(build, 1, "running")
    for number in range(1, 501):
        build.feed({"stream": f"line {number}\n", "dockmagic.step": 1})
    assert "Step 1, the last 15 of 500 lines of output\n    line 486\n" in build.text()
    assert "line 485" not in build.text(), "while it runs there is only the end"
    record(build, 1, "failed")
    build.feed({"error": "no"})
    build.close()
    text = build.text()
    assert "Step 1, 485 earlier lines of output\n    … 85 earlier lines not shown\n    line 86\n" in text
    assert "Step 1, the last 15 of 500 lines of output\n    line 486\n" in text
    assert build.html().count('<details class="dm-fold dm-bad" open>') == 2, (
        "these lines, and the Dockerfile's"
    )


def test_output_is_what_a_terminal_would_leave() -> None:
    build = planned("RUN wget")
    build.feed({"stream": "10%\r50%\r100%\r\n\x1b[1;31mred\x1b[0m\n", "dockmagic.step": 1})
    assert build.steps[0].output == ["100%", "red"]


def test_an_image_that_is_not_there_fails_its_step() -> None:
    build = planned("FROM nowhere\nRUN true")
    record(build, 1, "running")
    build.feed({"error": "no such image"})
    build.close()
    assert list(build.frame()["State"]) == ["✗ failed", "○ not run"]
    assert "▶  1 FROM nowhere" in build.text()


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        (
            "dockerfile parse error on line 6, column 6: unknown flag: --frm",
            ["It is line 6, column 6, of the Dockerfile", "▶  6 COPY --frm=x a b", "          ^"],
        ),
        (
            "dockerfile parse error on line 3, column 1: RUN has no such thing",
            ["It is line 3, column 1, of the Dockerfile", "▶  3 RUN echo \\", "     ^"],
        ),
        (
            "Dockerfile parse error line 3: unknown instruction: RUNN",
            ["It is line 3 of the Dockerfile", "▶  3 RUN echo \\", "▶  5   hi"],
        ),
    ],
)
def test_a_dockerfile_that_is_refused(sentence: str, shown: list[str]) -> None:
    dockerfile = "# one\nFROM a\nRUN echo \\\n  # between\n  hi\nCOPY --frm=x a b\nCMD x\n"
    build = progress.BuildProgress("Building", dockerfile)
    build.refuse(sentence)
    build.close()
    assert build.text() == source.Refusal(sentence, dockerfile).text(), "no table without a step"
    lines = build.text().splitlines()
    assert lines[0] == f"✗ {sentence}"
    assert set(shown) <= {line.removeprefix("    ") for line in lines}
    check_says_the_same(build.text(), build.html())


def test_of_a_long_dockerfile_only_the_lines_around_are_shown() -> None:
    dockerfile = "FROM a\n" + "".join(f"RUN {number}\n" for number in range(2, 300))
    lines = View(*source.excerpt(dockerfile, 150)).text().splitlines()
    assert [line.split()[-1] for line in lines[1:]] == [str(number) for number in range(147, 154)]
    assert lines[4] == "    ▶ 150 RUN 150"
    assert source.excerpt(dockerfile, 1000) == []


def test_a_build_that_was_stopped() -> None:
    build = progress.BuildProgress("Building")
    build.feed({"stream": "Step 1/2 : RUN sleep 100\n"})
    build.close()
    assert list(build.frame()["State"]) == ["○ stopped"]


def test_a_pull_layer_by_layer() -> None:
    pull = a_pull()
    frame = pull.frame()
    assert list(frame["Layer"]) == ["aaa", "bbb"]
    assert list(frame["Status"]) == ["Downloading", "✓ Pull complete"]
    assert list(frame["Done"]) == ["5B / 10B", ""]
    assert "latest: Pulling from library/nginx" in pull.text()
    assert isinstance(pull, progress.Progress)
    assert pull.error == "unexpected <EOF>"


def test_a_list_is_a_frame_to_compute_with() -> None:
    listing = tables.table([["web", 3], ["db", 1]], ["NAMES", "PIDS"], "Containers")
    assert listing["PIDS"].sum() == 4
    assert repr(listing).splitlines() == [
        "Containers",
        "NAMES   PIDS",
        "web        3",
        "db         1",
    ]
    part = listing[listing["NAMES"] == "db"]
    assert type(part) is not tables.Listing, "what is computed from it is a plain DataFrame"
