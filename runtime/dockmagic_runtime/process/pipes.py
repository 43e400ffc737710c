"""Pipes for a process without a terminal."""

import os


class Pipes:
    """`theirs` becomes the process's 0, 1 and 2; `stdin` and `outputs` (descriptor -> name) are our ends.

    Streams that aren't wanted are the null device.
    """

    def __init__(self, *, stdin: bool, outputs: bool):
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._open = [null]
        self.stdin: int | None = None
        self.outputs: dict[int, str] = {}
        theirs = [null, null, null]
        if stdin:
            theirs[0], self.stdin = os.pipe2(os.O_CLOEXEC)
            self._open.append(theirs[0])
        if outputs:
            for number, name in ((1, "stdout"), (2, "stderr")):
                ours, theirs[number] = os.pipe2(os.O_CLOEXEC)
                self._open.append(theirs[number])
                self.outputs[ours] = name
        self.theirs = (theirs[0], theirs[1], theirs[2])

    def close_theirs(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open.clear()

    def close(self) -> None:
        self.close_theirs()
        for fd in (*self.outputs, *(() if self.stdin is None else (self.stdin,))):
            os.close(fd)
