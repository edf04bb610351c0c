"""Silence for the output of other packages, without a change to the host program.

Each function is a context. Several threads may enter it, and more than once: its change to the
process is made once, and undone when the last one leaves.
"""

import contextlib
import functools
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

Fails = Callable[[Exception], bool]  # true for some errors

_LOCK = threading.Lock()
_users: dict[Any, list[Any]] = {}  # by change: number of users, and the function that undoes it
LINGER = 10.0  # seconds in which the threads of a save that failed may still report


@contextlib.contextmanager
def _shared(
    key: Any, add: Callable[[], Callable[[], None]], lingers: Fails = lambda error: False
) -> Iterator[None]:
    """Makes a change while anybody is inside, and for `LINGER` seconds after some errors."""
    with _LOCK:
        if key not in _users:
            _users[key] = [0, add()]
        _users[key][0] += 1

    def leave() -> None:
        with _LOCK:
            _users[key][0] -= 1
            if not _users[key][0]:
                _users.pop(key)[1]()

    with contextlib.ExitStack() as stack:
        stack.callback(leave)
        try:
            yield
        except Exception as error:
            if lingers(error):
                timer = threading.Timer(LINGER, stack.pop_all().close)
                timer.daemon = True
                timer.start()
            raise


def warning(category: type[Warning]) -> AbstractContextManager[None]:
    """Ignores warnings of a category."""
    return _shared(category, functools.partial(_ignore, category))


def orbax(fails: Fails = lambda error: False) -> AbstractContextManager[None]:
    """Drops orbax's logs and warnings of errors that it also raises, and of unwritten files.

    Args:
        fails: returns True for an error of a save. Its threads then report the remaining writes to
            a closed event loop, with a traceback for each, for some seconds more.
    """
    return _shared('orbax', _hush, fails)


def _ignore(category: type[Warning], message: str = '') -> Callable[[], None]:
    # `warnings.catch_warnings` is of the whole process: two threads would restore each other's.
    # `warnings.filterwarnings` would take an equal filter of the host for ours.
    added: Any = ('ignore', re.compile(message, re.IGNORECASE), category, None, 0)
    filters: Any = warnings.filters
    filters.insert(0, added)

    def remove() -> None:
        now: Any = warnings.filters  # the host may have put others in place
        for known in (filters, now):
            known[:] = [each for each in known if each is not added]

    return remove


def _hush() -> Callable[[], None]:
    loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
    for logger in loggers:
        logger.addFilter(_by_another)
    remove = _ignore(RuntimeWarning, "coroutine '.*async_serialize")
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != 'Event loop is closed':
            before(unraisable)

    sys.unraisablehook = hook

    def restore() -> None:
        for logger in loggers:
            logger.removeFilter(_by_another)
        remove()
        if sys.unraisablehook is hook:
            sys.unraisablehook = before

    return restore


def _by_another(record: logging.LogRecord) -> bool:
    """Returns True for a log record that is neither from orbax's code nor about its tasks."""
    said = record.getMessage() if record.name == 'asyncio' else ''
    return f'{os.sep}orbax{os.sep}' not in f'{record.pathname} {said}'
