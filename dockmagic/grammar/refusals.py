"""The nouns of Docker's command line that are not ours, each with the reason that a user gets."""

import click

from dockmagic.grammar.syntax import Refused

SWARM = "Swarm is for several machines, and the engine is one; use the docker command with a Swarm"

COMMANDS = {
    **dict.fromkeys(("config", "node", "secret", "service", "stack", "swarm"), SWARM),
    "checkpoint": "checkpoints need CRIU, which the engine does not drive",
    "manifest": "lists of several platforms' images are made with the docker command or skopeo",
    "plugin": "the engine has no plugins",
    "trust": "Docker Content Trust has ended; images are not signed here",
}
# Of `docker context`: what makes and keeps contexts, which the docker command's configuration holds.
CONTEXTS = dict.fromkeys(
    ("create", "export", "import", "rm", "update"),
    "contexts are kept by the docker command: change them there, or set DOCKER_HOST",
)
# Before the command's name.
OPTIONS = {
    "--config": "set the environment variable DOCKER_CONFIG before %load_ext dockmagic",
    "--context -c": "use `%docker context use NAME`",
    "--host -H": "set the environment variable DOCKER_HOST before %load_ext dockmagic",
    "--log-level -l": "the engine's log level is the engine's own option",
    "--tlscacert": "set DOCKER_CERT_PATH and DOCKER_TLS_VERIFY before %load_ext dockmagic",
    "--tlscert": "set DOCKER_CERT_PATH and DOCKER_TLS_VERIFY before %load_ext dockmagic",
    "--tlskey": "set DOCKER_CERT_PATH and DOCKER_TLS_VERIFY before %load_ext dockmagic",
}
SWITCHES = {
    "--debug -D": "the engine's log level is the engine's own option",
    "--tls": "set DOCKER_CERT_PATH and DOCKER_TLS_VERIFY before %load_ext dockmagic",
    "--tlsverify": "set DOCKER_CERT_PATH and DOCKER_TLS_VERIFY before %load_ext dockmagic",
}


def refuse(group: click.Group, commands: dict[str, str]) -> None:
    for name, why in commands.items():
        group.add_command(Refused(name, why))
