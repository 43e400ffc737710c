"""What the nouns have in common: `ls` and `inspect` answer in the same way for each of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from dockmagic.grammar import filters, template
from dockmagic.grammar.syntax import option, switch
from dockmagic.grammar.values import Documents, Names

F = TypeVar("F", bound=Callable[..., Any])

Row = Mapping[str, Any]

no_trunc_option = switch("--no-trunc", help="Don't truncate output")

LISTING_FORMAT = "Format output using a Go template, 'table TEMPLATE' or 'json'"


def listing_options(command: F) -> F:
    """`--filter`, `--format` and `--quiet` of an `ls`."""
    for decorate in (
        switch("--quiet", "-q", help="Only display IDs, or names where there are no IDs"),
        format_option(help=LISTING_FORMAT),
        filter_option("--filter", "-f"),
    ):
        command = decorate(command)
    return command


def filter_option(*declarations: str) -> Callable[[F], F]:
    words = declarations or ("--filter",)
    return option(
        *words, multiple=True, type=filters.FILTER, help="Provide filter values (e.g. 'label=<key>')"
    )


def format_option(
    *declarations: str, help: str = "Format output using a Go template, or 'json'"
) -> Callable[[F], F]:
    return option(*(declarations or ("--format",)), help=help)


def listed(
    rows: Sequence[Row],
    fields: Mapping[str, str],
    caption: str,
    *,
    empty: str,
    format: str | None,
    names: str | None = None,
    columns: Sequence[str] | None = None,
) -> Any:
    """Rows as `--quiet` (the field `names`), `--format` or a table of `columns` has them.

    `fields` are Docker's headings and the fields they stand for; `columns` are all headings unless given.
    """
    from dockmagic.views.tables import table

    if names is not None and not format:
        return Names(dict.fromkeys(row[names] for row in rows))
    if format:
        return template.listing(format, rows, fields)
    columns = columns or list(fields)
    return table([[row[fields[column]] for column in columns] for row in rows], columns, caption, empty=empty)


def inspected(documents: list[dict[str, Any]], format: str | None) -> Any:
    """The documents themselves, or a line for each."""
    return template.lines(format, documents) if format else Documents(documents)
