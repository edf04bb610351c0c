import dataclasses
import json
import string

import jax
import pytest
from helpers import random_like
from tiny_ablation import GRID, TINY

from vitjax import ablation, loop, runs
from vitjax.ablation import grid as grids
from vitjax.experiment import Experiment, from_json, to_json
from vitjax.experiment.distill import Distill
from vitjax.models import CaiT
from vitjax.models.base import parameter_shapes
from vitjax.plan.flops import model_flops


def test_cells_are_every_combination_and_say_what_they_set():
    made = ablation.cells(TINY, {'model.depth': (1, 2), 'optim.peak': (1e-3, 3e-4)})
    assert [cell.name for cell in made] == [
        'model.depth=1,optim.peak=0.001',
        'model.depth=1,optim.peak=0.0003',
        'model.depth=2,optim.peak=0.001',
        'model.depth=2,optim.peak=0.0003',
    ]
    last = made[-1].experiment
    assert last.model == TINY.model.clone(depth=2) and last.optim.peak == 3e-4
    assert dataclasses.replace(last, model=TINY.model, optim=TINY.optim) == TINY
    models = ablation.cells(TINY, {'model': (TINY.model, CaiT(num_classes=10))})
    assert [cell.name for cell in models] == ['model=ViT', 'model=CaiT']
    assert ablation.cells(TINY, {})[0].name == 'base'


def test_no_shell_quotes_a_cell_s_folder():
    grid = {'data.name': ('digits', "folder:/a b/(c)'s"), 'optim.peak': (1e-3, 1e20)}
    made = [cell.folder for cell in ablation.cells(TINY, grid)]
    assert made[0] == 'data.name-digits,optim.peak-0.001' and len(set(made)) == 4
    assert all(set(name) <= {*string.ascii_letters, *string.digits, *'._+,-'} for name in made)
    with pytest.raises(ValueError, match='all different'):
        ablation.cells(TINY, {'data.name': ('folder:a b', 'folder:a_b')})


@pytest.mark.parametrize(
    ('grid', 'said'),
    [
        ({'steps': (1,), 'epochs': (2,)}, 'epochs must not be an axis with steps'),
        ({'epochs': (1,), 'model.depth': (1,), 'steps': (2,)}, 'steps must not be an axis with ep'),
        ({'model.depth': (1, 2), 'model': (TINY.model,)}, 'model must not be an axis with model.d'),
    ],
)
def test_an_axis_that_undoes_an_earlier_one(grid, said):
    with pytest.raises(ValueError, match=said):
        ablation.cells(TINY, grid)
    turned = ablation.cells(TINY, {'model': (TINY.model,), 'model.depth': (1, 2)})
    assert [cell.experiment.model.depth for cell in turned] == [1, 2]


