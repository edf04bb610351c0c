"""A model, a loss and an optimizer of a user's own file, from a run to its commands."""

import json
import pathlib
import subprocess
import sys

import pytest
from helpers import SCRIPTS, TINY

from vitjax import runs
from vitjax.base import files
from vitjax.experiment import Experiment, find, from_json, imports, registry, to_json
from vitjax.experiment.loss import LOSSES
from vitjax.experiment.optim import OPTIMIZERS

OWN = '''
import optax
from vitjax.data.augment import Augment
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.experiment.optim import Optim
from vitjax.models import ViT


class Mine(ViT):
    """A ViT by another name."""


def focal(logits, soft):
    right = optax.softmax_cross_entropy(logits, soft)
    return (right * (1 - 2.718 ** -right) ** 2).mean()


def heavy_ball(settings, rate):
    return optax.chain(optax.trace(settings.b1), optax.scale_by_learning_rate(rate))


seen = []


def note(moment):
    seen.append(moment.at.step)
    if moment.evaluates:
        (params,) = moment.params.values()
        print('own hook', moment.at.step, len(moment.records[0]), sorted(params))


hooks = (note,)
experiment = Experiment(
    Mine(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10), data=Source('digits'),
    augment=Augment(size=8), optim=Optim(name='{name}:heavy_ball', peak=1e-2),
    loss='{name}:focal', batch_size=64, steps=4, evaluate_every=0.1, parallel='none',
)
'''


def command(script, *arguments):
    call = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_users_own_model_loss_optimizer_and_hook(tmp_path):
    file, run = tmp_path / 'my_models.py', tmp_path / 'run'
    file.write_text(OWN.replace('{name}', 'my_models'))
    code, said = command('train.py', file, '--no-report', '--out', run)
    assert code == 0, said
    assert "own hook 2 2 ['blocks', 'embed', 'head', 'norm']" in said and 'own hook 4 4' in said
    written = json.loads((run / 'experiment.json').read_text())
    assert written['model']['type'] == 'my_models:Mine' and written['loss'] == 'my_models:focal'
    code, said = command('evaluate.py', run)
    assert code == 1 and said.splitlines()[-2:] == [
        f'error: {run / "experiment.json"}: model.type must be of a module that is imported: '
        "'my_models:Mine' is not.",
        'Add --import my_models to the command, or the path of its file.',
    ]
    code, said = command('evaluate.py', run, '--import', file)
    assert code == 0 and 'accuracy' in said, said
    resumed = command('train.py', file, '--no-report', '--out', run)
    assert resumed[0] == 0 and 'is finished' in resumed[1]
    assert f'evaluate.py {run} --import {file}' in resumed[1]  # what to do next


def test_a_name_of_a_module_that_is_not_imported_is_refused(tmp_path):
    values = to_json(TINY)
    for change in ({'loss': 'unheard_of:focal'},
                   {'optim': {**values['optim'], 'name': 'unheard_of:lion'}},
                   {'model': {**values['model'], 'type': 'unheard_of:Net'}}):  # fmt: skip
        with pytest.raises(ValueError, match='Add --import unheard_of to the command'):
            from_json({**values, **change})
    assert 'unheard_of' not in sys.modules


def test_a_neighbour_of_an_experiments_file_is_imported_elsewhere_by_its_path(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path / 'its_neighbour.py').write_text(
        'from vitjax.models import ViT\nclass Net(ViT): pass\n'
    )
    file = tmp_path / 'that_imports.py'
    file.write_text(
        'import its_neighbour\nfrom vitjax.experiment import Experiment\n'
        'experiment = Experiment(its_neighbour.Net())\n'
    )
    assert imports(find(str(file)).experiment) == [str(tmp_path / 'its_neighbour.py')]


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'loss': 'hinge'}, "loss must be text, 'cross_entropy', 'binary' or MODULE:NAME: 'hinge'"),
        ({'loss': 'json:unheard'}, 'loss must exist: json has no unheard'),
        ({'loss': 'json:__all__'}, 'loss must be a function or a class: json:__all__ is not'),
        ({'optim': {'name': 'adam'}}, "optim.name must be .*'sgd' or MODULE:NAME: 'adam'"),
        ({'model': {'type': 'json:dumps'}}, 'model.type must be a class of models: json:dumps'),
        ({'model': {'type': 'ViTT'}}, "model.type must be 'ViT', .* or MODULE:NAME: 'ViTT'"),
    ],
)
def test_what_names_nothing(change, match):
    with pytest.raises(ValueError, match=match):
        from_json({**to_json(TINY), **change})


def test_a_file_that_raises_and_a_loss_that_takes_other_arguments_are_said_by_line(tmp_path):
    file = tmp_path / 'raising.py'
    file.write_text('first = {}\nfirst["a"]\n')
    with pytest.raises(ValueError, match=r"raising\.py, line 2: KeyError: 'a'\."):
        find(str(file))
    file = tmp_path / 'own_losses.py'
    file.write_text('def one(logits):\n    return 0.0\n\ndef two(a, b, *, c=1):\n    return 0.0\n')
    registry.require(str(file))
    assert registry.find('loss', LOSSES, 'own_losses:two')
    with pytest.raises(ValueError, match=r'loss must take \(logits, soft_labels\): .* line 1\.'):
        registry.find('loss', LOSSES, 'own_losses:one')


def test_a_run_directory_is_never_on_the_import_path(tmp_path, monkeypatch):
    """Whoever writes `experiment.json` may write a module beside it."""
    values = {**to_json(TINY), 'loss': 'planted:loss'}
    files.write_json(tmp_path / 'experiment.json', values)
    (tmp_path / 'planted.py').write_text('raise SystemExit("it ran")')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='Add --import planted'):
        runs.read_experiment(tmp_path)
    assert not any(pathlib.Path(each).resolve() == tmp_path for each in sys.path if each)


def test_a_file_of_its_own_is_a_module_by_its_name(tmp_path, monkeypatch):
    file = tmp_path / 'house_models.py'
    file.write_text(OWN.replace('{name}', 'house_models'))
    monkeypatch.setattr(registry, 'imported', {})
    module = find(str(file))
    assert imports(module.experiment) == [str(file)] and imports(TINY) == []
    assert sys.modules['house_models'] is module
    again = from_json(to_json(module.experiment))
    assert type(again.model) is module.Mine and to_json(again) == to_json(module.experiment)
    assert registry.find('loss', LOSSES, 'house_models:focal') is module.focal
    assert registry.find('optim.name', OPTIMIZERS, 'house_models:heavy_ball') is module.heavy_ball
    del sys.modules['house_models']
    taken = tmp_path / 'json.py'  # a name that another module has
    taken.write_text('from vitjax.experiment import Experiment\nexperiment = Experiment()')
    assert find(str(taken)).experiment == Experiment() and sys.modules['json'] is json
