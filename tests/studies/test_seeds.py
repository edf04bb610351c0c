"""Studies of several seeds as one, against permuted heads and equal seeds."""

import dataclasses

import numpy as np
import pytest
from helpers import normal, random_params

from vitjax import studies
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, prepared
from vitjax.models import ViT
from vitjax.runs import Loaded
from vitjax.studies.runner import Runner
from vitjax.studies.samples import Samples
from vitjax.studies.seeds import across, agreement

MODEL = ViT(patch_size=4, width=8, depth=3, num_heads=2, num_classes=3)
IMAGES = normal(5, 8, 8, 3, seed=1)
GIVEN = Samples(tuple('abcde'), IMAGES, np.array([0, 1, 2, 0, 1]), 'noise')


def opened(params):
    experiment = Experiment(model=MODEL, preprocessing=Preprocessing(8), classes=('p', 'q', 'r'))
    return Loaded(prepared(experiment), params)


def permuted(params):
    """The same function, its heads in another order."""
    attention = params['blocks']['attention']
    qkv, out = attention['qkv'], attention['projection']
    kernel = qkv['kernel'].reshape(3, 8, 3, 2, 4)[:, :, :, ::-1].reshape(3, 8, 24)
    bias = qkv['bias'].reshape(3, 3, 2, 4)[:, :, ::-1].reshape(3, 24)
    back = out['kernel'].reshape(3, 2, 4, 8)[:, ::-1].reshape(3, 8, 8)
    changed = {'qkv': {'kernel': kernel, 'bias': bias}, 'projection': {**out, 'kernel': back}}
    return {**params, 'blocks': {**params['blocks'], 'attention': changed}}


@pytest.mark.slow
def test_heads_in_another_order_are_the_same_seed():
    params = random_params(MODEL, IMAGES)
    found = {
        i: studies.run('heads', Runner(opened(p), GIVEN))
        for i, p in enumerate((params, permuted(params)))
    }
    one, other = (np.array([row['answer'] for row in study.rows]) for study in found.values())
    assert np.abs(one - other).max() > 1e-3  # they do lie elsewhere
    joined = across(found, GIVEN, cell='two')
    assert [row['rank'] for row in joined.rows[:4]] == [1, 2, 1, 2]
    for row in joined.rows:
        assert row['answer'] == pytest.approx(row['answer_low'], abs=1e-5)
        assert row['answer_clear'] in (0, 2) and 'head' not in row
    first, second = (joined.rows[i]['answer'] for i in (0, 1))
    assert first > second
    assert 'rank within the layer' in joined.policy
    title = joined.figure.get_suptitle()
    assert 'two: 2 seeds' in title and '5 images (noise)' in title and 'by rank' in title
    assert "Kendall's W over seeds 1.00" in joined.said[0]


@pytest.mark.slow
def test_every_study_is_joined_by_the_keys_of_its_rows(tmp_path):
    runs = [opened(random_params(MODEL, IMAGES, seed=seed)) for seed in (1, 2, 3)]
    made = {
        'lesion': [studies.run('lesion', Runner(run, GIVEN), draws=1) for run in runs],
        'patch': [studies.run('patch', Runner(run, GIVEN), region=2) for run in runs],
        'knockout': [
            studies.run('knockout', Runner(run, GIVEN), regions=1, outliers=1) for run in runs
        ],
        'steer': [
            studies.run('steer', Runner(run, GIVEN), fitted=GIVEN, source=0, toward=1)
            for run in runs
        ],
    }
    for name, found in made.items():
        joined = across(dict(enumerate(found)), GIVEN, cell='three')
        measure = next(iter(joined.arrays))
        values = np.array([[row[measure] for row in study.rows] for study in found]).T
        np.testing.assert_array_equal(joined.arrays[measure], values)
        assert joined.rows[-1][measure] == pytest.approx(values[-1].mean())
        assert len(joined.figure.axes) >= 2 and joined.figure.axes[0].get_ylabel()
        assert 'seeds: 0, 1, 2' in joined.policy and joined.said
        joined.write(tmp_path, GIVEN)
        assert (tmp_path / f'{name}.csv').exists()
    other = dataclasses.replace(made['lesion'][0], rows=made['lesion'][0].rows[1:])
    with pytest.raises(ValueError, match='lesion of different models cannot be joined'):
        across({0: made['lesion'][1], 1: other}, GIVEN, cell='c')


@pytest.mark.slow
def test_without_an_interval_nothing_is_clear_and_no_cell_is_nan(tmp_path):
    seeds = [opened(random_params(MODEL, IMAGES, seed=seed)) for seed in (1, 2)]
    one = GIVEN.take(slice(0, 1))
    patched = {i: studies.run('patch', Runner(run, one), noise=0.1) for i, run in enumerate(seeds)}
    joined = across(patched, one, cell='c')
    assert all(np.isnan(row['answer_clear']) for row in joined.rows)
    joined.write(tmp_path, one)
    patched[0].write(tmp_path / 'alone', one)
    cut = {i: studies.run('lesion', Runner(run, GIVEN), draws=1) for i, run in enumerate(seeds)}
    joined = across(cut, GIVEN, cell='c')
    said = 'no interval, three seeds are needed'
    assert said in joined.figure.get_suptitle() and joined.interval == said
    joined.write(tmp_path, GIVEN)
    for path in tmp_path.glob('**/*.csv'):
        assert 'nan' not in path.read_text()


def test_agreement_is_kendall_s():
    layers = np.arange(1, 4)
    same = np.array([[3.0, 30.0], [2.0, 20.0], [1.0, 10.0]])
    assert 'W over seeds 1.00; largest at layer 1 in 2 of 2' in agreement('t', layers, same)
    assert 'lowest at layer 3 in 2 of 2' in agreement('t', layers, same, lowest=True)
    tied = np.array([[2.0, 20.0], [2.0, 20.0], [1.0, 10.0]])
    assert 'W over seeds 1.00' in agreement('t', layers, tied)
    assert 'W over' not in agreement('t', layers, np.ones((3, 2)))
    turned = np.stack([same[:, 0], -same[:, 1]], 1)
    assert 'W over seeds 0.00' in agreement('t', layers, turned)
