"""A page as a reader meets it: headings, forms, links, notices; parsed with the standard library."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "path", "circle", "rect", "line"}


@dataclass
class FoundForm:
    """A form: where it goes, what it sends by itself, and what its buttons say."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """What a test wants to know of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.title = ""
        self.headings: list[tuple[str, str]] = []
        self.forms: list[FoundForm] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.landmarks: list[str] = []
        self.references: list[str] = []
        self.inline_code: list[str] = []
        self._open: list[str] = []
        self._words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self._words).split())

    def form(self, action: str) -> FoundForm:
        """The first form that goes there."""
        return next(form for form in self.forms if form.action == action)

    @property
    def h1(self) -> list[str]:
        """All main headings; a page has one."""
        return [text for level, text in self.headings if level == "h1"]

    @property
    def csrf(self) -> str:
        """The token in the page's forms."""
        return next(form.fields["csrf"] for form in self.forms if "csrf" in form.fields)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in _VOID:
            self._open.append(tag)
        self._note_reference(tag, given)
        if tag == "form":
            self.forms.append(FoundForm(given.get("method", "get"), given.get("action", "")))
        if tag == "input" and self.forms and "form" in self._open and "name" in given:
            kind = given.get("type", "text")
            if kind not in ("checkbox", "radio") or "checked" in given:
                self.forms[-1].fields[given["name"]] = given.get("value", "")
        if tag in ("header", "nav", "main"):
            self.landmarks.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append((tag, ""))
        if tag == "button" and self.forms and "form" in self._open:
            self.forms[-1].buttons.append(given.get("aria-label", ""))
        if tag == "label":
            self.labels.append("")

    def _note_reference(self, tag: str, given: dict[str, str]) -> None:
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag != "a":
            self.references += [given[name] for name in ("src", "href", "action", "poster", "data") if name in given]
        self.inline_code += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline_code.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            if self._open.pop() == tag:
                break

    def handle_data(self, data: str) -> None:
        words = data.strip()
        if not words or not self._open:
            return
        self._words.append(words)
        innermost = self._open[-1]
        if innermost == "title" and "svg" not in self._open:
            self.title += words
        for level in ("h1", "h2", "h3"):
            if level in self._open:
                self.headings[-1] = (level, f"{self.headings[-1][1]} {words}".strip())
        if "button" in self._open and "form" in self._open and self.forms:
            self.forms[-1].buttons[-1] = self.forms[-1].buttons[-1] or words
        if "label" in self._open:
            self.labels[-1] = f"{self.labels[-1]} {words}".strip()
