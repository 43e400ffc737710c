"""What a Dockerfile does, in words; and what of it could be better."""

from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.build.explain import explain
from dockmagic_runtime.build.parser import DockerfileError

NODE = """# the course's
FROM node:18-alpine
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev
COPY . .
ENV PORT=3000
EXPOSE 3000
USER node
HEALTHCHECK --interval=5s CMD wget -q localhost:3000
CMD ["node", "server.js"]
"""


def does(dockerfile: str) -> dict[str, str]:
    return {step["instruction"]: step["does"] for step in explain(dockerfile)["steps"]}


def rules(dockerfile: str, **options: Any) -> dict[str, int]:
    return {finding["rule"]: finding["line"] for finding in explain(dockerfile, **options)["findings"]}


def test_a_node_app() -> None:
    assert [step["does"] for step in explain(NODE)["steps"]] == [
        "Begins a stage with the files and settings of the image node:18-alpine.",
        "Goes to /app, made if it is missing: here the rest runs, and the container starts.",
        "Copies package.json and package-lock.json of the build context to /app/, as a layer.",
        "In a container runs `npm ci --omit=dev` with /bin/sh -c in /app; the files that this changes become"
        " a layer.",
        "Copies everything of the build context to /app, as a layer.",
        "Sets PORT=3000 for the instructions below and in every container.",
        "Notes that the program listens on 3000/tcp. Nothing is published: that is for `run -p` or `-P`.",
        "From here on everything runs as node, and so do containers.",
        "Every 5 s `wget -q localhost:3000` runs in the container; ending with 0 is healthy.",
        "A container runs `node server.js`, unless `docker run` names another command.",
    ]
    assert [step["line"] for step in explain(NODE)["steps"]] == list(range(2, 12))
    assert rules(NODE, ignores=True) == {}
    assert rules(NODE, ignores=False) == {"MissingDockerignore": 6}


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        ("COPY --from=build --chown=me /out/app /bin/", "of the stage build to /bin/, owned by me"),
        ("COPY --from=nginx:1 /etc/nginx /n", "of the image nginx:1 to /n"),
        ("ADD https://example.com/a.txt /a", "Downloads https://example.com/a.txt to /a"),
        ("ADD rootfs.tar /", "unpacked if they are archives"),
        ("RUN --mount=type=cache,target=/root/.npm npm ci", "/root/.npm is kept from build to build"),
        ("RUN --mount=type=secret,id=key cat /run/secrets/key", "the secret key is there only meanwhile"),
        ("RUN --network=none make", "with the network none"),
        ('RUN ["make", "all"]', "runs make all, without a shell,"),
        ("RUN <<E\nset -e\nmake\nE", "`set -e … (2 lines)`"),
        ("ENTRYPOINT exec top", "words after the image's name are lost"),
        ('SHELL ["/bin/bash", "-c"]', "run with /bin/bash -c from here on"),
        ("ONBUILD RUN make", "at the beginning of every build on this image"),
        ("STOPSIGNAL SIGQUIT", "sends SIGQUIT first"),
        ("VOLUME /data /more", "volume of its own at /data and /more"),
        ("LABEL a=b c=d", "Notes a=b and c=d"),
        ("ARG V=1", "Takes a build argument for the instructions below: V, by default '1'"),
        ("HEALTHCHECK NONE", "Takes away the health check"),
        ("MAINTAINER me", "Notes me as the author"),
    ],
)
def test_each_instruction(instruction: str, words: str) -> None:
    told = explain(f"FROM a:1 AS build\nRUN x\nFROM build\n{instruction}\n")["steps"]
    assert told[2]["does"] == "Begins a stage with all that the stage build has become."
    assert words in told[3]["does"], told[3]["does"]


