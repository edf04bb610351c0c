import csv
import os
import pathlib
import signal
import subprocess
import sys

import ablate
import pytest
from helpers import wait

from vitjax import ablation
from vitjax.experiment import Experiment, find, known

ROOT = pathlib.Path(__file__).parent.parent.parent
COMMAND = [sys.executable, ROOT / 'scripts' / 'ablate.py', 'digits']
SMALL = '--no-report --steps 60 --evaluate-every 1 --model.width 16 --model.num-heads 2'.split()
SMALL += ['--seeds', '2', '--grid', 'model.patch_size=4,8', 'model.depth=1']
ONE_DEVICE = {**os.environ, 'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('count=8', 'count=1')}


def run(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=ONE_DEVICE, **options
    )


def accuracies(out):
    with (out / 'seeds.csv').open() as file:
        return [row['test_accuracy'] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_killed_ablation_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    done = run(*SMALL, '--out', whole)
    assert done.returncode == 0, done.stderr
    assert '2 of 2 cells are finished' in done.stdout and 'depth=1' in done.stdout
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        process = subprocess.Popen([*COMMAND, *SMALL, '--out', killed], env=ONE_DEVICE)
        checkpoints = len([*killed.glob('cells/*/*/checkpoints/*')])
        assert wait(
            process, lambda n=checkpoints: len([*killed.glob('cells/*/*/checkpoints/*')]) > n
        )
        process.send_signal(number)
        assert process.wait() == code
    done = run(*SMALL, '--out', killed)
    assert done.returncode == 0, done.stderr
    assert accuracies(killed) == accuracies(whole)


@pytest.mark.slow
def test_a_failed_cell_shows_in_the_exit_code(tmp_path):
    arguments = [*SMALL[:-3], '--steps', '2', '--grid', 'model.patch_size=3']
    done = run(*arguments, '--out', tmp_path / 'out')
    assert done.returncode == 1 and 'patch_size must divide the image' in done.stdout
    assert '0 of 1 cells' in done.stdout and 'Traceback' not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_dry_run_lists_the_cells_and_writes_nothing(tmp_path):
    done = run(*SMALL[:-3], '--grid', 'model.patch_size=2,3', '--dry-run', '--match', 'flops',
               '--out', tmp_path / 'out')  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'impossible' in done.stdout and 'about' in done.stdout
    assert not (tmp_path / 'out').exists()


def test_help_answers():
    done = run('--help')
    assert done.returncode == 0 and '--grid' in done.stdout and '--dry-run' in done.stdout


def test_values_are_read_as_their_field_s_type():
    experiment = Experiment()
    assert ablate.parsed(experiment, 'model.depth=2,4') == ('model.depth', [2, 4])
    assert ablate.parsed(experiment, 'optim.peak=1e-3,3e-4') == ('optim.peak', [1e-3, 3e-4])
    assert ablate.parsed(experiment, 'model.pool=class,mean') == ('model.pool', ['class', 'mean'])
    assert ablate.parsed(experiment, 'epochs=2,4') == ('epochs', [2.0, 4.0])
    assert ablate.parsed(experiment, 'model.patch-size=2,4') == ('model.patch_size', [2, 4])
    assert ablate.parsed(experiment, '--model.remat=true,false') == ('model.remat', [True, False])
    assert ablate.parsed(experiment, 'model.head=8 4,8') == ('model.head', [(8, 4), (8,)])
    with pytest.raises(ValueError, match='there is no --model.dept; close: --model.depth'):
        ablate.parsed(experiment, 'model.dept=2')
    with pytest.raises(ValueError, match='NAME=VALUE'):
        ablate.parsed(experiment, 'model.depth')
    with pytest.raises(ValueError, match='--model is not one value: .* as in --model.patch-size'):
        ablate.parsed(experiment, 'model=ViT')


@pytest.mark.slow
def test_every_experiment_s_own_grid_is_possible():
    found = [module for module in map(find, known()) if 'grid' in vars(module)]
    assert len(found) > 1
    for module in found:
        assert len(ablation.cells(module.experiment, module.grid())) > 1
    digits = find('digits')
    made = ablation.cells(digits.experiment, digits.grid())
    assert all(ablation.cost(cell.experiment)['steps'] for cell in made)
