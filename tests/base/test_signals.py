import os
import pty
import signal
import subprocess
import sys

import pytest

from vitjax.base.signals import Stop, signals


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_request_to_stop_is_collected_and_the_second_one_is_the_host_s(number, code):
    got = []
    before = signal.signal(number, lambda *_: got.append('host'))
    try:
        with signals() as caught:
            os.kill(os.getpid(), number)
            assert caught == [number] and got == []
            os.kill(os.getpid(), number)
            assert caught == [number] and got == ['host']
        os.kill(os.getpid(), number)
        assert got == ['host'] * 2
    finally:
        signal.signal(number, before)
    assert Stop(number, 3).code == code


def test_a_terminal_that_is_gone_is_one_request_however_often_it_is_said():
    """A shell sends SIGHUP to its jobs, and the kernel again as the shell ends."""
    got = []
    before = signal.signal(signal.SIGHUP, lambda *_: got.append('host'))
    try:
        with signals() as caught:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGHUP)
            assert caught == [signal.SIGHUP] and got == []
        os.kill(os.getpid(), signal.SIGHUP)
        assert got == ['host']
    finally:
        signal.signal(signal.SIGHUP, before)
    assert Stop(signal.SIGHUP, 3).code == 129


def test_what_is_ignored_stays_so():
    """As `nohup` starts a command."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals() as caught:
            os.kill(os.getpid(), signal.SIGHUP)
            assert caught == [] and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


PROGRAM = """
import os, pathlib, signal, sys
from vitjax.base.signals import signals
with signals() as caught:
    print('ready', flush=True)
    while not caught:
        pass
    print('a line', flush=True)
    print('an error', file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGHUP)
    pathlib.Path(sys.argv[1]).write_text(str(caught))
"""


def test_a_terminal_that_is_gone_ends_nothing_before_it_is_saved(tmp_path):
    """Its lines would raise."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, '-c', PROGRAM, str(tmp_path / 'saved')], stdin=theirs, stdout=theirs,
        stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    assert b'ready' in os.read(ours, 100)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    assert (tmp_path / 'saved').read_text() == f'[{int(signal.SIGHUP)}]'
