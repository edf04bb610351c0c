import io
import re
import sys

import pytest

from vitjax.base import console
from vitjax.base.console import Console, duration


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(console.time, 'monotonic', lambda: self.now)

    def after(self, seconds):
        self.now += seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(shows, clock, seconds, total=100, first=50):
    """Shows work of `total` parts of so many seconds each, after compilation."""
    with shows.progress('images', total) as show:
        clock.after(first)
        for done in range(1, total + 1):
            show(done, now=f'loss {done}')
            clock.after(seconds)


def test_short_work_is_not_worth_a_line(capsys, monkeypatch):
    clock = Clock(monkeypatch)  # before the console, which reads it
    work(Console(), clock, 0.1)
    assert capsys.readouterr().out == ''


def test_a_file_gets_an_estimate_without_compilation_and_then_a_line_a_minute(capsys, monkeypatch):
    clock = Clock(monkeypatch)  # before the console, which reads it
    work(Console(), clock, 3)
    first, *others = capsys.readouterr().out.splitlines()
    assert first == 'images 2/100, about 4.9 min left; loss 2'  # 98 at 3 s
    assert [line.split(',')[0] for line in others] == [
        f'images {done}/100' for done in (22, 42, 62, 82)
    ]


def test_what_is_said_puts_the_next_line_off(capsys, monkeypatch):
    clock, shows = Clock(monkeypatch), Console()
    with shows.progress('steps', 100) as show:
        for done in range(12):
            show(done)
            clock.after(20)
            shows.say(f'evaluation {done}')
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith('steps')] == ['steps 1/100, about 33 min left']


def test_work_that_starts_again_is_estimated_anew(capsys, monkeypatch):
    clock, shows = Clock(monkeypatch), Console()
    with shows.progress('images', 10) as show:
        for done in (2, 10, 2, 4):
            show(done)
            clock.after(70)
    assert capsys.readouterr().out.splitlines()[-1] == 'images 4/10, about 3.5 min left'


def test_a_terminal_gets_a_bar_that_goes_and_lines_that_stay(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, 'stdout', screen)
    monkeypatch.setenv('TERM', 'xterm')
    shows = Console(name='[1/2] cell')
    with shows.progress('steps', 10, now='compiling') as show:
        shows.say('a line [that] stays')
        show(10, now='loss 1')
    written = screen.getvalue()
    assert '[1/2] cell: steps' in written and 'compiling' in written and 'loss 1' in written
    assert 'a line [that] stays\n' in written and written.endswith('\x1b[2K')  # the bar is erased


def test_numbers_stay_whole_on_a_narrow_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, 'stdout', screen)
    for name, value in {'TERM': 'xterm', 'COLUMNS': '60'}.items():
        monkeypatch.setenv(name, value)
    with Console(name='a long name of a cell of a grid').progress('steps', 12345) as show:
        show(6789, now='loss 2.304  accuracy 10.9%')
    (line,) = {part for part in re.split(r'\r|\n', screen.getvalue()) if '6789/12345' in part}
    assert len(re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', line).rstrip()) <= 60


@pytest.mark.parametrize('stdout', [io.StringIO, Terminal])
def test_a_quiet_one_says_nothing(stdout, monkeypatch):
    screen = stdout()
    monkeypatch.setattr(sys, 'stdout', screen)
    shows = Console(lines=False, bars=False)
    shows.say('something')
    work(shows, Clock(monkeypatch), 100)
    assert screen.getvalue() == ''


@pytest.mark.parametrize('text', [':cd:', '[red]x', '[/]', 'a:smile:b', '[link=x]y[/link]', '\\['])
def test_names_are_printed_as_they_are(text, capsys, monkeypatch):
    Console().say(text)
    assert capsys.readouterr().out == f'{text}\n'
    screen = Terminal()
    monkeypatch.setattr(sys, 'stdout', screen)
    for name, value in {'TERM': 'xterm', 'NO_COLOR': '1', 'COLUMNS': '120'}.items():
        monkeypatch.setenv(name, value)
    with Console(name=text).progress('steps', 10, now=text) as show:
        show(10, now=text)
    assert screen.getvalue().count(text) >= 2


def test_a_name_that_is_no_text_is_printed(tmp_path, monkeypatch):
    with (tmp_path / 'log').open('w', encoding='utf-8') as file:
        monkeypatch.setattr(sys, 'stdout', file)
        Console().say('a\udcffb')
    assert (tmp_path / 'log').read_text('utf-8') == 'a\\udcffb\n'


def test_lines_are_there_at_once(tmp_path, monkeypatch):
    """A file is a buffer of some kilobytes, which a run of hours may not fill."""
    with (tmp_path / 'log').open('w') as file:
        monkeypatch.setattr(sys, 'stdout', file)
        Console().say('begun')
        assert (tmp_path / 'log').read_text() == 'begun\n'


def test_durations():
    seconds = (0.123, 9.94, 95, 150, 7200, 200_000, float('nan'))
    said = ['0.12 s', '9.9 s', '95 s', '2.5 min', '2 h', '2.3 days', '-']
    assert [*map(duration, seconds)] == said