@pytest.mark.parametrize('seeds', [0, -1, 1025, 10**400, True, 2.0, '2'])
def test_seeds_that_no_cell_can_have(tmp_path, seeds):
    made = ablation.cells(TINY, {})
    for call in (ablation.plan, lambda made, seeds: ablation.run(made, seeds, tmp_path / 'out')):
        with pytest.raises(ValueError, match='^seeds must be a whole number, from 1 to 1,024'):
            call(made, seeds)
    last = ablation.cells(dataclasses.replace(TINY, seed=2**32 - 2), {})
    with pytest.raises(ValueError, match="the last of a cell's 3 seeds must be a whole number"):
        ablation.run(last, 3, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_length_replaces_the_other():
    assert ablation.replaced(TINY, 'epochs', 2.0).steps is None
    assert ablation.replaced(ablation.replaced(TINY, 'epochs', 2.0), 'steps', 3).epochs is None


@pytest.mark.parametrize(
    ('grid', 'said'),
    [
        ({'model.dept': (1,)}, "no field 'model.dept'; there are model.depth"),
        ({'model.depth.x': (1,)}, "no field 'model.depth.x'"),
        ({'model.name': (1,)}, "no field 'model.name'"),
        ({'model.depth': ()}, 'one value or more, all different'),
        ({'optim.peak': (1e-3, 0.001)}, 'all different'),
    ],
)
def test_impossible_grids_are_refused(grid, said):
    with pytest.raises(ValueError, match=said):
        ablation.cells(TINY, grid)


def test_cost_is_what_a_cell_will_take():
    values = ablation.cost(TINY)
    shapes = parameter_shapes(TINY.model, 8)
    assert values['parameters'] == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert values['flops'] == model_flops(TINY.model, 8) and values['steps'] == 6
    assert values['train_flops'] == 6 * 64 * model_flops(TINY.model, 8, backward=True)


def trained(change):
    """Operations of a step and image over those of the model's forward pass."""
    experiment = dataclasses.replace(TINY, **change)
    values = ablation.cost(experiment)
    images = values['steps'] * experiment.batch_size
    return values['train_flops'] / images / values['flops']


@pytest.mark.slow
def test_what_does_not_run_does_not_count_and_what_does_counts(tmp_path):
    def optim(**change):
        return {'optim': dataclasses.replace(TINY.optim, **change)}

    everything = trained({})
    assert 2.8 < everything < 3
    assert 1 < trained(optim(train='head.*')) < 1.02  # the trunk's forward pass, and the head's
    assert 1.8 < trained(optim(train='.*bias')) < 2  # no gradients at kernels
    assert trained({'model': TINY.model.clone(attention='chunked', remat=True)}) == everything
    assert trained(optim(name='muon')) > everything + 0.1  # it multiplies matrices
    assert trained({'augment': dataclasses.replace(TINY.augment, area=0.5)}) > everything

    teacher = Experiment(TINY.model.clone(depth=2), augment=TINY.augment)
    params = random_like(parameter_shapes(teacher.model, 8))
    runs.write(tmp_path / 'teacher', teacher, params)
    more = model_flops(teacher.model, 8) / model_flops(TINY.model, 8)
    taught = trained({'distill': Distill(teacher=str(tmp_path / 'teacher'))})
    assert taught == pytest.approx(everything + more)

    short = ablation.cells(TINY, {'optim.train': ('.*', 'head.*')})
    steps = [cell.experiment.steps for cell in ablation.match_flops(short, TINY)]
    assert steps[0] == 6 and steps[1] == round(6 * everything / trained(optim(train='head.*')))


@pytest.mark.slow
def test_matched_cells_take_the_same_arithmetic():
    long = dataclasses.replace(TINY, steps=1000)
    made = ablation.cells(long, {'model.depth': (1, 2, 4), 'model.patch_size': (2, 3, 4)})
    matched = ablation.match_flops(made, long)
    budget = ablation.cost(long)['train_flops']
    assert len(matched) == 9
    for cell in matched:
        if cell.experiment.model.patch_size == 3:  # impossible, and said so when it runs
            assert cell.experiment.steps == 1000
            continue
        values = ablation.cost(cell.experiment)
        assert abs(values['train_flops'] - budget) <= 0.5 * values['train_flops'] / values['steps']


def test_plan_trains_nothing_and_says_what_it_would_take(monkeypatch):
    monkeypatch.setattr(loop, 'train_seeds', None)
    measured = {4: 1.0, 1: 3.0}  # seconds of a step at two patch sizes
    monkeypatch.setattr(grids, 'step_seconds', lambda e, seeds: measured[e.model.patch_size])
    said = []
    made = ablation.cells(TINY, {'model.patch_size': (1, 2, 3, 4)})
    rows = ablation.plan(made, 2, lambda done, _=0, /, *, now='': said.append((done, now)))
    assert [done for done, _ in said] == [*range(6)]
    assert said[2][1] == 'counting model.patch_size=3'
    assert said[5][1] == 'measuring model.patch_size=1'
    assert [row['status'] for row in rows] == ['planned', 'planned', 'impossible', 'planned']
    assert rows[0]['seconds'] == 18 and rows[3]['seconds'] == 6
    x = [rows[i]['train_flops'] for i in (3, 1, 0)]
    share = (x[1] - x[0]) / (x[2] - x[0])
    assert rows[1]['seconds'] == pytest.approx(6 + 12 * share)


@pytest.mark.slow
def test_step_seconds_are_measured():
    assert 0 < grids.step_seconds(TINY, seeds=2) < 60


def test_experiments_travel_to_jobs_as_plain_values():

    cell = ablation.cells(TINY, GRID)[0]
    assert from_json(json.loads(json.dumps(to_json(cell.experiment)))) == cell.experiment