def test_stages_that_nothing_needs() -> None:
    text = "FROM a:1 AS one\nFROM a:1 AS two\nFROM a:1\nCOPY --from=two /x /x\n"
    assert explain(text)["skipped"] == ["one"]
    assert explain(text, target="one")["skipped"] == ["two", "stage 2"]


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        ("PinnedBaseImage", "FROM node", "FROM node:18"),
        ("PinnedBaseImage", "FROM reg:5000/node:latest", "FROM reg:5000/node:1"),
        ("ConsecutiveRuns", "FROM a:1\nRUN a\nRUN b", "FROM a:1\nRUN a && b"),
        ("AptUpdateAlone", "FROM a:1\nRUN apt-get update", "FROM a:1\nRUN echo"),
        (
            "AptListsKept",
            "FROM a:1\nRUN apt-get update && apt-get install -y x",
            "FROM a:1\nRUN apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*",
        ),
        ("AptAsks", "FROM a:1\nRUN apt-get install x", "FROM a:1\nRUN apt-get -y install x"),
        ("CopyBeforeWorkdir", "FROM a:1\nCOPY x .", "FROM a:1\nWORKDIR /w\nCOPY x ."),
        (
            "CopyBeforeInstall",
            "FROM a:1\nWORKDIR /a\nCOPY . .\nRUN npm install",
            "FROM a:1\nWORKDIR /a\nCOPY p ./\nRUN npm install\nCOPY . .",
        ),
        ("AddWhereCopyDoes", "FROM a:1\nADD x /x", "FROM a:1\nADD x.tar.gz /x"),
        ("JSONArgsRecommended", "FROM a:1\nCMD node x", 'FROM a:1\nCMD ["node", "x"]'),
        ("RunsAsRoot", "FROM a:1\nUSER root", "FROM a:1\nUSER me"),
        ("SecretsUsedInArgOrEnv", "FROM a:1\nENV DB_PASSWORD=x", "FROM a:1\nENV PASSAGE=x"),
        ("SecretsUsedInArgOrEnv", "FROM a:1\nARG API_KEY", "FROM a:1\nARG PUBLIC_KEY"),
        (
            "NoHealthcheck",
            'FROM a:1\nEXPOSE 80\nCMD ["x"]',
            'FROM a:1\nEXPOSE 80\nHEALTHCHECK CMD true\nCMD ["x"]',
        ),
        ("MultipleInstructionsDisallowed", 'FROM a:1\nCMD ["a"]\nCMD ["b"]', 'FROM a:1\nCMD ["a"]'),
        ("StageNameCasing", "FROM a:1 AS Build", "FROM a:1 AS build"),
        ("DuplicateStageName", "FROM a:1 AS b\nFROM a:1 AS b", "FROM a:1 AS b\nFROM a:1 AS c"),
        ("ReservedStageName", "FROM a:1 AS scratch", "FROM a:1 AS from-scratch"),
        ("MaintainerDeprecated", "FROM a:1\nMAINTAINER me", "FROM a:1\nLABEL a=me"),
        ("LegacyKeyValueFormat", "FROM a:1\nENV A b", "FROM a:1\nENV A=b"),
        ("WorkdirRelativePath", "FROM a:1\nWORKDIR w", "FROM a:1\nWORKDIR /w\nWORKDIR x"),
    ],
)
def test_each_rule(rule: str, bad: str, good: str) -> None:
    assert rule in rules(bad) and rule not in rules(good)
    finding = next(each for each in explain(bad)["findings"] if each["rule"] == rule)
    assert finding["reason"] and finding["fix"]
    assert rule not in rules(f"# check=skip={rule.lower()},Other;error=true\n{bad}")
    assert rules(f"# check=skip=all\n{bad}") == {}


GONE = "FROM a:1 AS b\nRUN x\nRUN y\nRUN apt-get install -y x\nFROM a:1\nCOPY --from=b /x /x\nUSER me"


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        ("PinnedBaseImage", "ARG V=latest\nFROM node:$V", "ARG V=18\nFROM node:$V"),
        ("PinnedBaseImage", "FROM reg:5000/node", "ARG V\nFROM node:$V"),
        ("PinnedBaseImage", "FROM a:1\nCOPY --from=nginx /x /x", "FROM a:1\nCOPY --from=nginx:1 /x /x"),
        ("PinnedBaseImage", "FROM b", "FROM a:1 AS b\nFROM b\nCOPY --from=b /x /x\nCOPY --from=0 /y /y"),
        ("PinnedBaseImage", "FROM a:latest", "FROM a@sha256:1234"),
        # What is left behind in a stage is in no image.
        ("ConsecutiveRuns", GONE.replace("FROM a:1\n", "FROM b\n"), GONE),
        ("ConsecutiveRuns", "FROM a:1\nRUN x\nRUN y", "FROM a:1\nRUN x\nRUN --network=none y"),
        ("AptListsKept", GONE.replace("FROM a:1\n", "FROM b\n"), GONE),
        (
            "AptListsKept",
            "FROM a:1\nRUN <<EOF\napt-get install -y x\nEOF",
            "FROM a:1\nRUN --mount=type=cache,target=/var/lib/apt apt-get install -y x",
        ),
        ("AptUpdateAlone", "FROM a:1\nRUN apt update", "FROM a:1\nRUN apt-get update && apt-get -y upgrade"),
        ("AptAsks", "FROM a:1\nRUN apt-get -q install x", "FROM a:1\nRUN apt-get -qq install x"),
        ("AptAsks", "FROM a:1\nRUN apt install --no-x x", "FROM a:1\nRUN apt-get install -yqq --no-x x"),
        (
            "CopyBeforeWorkdir",
            "FROM a:1 AS b\nFROM b\nCOPY x .",
            "FROM a:1 AS b\nWORKDIR /w\nFROM b\nCOPY x .",
        ),
        (
            "CopyBeforeInstall",
            "FROM a:1\nWORKDIR /a\nCOPY . .\nRUN yarn && yarn build",
            "FROM a:1\nWORKDIR /a\nCOPY p ./\nRUN yarn\nCOPY . .\nRUN yarn build",
        ),
        (
            "CopyBeforeInstall",
            "FROM a:1\nWORKDIR /a\nCOPY . .\nRUN pip install -r requirements.txt",
            "FROM a:1\nWORKDIR /a\nCOPY . .\nRUN pip install --no-deps .",
        ),
        ("AddWhereCopyDoes", "FROM a:1\nADD archive.txt /x", "FROM a:1\nADD https://a/b /x"),
        ("JSONArgsRecommended", "FROM a:1\nENTRYPOINT top", "FROM a:1\nENTRYPOINT exec top"),
        ("JSONArgsRecommended", "FROM a:1\nCMD a", 'FROM a:1\nSHELL ["/bin/bash", "-c"]\nCMD a'),
        ("RunsAsRoot", "FROM a:1 AS b\nFROM b", "FROM a:1 AS b\nUSER me\nFROM b"),
        ("RunsAsRoot", "FROM a:1\nUSER 0:0", "FROM a:1\nUSER 1000:0"),
        ("RunsAsRoot", "FROM gcr.io/distroless/base:1", "FROM gcr.io/distroless/base:nonroot"),
        ("RunsAsRoot", 'FROM nginx:1\nCMD ["x"]', "FROM docker.io/library/nginx:1"),
        ("RunsAsRoot", 'FROM a:1\nENTRYPOINT ["x"]', 'FROM a:1\nENTRYPOINT ["gosu", "me", "x"]'),
        ("SecretsUsedInArgOrEnv", "ARG TOKEN\nFROM a:1", "ARG TOKEN_URL\nFROM a:1"),
        (
            "SecretsUsedInArgOrEnv",
            "FROM a:1\nENV X=1 PASSWORD=y",
            "FROM a:1\nENV PASSWORD_FILE=/run/secrets/x",
        ),
        (
            "NoHealthcheck",
            'FROM a:1 AS b\nEXPOSE 80\nFROM b\nCMD ["x"]',
            'FROM a:1 AS b\nHEALTHCHECK CMD true\nEXPOSE 80\nFROM b\nCMD ["x"]',
        ),
        ("NoHealthcheck", 'FROM a:1\nEXPOSE 80\nCMD ["x"]', 'FROM scratch\nEXPOSE 80\nCMD ["/x"]'),
        ("LegacyKeyValueFormat", "FROM a:1\nLABEL a b", 'FROM a:1\nLABEL "a b"=c'),
    ],
)
def test_where_a_rule_ends(rule: str, bad: str, good: str) -> None:
    assert rule in rules(bad)
    assert rule not in rules(good)


