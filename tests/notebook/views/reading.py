"""Reads a picture's HTML as a reader would: which words, in which order, inside which elements."""

from html.parser import HTMLParser

VOID = frozenset({"br", "hr", "img", "input", "meta", "link", "path", "use", "rect"})
UNSEEN = frozenset({"style", "svg", "script"})


class Page(HTMLParser):
    """`words` are what is read; `elements` what they stand in, as (tag, attributes)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not UNSEEN & set(self._open):
            self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not UNSEEN & set(self._open):
            self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not UNSEEN & set(self._open):
            self.words += data.split()

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.elements if name == tag)


def check_says_the_same(text: str, html: str) -> Page:
    """The words of both forms are the same, in the same order; every table is a table to a screen reader."""
    page = Page(html)
    assert page.words == text.split()
    assert page.count("table") == page.count("caption")
    for tag, attributes in page.elements:
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
        assert not any(name.startswith("on") for name in attributes), "a script in an attribute"
    assert page.count("details") == page.count("summary")
    assert page.count("script") == 0
    return page
