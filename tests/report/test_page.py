import random

from report_parsed import Parsed

from vitjax.report import page
from vitjax.report.page import Html, tag


def test_text_is_escaped():
    rng = random.Random(0)
    for _ in range(200):
        text = ''.join(rng.choices('<>&"\'/abc=; \u00e9\u96ea-!', k=20))
        found = Parsed(page.page(text, tag('p', text, title=text), page.table((text,), [(text,)])))
        assert found.said.strip().startswith(text.strip()) and text in found.table[0][0]
        assert found.table == [[text], [text]]
        known = {'html', 'head', 'meta', 'title', 'style', 'body', 'p', 'div', 'table', 'thead',
                 'tbody', 'tr', 'th'}  # fmt: skip
        assert {*found.tags} - {'wbr'} == known


def test_html_is_kept_and_none_left_out():
    assert tag('p', Html('<b>x</b>'), None, 0) == '<p><b>x</b>0</p>'


def test_long_tables_keep_all_rows():
    rows = [(f'row {i}', i) for i in range(101)]
    found = Parsed(page.columns(('name', 'n'), rows, most=50, total=('all', 101)))
    assert found.tags.count('table') == 3
    assert [row for row in found.table if row[0] not in ('name', 'all')] == [
        [name, str(i)] for name, i in rows
    ]
    assert found.rows['all'] == ['101']
    assert Parsed(page.columns(('name',), [], most=50)).table == [['name']]


def test_the_policy_forbids_fetching():
    assert "default-src 'none'" in page.page('title')


def test_a_narrow_screen_gets_its_own_picture():
    found = Parsed(page.figure(page.picture(b'wide', 'png', 'curves', narrow=b'narrow')))
    assert found.tags == ['figure', 'picture', 'source', 'img']
    assert found.links == ['data:image/png;base64,bmFycm93', 'data:image/png;base64,d2lkZQ==']


def test_a_keyboard_scrolls_a_table():
    assert page.table(('a',), [('b',)]).startswith('<div class="wide" tabindex="0" role="region"')
