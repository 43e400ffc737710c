"""What the spawner process does: wait for a channel, fork, let the child be the shim of it.

Imports only what a container start needs, all of it before the first fork: children share these pages, and a
child inside a container must not import anything.
"""

import gc
import os
import signal
import socket
from typing import NoReturn

from dockmagic_runtime.kernel import capabilities, cgroups, libc, namespaces
from dockmagic_runtime.process import shim
from dockmagic_runtime.process.messages import receive


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
