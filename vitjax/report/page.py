"""HTML made by functions, which escape all text that is not HTML already."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is HTML, as `tag` returns it."""


_VOID = ('img', 'meta')  # elements without content
_NAMES = {'kind': 'class', 'name_': 'name'}  # attributes that Python or `tag` uses

STYLE = """
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: #000; background: #fff;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #bbb; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 48rem; }
a { color: inherit; }
h1, h2, h3, p, li, th, td, figcaption { overflow-wrap: break-word; }
.text td { overflow-wrap: anywhere; }
.missing { border: 1px solid #000; padding: .5rem .8rem; }
.missing ul { margin: .2rem 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; }
table { border-collapse: collapse; margin: .5rem 0; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: .16rem .6rem .16rem 0; text-align: right; vertical-align: top; }
thead th { border-bottom: 1px solid #000; vertical-align: bottom; }
tbody tr + tr > * { border-top: 1px solid #e4e4e4; }
th:first-child, td:first-child, .text th, .text td { text-align: left; }
tbody th { font-weight: normal; }
tr.total > * { border-top: 1px solid #000 !important; font-weight: bold; }
td small { display: block; color: #444; }
figure { margin: .6rem 0; }
figure > img { max-width: 100%; height: auto; }
figure.full > img { width: 100%; }
figure.narrow > img { width: 36rem; }
figure.half > img { width: 44rem; }
figcaption { font-size: 13px; color: #222; max-width: 48rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr));
  gap: .9rem; }
.pictures figure { margin: 0; }
.pictures img { width: 7.2rem; height: 7.2rem; object-fit: contain; border: 1px solid #ccc; }
.pixels { image-rendering: pixelated; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
@page { size: A4; margin: 14mm; }
@media print {
  body { margin: 0; max-width: none; padding: 0; font-size: 10pt; }
  table { font-size: 8.5pt; }
  h2, h3, p.lead { break-after: avoid; }
  p, table, figure, tr, .missing { break-inside: avoid; }
  .wide { overflow: visible; }
  figure > img { max-height: 240mm; }
  figure.narrow > img { width: auto; }
  figure.half > img { width: 128mm; }
  .pictures { grid-template-columns: repeat(6, 1fr); }
  .pictures img { width: 25mm; height: 25mm; }
  details:not([open]) { display: none; }
  td small, figcaption { color: #000; }
}
"""

# The page fetches nothing, for any name of a class or a folder.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def tag(name: str, *inside: Any, **attributes: Any) -> Html:
    """An element with escaped content and attributes; `kind` is its class.

    >>> tag('td', 'a < b', tag('b', '&'), kind='text')
    '<td class="text">a &lt; b<b>&amp;</b></td>'
    """
    named = {_NAMES.get(key, key): value for key, value in attributes.items()}
    written = ''.join(f' {k}="{html.escape(str(v))}"' for k, v in named.items() if v)
    if name in _VOID:
        return Html(f'<{name}{written}>')
    return Html(f'<{name}{written}>{join(*inside)}</{name}>')


def join(*parts: Any) -> Html:
    """Parts one after another: text escaped, None left out."""
    written = (p if isinstance(p, Html) else html.escape(str(p)) for p in parts if p is not None)
    return Html(''.join(written))


def page(title: str, *body: Any) -> Html:
    """A whole page, which fetches nothing."""
    policy = Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">')
    head = tag(
        'head', tag('meta', charset='utf-8'), policy,
        tag('meta', name_='viewport', content='width=device-width, initial-scale=1'),
        tag('title', title), tag('style', Html(STYLE)),
    )  # fmt: skip
    return Html(f'<!DOCTYPE html>\n<html lang="en">{head}{tag("body", *body)}</html>\n')


def table(
    head: Sequence[Any], rows: Iterable[Sequence[Any]], *, total: Sequence[Any] = (),
    text: bool = False,
) -> Html:  # fmt: skip
    """A table whose first column names the rows.

    Args:
        head: names of the columns.
        rows: cells of each row.
        total: last row, set apart.
        text: align cells left, not right.
    """

    def row(cells: Sequence[Any], kind: str = '') -> Html:
        first, *others = cells
        named = tag('th', _breakable(first), scope='row')
        return tag('tr', named, *(tag('td', cell) for cell in others), kind=kind)

    columns = tag('thead', tag('tr', *(tag('th', name, scope='col') for name in head)))
    last = [row(total, 'total')] if total else []
    body = tag('tbody', *map(row, rows), *last)
    made = tag('table', columns if any(head) else None, body, kind='text' if text else '')
    return tag('div', made, kind='wide')


def _breakable(name: Any) -> Html:
    """A name, as of a folder, that a narrow table may break after its punctuation."""
    pieces = re.split(r'(?<=[/,=_.])(?=\w)', str(name))
    return name if isinstance(name, Html) else Html('<wbr>'.join(map(join, pieces)))


def columns(
    head: Sequence[Any], rows: Sequence[Sequence[Any]], *, most: int, total: Sequence[Any] = (),
    text: bool = False,
) -> Html:  # fmt: skip
    """A long table as tables of about equal length side by side, each of at most `most` rows.

    The other arguments are those of `table`; the total stands below the last one.
    """
    parts = max(1, -(-len(rows) // most))
    length = max(1, -(-len(rows) // parts))
    *first, last = [rows[i : i + length] for i in range(0, len(rows), length)] or [rows]
    tables = [table(head, piece, text=text) for piece in first]
    return beside(*tables, table(head, last, total=total, text=text))


def beside(*parts: Any) -> Html:
    """Parts side by side, if there is room."""
    return tag('div', *parts, kind='beside')


def picture(content: bytes, form: str, alt: str, *, kind: str = '') -> Html:
    """An image inside the page, from the bytes of a `png`, `jpeg` or `svg+xml`."""
    source = f'data:image/{form};base64,{base64.b64encode(content).decode()}'
    return tag('img', src=source, alt=alt, kind=kind)


def figure(image: Html, *caption: Any, kind: str = '') -> Html:
    """An image with its caption."""
    return tag('figure', image, tag('figcaption', *caption) if caption else None, kind=kind)


def folded(summary: str, *inside: Any) -> Html:
    """Content that opens on a click."""
    return tag('details', tag('summary', summary), *inside)


def section(title: str, *inside: Any) -> Html:
    """A part of the page under its title; empty without content."""
    found = [part for part in inside if part]
    return tag('section', tag('h2', title), *found) if found else Html()
