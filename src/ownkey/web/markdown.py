"""Markdown to HTML that is safe to show: what a model wrote is not trusted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it.token import Token

# No pictures: their address would be asked for by the reader's browser, and could carry out what was said.
_TAGS = {
    *("a", "blockquote", "br", "code", "del", "em", "hr", "p", "pre", "s", "strong"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "li", "ol", "ul"),
    *("table", "tbody", "td", "th", "thead", "tr"),
}
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, "code": {"class"}}
_SCHEMES = {"http", "https", "mailto"}
# A row of a table has as many cells as its head, however short its line is: a small text could make millions.
_MOST_CELLS = 20_000
_BLANK_LINES = re.compile(r"\n[ \t]*\n")
_RENDERER = ThreadPoolExecutor(1, "markdown")


def to_html(text: str, *, top_heading: int = 1) -> str:
    """Render Markdown; raw HTML in it is shown as text.

    ``top_heading`` is the level given to the highest heading, so that a text fits below the headings around it.
    Tables that could have very many cells stay the text they are.
    """
    import nh3  # of no use to a process whose pages nobody opens
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough")
    if _most_cells(text) <= _MOST_CELLS:
        parser.enable("table")
    tokens = parser.parse(text)
    _lower_headings(tokens, top_heading)
    rendered = parser.renderer.render(tokens, parser.options, {})
    # A long line of code scrolls inside its box, and what scrolls must be reachable with the keyboard.
    return nh3.clean(
        rendered,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"pre": {"tabindex": "0"}, "table": {"tabindex": "0"}},
    )


async def all_to_html(texts: Sequence[str], *, top_heading: int = 1) -> list[str]:
    """Render each, and let everything else go on meanwhile: one thread does it, for all who ask, one after another."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_RENDERER, lambda: [to_html(text, top_heading=top_heading) for text in texts])


def _most_cells(text: str) -> int:
    """No table goes on after a blank line, or has more columns than its longest line has bars, and one."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blocks = [block.split("\n") for block in _BLANK_LINES.split(text) if "|" in block]
    return sum(len(lines) * (1 + max(line.count("|") for line in lines)) for lines in blocks)


def _lower_headings(tokens: list[Token], top: int) -> None:
    levels = sorted({int(token.tag[1]) for token in tokens if token.type == "heading_open"})
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            # Levels that a text skips are closed up: a heading is one below the one it belongs to.
            token.tag = f"h{min(6, top + levels.index(int(token.tag[1])))}"
