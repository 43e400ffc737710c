"""What this engine is not: a Swarm node, a host of Docker plugins, a maker of checkpoints, a BuildKit.

An engine of Docker's that is not part of a Swarm refuses the tags Swarm, Node, Service, Task, Secret and
Config with one sentence and 503, which every client knows how to show; ours never becomes a part of one, so
`init` and `join` are refused too. Lists that are empty here are answered as empty lists.
docs/api.md lists them all beside what is served.
"""

from aiohttp import web

from dockmagic_runtime.api.call import Call, answer
from dockmagic_runtime.api.router import Handler, Routes
from dockmagic_runtime.errors import EngineError, NotFound, NotImplementedHere, Unavailable

routes = Routes()

_NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
_NO_SWARM = "swarm mode is not supported by this engine: it is an engine of one machine"
_NO_PLUGINS = "plugins are not supported by this engine: its drivers are built in"
NO_CHECKPOINTS = "checkpoints are not supported by this engine: it cannot save the state of running processes"
_NO_BUILDKIT = "BuildKit is not supported by this engine; set DOCKER_BUILDKIT=0"
_NO_WEBSOCKET = "attach over a websocket is not supported: use POST /containers/{id}/attach"

REFUSED: dict[EngineError, tuple[str, ...]] = {
    Unavailable(_NO_MANAGER): (
        *("GET /swarm", "POST /swarm/update", "GET /swarm/unlockkey", "POST /swarm/unlock"),
        *("GET /nodes", "GET /nodes/{id}", "DELETE /nodes/{id}", "POST /nodes/{id}/update"),
        *("GET /services", "POST /services/create", "GET /services/{id}", "DELETE /services/{id}"),
        *("POST /services/{id}/update", "GET /services/{id}/logs"),
        *("GET /tasks", "GET /tasks/{id}", "GET /tasks/{id}/logs"),
        *("GET /secrets", "POST /secrets/create", "GET /secrets/{id}", "DELETE /secrets/{id}"),
        *("POST /secrets/{id}/update", "POST /configs/{id}/update"),
        *("GET /configs", "POST /configs/create", "GET /configs/{id}", "DELETE /configs/{id}"),
    ),
    Unavailable("This node is not part of a swarm"): ("POST /swarm/leave",),
    Unavailable("volume update only valid for cluster volumes, but swarm is unavailable"): (
        "PUT /volumes/{name}",
    ),
    NotImplementedHere(_NO_SWARM): ("POST /swarm/init", "POST /swarm/join"),
    NotImplementedHere(_NO_PLUGINS): (
        *("POST /plugins/pull", "POST /plugins/create", "GET /plugins/privileges"),
        "POST /plugins/{name:path}/upgrade",
    ),
    NotImplementedHere(NO_CHECKPOINTS): (
        *("GET /containers/{id}/checkpoints", "POST /containers/{id}/checkpoints"),
        "DELETE /containers/{id}/checkpoints/{checkpoint}",
    ),
    NotImplementedHere(_NO_BUILDKIT): ("POST /session", "POST /grpc"),
    NotImplementedHere(_NO_WEBSOCKET): ("GET /containers/{id}/attach/ws",),
}


def _refusing(error: EngineError) -> Handler:
    async def refuse(call: Call) -> web.StreamResponse:
        raise type(error)(str(error))

    return refuse


for _error, _lines in REFUSED.items():
    for _line in _lines:
        _method, _path = _line.split()
        routes.add(_method, _path)(_refusing(_error))


@routes.get("/plugins")
async def plugins(call: Call) -> web.StreamResponse:
    return answer([])


@routes.get("/plugins/{name:path}/json")
@routes.post("/plugins/{name:path}/enable")
@routes.post("/plugins/{name:path}/disable")
@routes.post("/plugins/{name:path}/push")
@routes.post("/plugins/{name:path}/set")
@routes.delete("/plugins/{name:path}")
async def plugin(call: Call) -> web.StreamResponse:
    raise NotFound(f'plugin "{call["name"]}" not found')
