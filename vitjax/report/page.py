"""HTML made by functions, which escape all text that is not HTML already."""

import base64
import html
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is HTML, as `tag` returns it."""


_VOID = ('img', 'meta', 'source')  # elements without content
_NAMES = {
    'kind': 'class',
    'name_': 'name',
    'aria_label': 'aria-label',
}  # attributes that Python or `tag` uses

_NARROW = '(max-width: 40rem)'

_STYLE = pathlib.Path(__file__).with_name('page.css')

# The page fetches nothing, for any name of a class or a folder.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def tag(name: str, *inside: Any, **attributes: Any) -> Html:
    """An element with escaped content and attributes; `kind` is its class.

    >>> tag('td', 'a < b', tag('b', '&'), kind='text')
    '<td class="text">a &lt; b<b>&amp;</b></td>'
    """
    named = {_NAMES.get(key, key): value for key, value in attributes.items()}
    written = ''.join(f' {k}="{html.escape(str(v))}"' for k, v in named.items() if v != '')
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
        tag('title', title), tag('style', Html(_STYLE.read_text('utf-8'))),
    )  # fmt: skip
    return Html(f'<!DOCTYPE html>\n<html lang="en">{head}{tag("body", *body)}</html>\n')


def table(
    head: Sequence[Any], rows: Iterable[Sequence[Any]], *, total: Sequence[Any] = (),
    text: bool = False,
) -> Html:  # fmt: skip
    """A table whose first column names the rows; wider than the page, it scrolls and says so.

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
    return tag('div', made, kind='wide', tabindex=0, role='region', aria_label='table')


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


def picture(
    content: bytes, form: str, alt: str, *, kind: str = '', narrow: bytes = b''
) -> Html:  # fmt: skip
    """An image inside the page.

    Args:
        content: bytes of the image.
        form: their format: `png`, `jpeg` or `svg+xml`.
        alt: text in place of the image.
        kind: class of the element.
        narrow: bytes of another image of this format, shown on narrow screens.
    """

    def link(content: bytes) -> str:
        return f'data:image/{form};base64,{base64.b64encode(content).decode()}'

    image = tag('img', src=link(content), alt=alt, kind=kind)
    if not narrow:
        return image
    return tag('picture', tag('source', media=_NARROW, srcset=link(narrow)), image)


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