def test_the_target_is_the_image() -> None:
    text = "FROM a:1 AS one\nUSER me\nFROM a:1 AS two\n"
    assert "RunsAsRoot" in rules(text)
    for target in ("one", "ONE", "0"):
        assert "RunsAsRoot" not in rules(text, target=target)


@pytest.mark.parametrize(
    ("line", "better"),
    [
        ("CMD node server.js", 'write CMD ["node", "server.js"]'),
        ('CMD nginx -g "daemon off;"', 'write CMD ["nginx", "-g", "daemon off;"]'),
        (
            "CMD python app.py $PORT",
            "write CMD exec python app.py $PORT: then the program takes the shell's place",
        ),
        ("ENTRYPOINT a && b", "put it in a script that ends with exec, and write ENTRYPOINT with its path"),
        ("CMD A=1 b", "put it in a script that ends with exec, and write CMD with its path"),
    ],
)
def test_the_better_form_means_the_same(line: str, better: str) -> None:
    findings = explain(f"FROM a:1\n{line}\n")["findings"]
    (fix,) = [each["fix"] for each in findings if each["rule"] == "JSONArgsRecommended"]
    assert fix.startswith(better)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "well_written").iterdir()), ids=lambda path: path.name
)
def test_a_well_written_dockerfile_is_left_alone(path: Path) -> None:
    assert explain(path.read_text(), ignores=True)["findings"] == []


def test_what_a_stage_has_from_another() -> None:
    told = does(
        'ARG V=1\nFROM a:$V AS base\nCOPY x y/\nWORKDIR /app\nUSER me\nENTRYPOINT ["e", "a b"]\n'
        'FROM base\nRUN x\nCOPY p ./\nCMD ["c"]\nFROM scratch\nCOPY q .\n'
    )
    assert told["FROM a:$V AS base"] == (
        "Begins a stage, called base, with the files and settings of the image a:$V"
        " (a:1, if the build says nothing else)."
    )
    assert "to y in the base image's directory" in told["COPY x y/"]
    assert "runs `x` with /bin/sh -c as me in /app;" in told["RUN x"]
    assert "to /app/," in told["COPY p ./"]
    assert told['CMD ["c"]'] == "If `docker run` says nothing more, `e 'a b'` gets the words `c`."
    assert "to /," in told["COPY q ."]


def test_nonsense_is_an_error_with_its_place() -> None:
    with pytest.raises(DockerfileError, match="line 2, column 1: unknown instruction: RUNN"):
        explain("FROM a\nRUNN x\n")
