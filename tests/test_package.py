"""The package in fresh processes: lazily imported names, and packages that stay unimported."""

import subprocess
import sys

import pytest
from helpers import SCRIPTS

import vitjax

HEAVY = ('matplotlib', 'orbax', 'tensorflow_datasets')


def imported(program):
    """The top-level packages that a fresh process has imported after a program."""
    program += '\nimport sys; print(*{name.split(".")[0] for name in sys.modules})'
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, cwd=SCRIPTS.parent
    )
    assert done.returncode == 0, done.stderr
    return {*done.stdout.split()}


def test_the_package_alone_imports_nothing():
    assert not imported('import vitjax') & {'jax', 'flax', 'numpy', 'tyro', *HEAVY}


def test_every_name_is_there_on_first_use():
    names = ', '.join(f'vitjax.{name}' for name in [*vitjax.__all__, 'models', 'views', 'loop'])
    imported(f'import vitjax; {names}\nassert all(callable(x) for x in ({names},)[:-3])')
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vitjax.nothing  # noqa: B018


def test_models_need_no_figures_checkpoints_or_data_sets():
    found = imported('import vitjax; vitjax.models')
    assert 'flax' in found and not found & {*HEAVY}


def test_training_needs_no_figures():
    found = imported('import vitjax.training.trainer')
    assert 'flax' in found and 'matplotlib' not in found
