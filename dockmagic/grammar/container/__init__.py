"""`docker container …`, and the same words directly under `docker`.

* running.py: `run`, `create`, `start`, `attach`, `exec`: a program with its output in the cell
* changing.py: `stop`, `restart`, `kill`, `pause`, `wait`, `rename`, `update`, `rm`, `prune`…
* looking.py: `ls`, `inspect`, `logs`, `top`, `stats`, `port`, `diff`
* files.py: `cp`, `export`, `commit`
* pictures.py: our own verbs, what the kernel did: `namespaces`, `layers`, `ports`, `resources`, `panel`

What the value of each command is: `create`, `run -d`, and whatever changes a container: the container (a
list when several were named); `run`, `exec`, `start -a`, `attach`: a Result with exit code and output; `ls`,
`top`, `stats`, `diff`: a table (a DataFrame); `logs`: text; `inspect`: the documents; `rm`, `prune`: what
went.
"""

from dockmagic.grammar.container import changing, files, looking, pictures, running
from dockmagic.grammar.container.group import container

__all__ = ["changing", "container", "files", "looking", "pictures", "running"]
