"""What commands return: values to compute with, which also look right as a cell's output."""

import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any


class Text(str):
    """Output that is text (logs, help, a diff): shows as it is, without quotes.

    `shown` says that the cell has already seen it come; then it is not shown again as the cell's value.
    """

    shown: bool = False

    def __new__(cls, text: str = "", *, shown: bool = False) -> "Text":
        value = super().__new__(cls, text)
        value.shown = shown
        return value

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self.rstrip("\n"))

    def _ipython_display_(self) -> None:
        if not self.shown and self:
            raise NotImplementedError  # IPython then shows it in the usual way


class Names(list[str]):
    """Names or ids, one a line, as `docker rm` and `docker ps -q` print them."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("\n".join(self))

    def _ipython_display_(self) -> None:
        if self:
            raise NotImplementedError


class Documents(list[dict[str, Any]]):
    """What `inspect` found, shown as Docker shows it: indented JSON. `shown`: the cell has seen them come."""

    def __init__(self, documents: Iterable[dict[str, Any]], *, shown: bool = False) -> None:
        super().__init__(documents)
        self.shown = shown

    def _ipython_display_(self) -> None:
        if not self.shown:
            raise NotImplementedError

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(json.dumps(self, indent=4, ensure_ascii=False, default=str))


class Document(dict[str, Any]):
    """One JSON document (version, info), shown indented."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(json.dumps(self, indent=4, ensure_ascii=False, default=str))


class Archive(bytes):
    """A tar archive as bytes (`cp NAME:PATH -`), shown as the list of what is in it."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        with tarfile.open(fileobj=io.BytesIO(self)) as archive:
            printer.text("\n".join([f"tar archive, {len(self)} bytes", *archive.getnames()]))


class Result:
    """What a program left that ran in the foreground: `exit_code`, `stdout`, `stderr`, `output` (both).

    `container` is the docker-py object of the container it ran in; with `--rm` it is gone by now.
    The output was shown while it came, so as a cell's value the result shows nothing more.
    """

    def __init__(self, container: Any, exit_code: int, chunks: list[tuple[str, str]]) -> None:
        self.container = container
        self.exit_code = exit_code
        self._chunks = chunks

    @property
    def stdout(self) -> str:
        return "".join(text for stream, text in self._chunks if stream == "stdout")

    @property
    def stderr(self) -> str:
        return "".join(text for stream, text in self._chunks if stream == "stderr")

    @property
    def output(self) -> str:
        return "".join(text for _stream, text in self._chunks)

    def __str__(self) -> str:
        return self.output

    def __repr__(self) -> str:
        return f"Result(exit_code={self.exit_code}, output={self.output!r})"

    def _ipython_display_(self) -> None:
        """Nothing: see above."""
