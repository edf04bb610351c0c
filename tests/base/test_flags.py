"""Flags of declared fields: their values as `--help` shows them, and what tyro reads."""

import dataclasses
import subprocess
import sys
from typing import Annotated

import pytest
import tyro

from vitjax.base.flags import flagged, registry
from vitjax.base.ranges import Count, Hidden, Range, Rate


@dataclasses.dataclass(frozen=True)
class Inner:
    """Settings.

    Attributes:
        rate: fraction dropped.
    """

    rate: Rate = 0.0


@dataclasses.dataclass(frozen=True)
class Outer:
    """Settings with others inside.

    Attributes:
        inner: more settings.
        sizes: numbers of things.
        most: largest number.
        filled: set by a run.
    """

    inner: Inner = Inner()
    sizes: Annotated[tuple[Count, ...], Range(1)] = (1,)
    most: Count | None = None
    filled: Annotated[str, Hidden()] = ''


def parsed(*args):
    return tyro.cli(Outer, args=args, registry=registry())


def test_help_shows_ranges_at_any_depth_and_no_hidden_field(capsys):
    with pytest.raises(SystemExit):
        parsed('--help')
    shown = capsys.readouterr().out
    assert '--inner.rate FLOAT[0,1)' in shown and '--filled' not in shown
    assert shown.count('INT[1,2147483647]') == 3  # two of them in a list of any length


def test_values_are_read_and_what_is_no_number_is_left_to_the_check():
    assert parsed('--inner.rate', '0.5', '--sizes', '3', '4') == Outer(Inner(0.5), (3, 4))
    assert parsed('--most', 'None') == Outer() and parsed('--most', 'many').most == 'many'


def test_types_without_ranges_stay_as_they_are():
    assert flagged(str) is str and flagged(tuple[str, ...]) == tuple[str, ...]
    assert flagged(int | None) == int | None


def test_models_are_imported_without_tyro():
    program = 'import sys, vitjax.models, vitjax.experiment; print("tyro" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.stdout == 'False\n', done.stderr
