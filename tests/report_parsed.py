"""Page of HTML as its reader has it: text, tables, links."""

from html.parser import HTMLParser

ALONE = ('img', 'meta', 'br', 'wbr', 'source')


class Parsed(HTMLParser):
    """Refuses tags that do not match; `rows` are the cells of all rows, by their first one."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.said, self.table = [], [], [], '', []
        self.feed(text)
        self.close()
        assert not self.open
        self.rows = {row[0]: row[1:] for row in self.table}

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ('src', 'href', 'srcset', 'action', 'data')]
        assert not any(name.startswith('on') for name, _ in attrs)
        if tag not in ALONE:
            self.open.append(tag)
        if tag == 'tr':
            self.table.append([])
        if tag in ('td', 'th'):
            self.table[-1].append('')

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if 'style' not in self.open:
            self.said += data
        if {'td', 'th'} & set(self.open):
            self.table[-1][-1] += data
