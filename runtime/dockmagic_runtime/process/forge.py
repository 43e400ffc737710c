"""What the spawner process does: wait for a channel, fork, let the child be the shim of it.

Imports only what a container start needs, all of it before the first fork: children share these pages, and a
child inside a container must not import anything.
"""

import gc
import marshal
import os
import signal
import socket
from typing import NoReturn

from dockmagic_runtime.kernel import capabilities, cgroups, libc, namespaces
from dockmagic_runtime.process import logfile, messages, shim, stdio
from dockmagic_runtime.process.messages import receive

_REHEARSALS = 20  # Python specialises after 8 calls


def main(descriptor: int) -> NoReturn:
    """Serve the engine at the other end of `descriptor` until it is gone."""
    libc.close_all_but({descriptor})
    os.set_inheritable(descriptor, False)
    channel = socket.socket(fileno=descriptor)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # The engine may have been started with some ignored (nohup), which programs must not inherit.
        if signal.getsignal(number) is signal.SIG_IGN and number != signal.SIGPIPE:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps shims that have ended
    capabilities.last_cap()
    cgroups.layout()
    _rehearse()
    gc.collect()
    # From now on a collection does not touch, and so not copy, what children share with us.
    gc.freeze()
    while True:
        data, descriptors = receive(channel, 16)
        if not data:
            os._exit(0)
        # Not os.fork(): what Python does after it, for threads that we don't have, writes to half a megabyte
        # of pages, and each page written is one more that every shim has for itself.
        pid, pidfd = namespaces.clone(0)
        if pid == 0:
            channel.close()
            shim.main(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])
        os.close(pidfd)


def _rehearse() -> None:
    """Play a shim's everyday life a few times before there is one.

    Python specialises code as it runs, and writes that into the code itself. Done here it is done once, in
    pages that all shims share, and not in each of them again.
    """
    for _ in range(_REHEARSALS):
        poller = stdio.Poller()
        log = logfile.JsonLog("/dev/null")
        pipe, end = os.pipe2(os.O_CLOEXEC)
        ours, theirs = socket.socketpair()
        streams = stdio.Streams(
            poller, {pipe: "stdout"}, None, tty=False, stdin_once=False, log=log, on_end=log.close
        )
        streams.attach(stdio.Client(theirs, False, True, True))
        os.write(end, b"line\n")
        poller.turn()
        receive(ours)
        os.close(end)
        while not streams.ended or streams.clients:
            poller.turn()
        ours.close()
        ours, theirs = socket.socketpair()
        socket.send_fds(ours, [marshal.dumps({"pid": 1, "streams": [[True]]})], [theirs.fileno()])
        data, descriptors = receive(theirs)
        marshal.loads(data)
        os.close(descriptors[0])
        messages.Decoder().feed(messages.encode({"event": "exited", "code": 0}), [])
        ours.close()
        theirs.close()
