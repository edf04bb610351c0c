"""Run of digits whose class names are HTML syntax, trained once per session."""

import dataclasses
import shutil

import pytest
from helpers import TINY

from vitjax import loop, runs

NAMES = ('<script>alert(1)</script>', '" onload="x', "it's & $x^{$", '</td>', *'456789')


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp('runs') / '<b>tiny & $co$'
    loop.train(TINY, run, quiet=True)
    experiment = runs.read_experiment(run)
    runs.write_experiment(run, dataclasses.replace(experiment, classes=NAMES))
    return run


@pytest.fixture
def run(finished, tmp_path):
    """A copy to damage."""
    return shutil.copytree(finished, tmp_path / finished.name)
