"""Docker's command grammar: one module per noun, and the words that are directly under `docker`.

`invoke` takes the words of a command line and a session and returns the command's value.
"""

from collections.abc import Sequence
from typing import Any

from dockmagic.errors import translate
from dockmagic.grammar import nearby, refusals, syntax
from dockmagic.grammar.account import login, logout, search
from dockmagic.grammar.build import build, builder, dockerfile
from dockmagic.grammar.container import container
from dockmagic.grammar.context import context
from dockmagic.grammar.image import image
from dockmagic.grammar.network import network
from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import DockerGroup, HelpAsked, RefusedOption, RefusedSwitch
from dockmagic.grammar.system import system, version
from dockmagic.grammar.values import Text
from dockmagic.grammar.volume import volume

docker = DockerGroup(
    "docker",
    help="A container engine, from a notebook.",
    params=[
        *(RefusedOption(words.split(), why=why) for words, why in refusals.OPTIONS.items()),
        *(RefusedSwitch(words.split(), why=why) for words, why in refusals.SWITCHES.items()),
    ],
)

for noun in (container, image, network, volume, system, context, builder):
    docker.add_command(noun)

# What `docker` itself knows: the same commands under the words they had before the nouns.
CONTAINER_WORDS = [
    "run",
    "create",
    "start",
    "stop",
    "restart",
    "kill",
    "pause",
    "unpause",
    "wait",
    "rename",
    "rm",
    "ps",
    "inspect",
    "logs",
    "exec",
    "attach",
    "top",
    "stats",
    "port",
    "diff",
    "cp",
    "export",
    "update",
    "commit",
]
IMAGE_WORDS = {
    "images": "ls",
    "pull": "pull",
    "push": "push",
    "history": "history",
    "tag": "tag",
    "rmi": "rm",
    "save": "save",
    "load": "load",
    "import": "import",
}
for word in CONTAINER_WORDS:
    docker.add_command(container.commands[word], word)
for word, name in IMAGE_WORDS.items():
    docker.add_command(image.commands[name], word)
for command in (build, login, logout, search):
    docker.add_command(command)
refusals.refuse(docker, refusals.COMMANDS)
refusals.refuse(context, refusals.CONTEXTS)
docker.add_command(dockerfile, "dockerfile")  # behind the %%dockerfile magic
docker.add_command(version, "version")
docker.add_command(system.commands["info"], "info")
docker.add_command(system.commands["events"], "events")
docker.add_command(system.commands["inspect"], "inspect")


def invoke(words: Sequence[str], session: Session) -> Any:
    """Run `docker WORDS`: the command's value, or its help as text. Raises DockmagicError."""
    try:
        return syntax.run(docker, words, session)
    except HelpAsked as asked:
        return Text(str(asked))
    except Exception as error:
        failure = translate(error)
        if failure is None:
            raise
        raise nearby.helped(failure, session) from None
