"""Pages hold no more than they were given, escaped, and ask for nothing."""

import re

from pacavit.report import html
from pacavit.utils.command import Command

EVIL = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"


def test_every_text_is_escaped() -> None:
    parts = [
        html.table(EVIL, [EVIL], [[EVIL], [html.Cell(EVIL, bar=0.5)]]),
        html.facts({EVIL: EVIL}, title=EVIL, emphasis=[EVIL]),
        html.command(Command((EVIL,)), EVIL),
        html.paragraph(EVIL),
        html.picture('"><script>', EVIL, EVIL, dark='"><script>'),
        html.folded(EVIL, html.paragraph(EVIL)),
    ]
    text = html.page(EVIL, EVIL, [html.Section(EVIL, parts)], highlights={EVIL: EVIL})
    assert "<script" not in text
    assert text.count(ESCAPED) > 15


def test_a_page_is_complete_and_asks_for_nothing() -> None:
    picture = html.picture(html.data_uri(b"x", "image/png"), "an x", "the letter x")
    text = html.page("title", "lead", [html.Section("Two words", [picture])])
    assert text.startswith("<!doctype html>")
    assert '<html lang="en">' in text
    assert "default-src 'none'" in text
    assert 'href="#two-words"' in text
    assert 'id="two-words"' in text
    assert "prefers-color-scheme: dark" in text
    links = re.findall(r'(?:src|srcset|href|url)\s*[=(]\s*"?([^")>\s]*)', text)
    assert all(link.startswith(("data:", "#")) for link in links), links


def test_tables_tell_their_headings() -> None:
    text = html.table("caption", ["name", "score"], [["a", html.Cell("0.5", bar=0.5)]])
    assert "<caption>caption</caption>" in text
    assert re.search(r'<th scope="col" class="name">name</th>', text)
    assert re.search(r'<th scope="row" class="name">a</th>', text)
    bar = '<span class="bar" style="--share: 0.5000">0.5</span>'
    assert f'<td class="number">{bar}</td>' in text


def test_numbers() -> None:
    assert html.number(1234.56789) == "1,234.5679"
    assert html.number(1234.5, digits=0) == "1,234"
    assert html.percent(0.98765) == "98.8 %"
