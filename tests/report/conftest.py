"""A run of digits whose classes have names that HTML would take for its own, made once."""

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
    """A copy to do harm to."""
    return shutil.copytree(finished, tmp_path / finished.name)
