"""Process 1 for programs that were not written to be it (`--init`): passes signals on, collects orphans.

It is the same process that prepared the container, with the same reduced rights as the program, no
descriptor open and nothing loaded from the container's files.
"""

import os
import signal
from collections.abc import Callable

from dockmagic_runtime.kernel import libc
from dockmagic_runtime.process.execute import Program
from dockmagic_runtime.process.messages import StartFailed

_NOT_PASSED_ON = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU}


def run(program: Program, channel: int, confine: Callable[[], None]) -> StartFailed:
    """Execute `program` as a child and end as it ends. Returns only in the child, if it can't be executed."""
    waited_for = signal.valid_signals() - _NOT_PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if os.isatty(0):
            # In the foreground of the terminal, so that ^C reaches it. SIGTTOU would stop us as we do it.
            os.tcsetpgrp(0, os.getpgrp())
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        confine()
        return program.run()
    libc.close_range(0)
    confine()
    _serve(child, waited_for)
    raise AssertionError("not reached")


def _serve(child: int, signals: set[signal.Signals]) -> None:
    while True:
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            try:
                os.kill(child, number)
            except ProcessLookupError:
                continue
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(255)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
