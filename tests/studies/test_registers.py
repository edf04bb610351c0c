"""Outliers moved to a register, against tokens with known roles."""

import numpy as np
import pytest
from helpers import assert_close, normal, random_params

from vitjax import studies
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, prepared
from vitjax.inside.capture import capture
from vitjax.inside.intervene import intervene
from vitjax.models import CaiT, ViT
from vitjax.runs import Loaded
from vitjax.studies import registers
from vitjax.studies.runner import Runner
from vitjax.studies.samples import Samples

MODEL = ViT(patch_size=4, width=8, depth=3, num_heads=2, num_classes=3)
IMAGES = normal(4, 8, 8, 3, seed=1)
GIVEN = Samples(tuple('abcd'), IMAGES, np.array([0, 1, 2, 0]), 'noise')


def opened(model) -> Loaded:
    experiment = Experiment(model=model, preprocessing=Preprocessing(8), classes=('p', 'q', 'r'))
    return Loaded(prepared(experiment), random_params(model, IMAGES))


def test_outliers_go_to_the_register_and_leave_a_mean_behind():
    loaded = registers.with_register(opened(MODEL))
    model, params = loaded.experiment.model, loaded.params
    assert params['embed']['registers'].shape == (1, 8) and not params['embed']['registers'].any()
    outliers = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    edits = {'blocks': registers.edit(1, 3, 2, outliers)}
    _, found = capture(model, params, IMAGES, keep='blocks')
    _, moved = intervene(model, params, IMAGES, edits, keep='blocks')
    before, after = np.asarray(found['blocks'][1]), np.asarray(moved['blocks'][1])
    for old, new, out in zip(before[:, 2:], after[:, 2:], outliers, strict=True):
        np.testing.assert_array_equal(new[~out], old[~out])
        assert_close(new[out], np.broadcast_to(old[~out].mean(0), new[out].shape))
    assert_close(after[1, 1], before[1, 3:5].mean(0))
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    np.testing.assert_array_equal(moved['blocks'][0], found['blocks'][0])
    assert np.abs(moved['blocks'][2] - found['blocks'][2]).max() > 1e-3


def test_a_knockout_with_outliers_moved_aside():
    found = studies.run('knockout', Runner(opened(MODEL), GIVEN), regions=1, outliers=1, aside=2)
    assert list(found.arrays['regions']) == ['1,1', 'all', 'outliers', 'random', 'register']
    loaded = registers.with_register(opened(MODEL))
    model, params = loaded.experiment.model, loaded.params
    norms = np.asarray(found.arrays['norms'])
    assert norms.shape == (3, 4, 4)
    _, blocks = capture(model, params, IMAGES, keep='blocks')
    assert_close(norms, np.linalg.norm(blocks['blocks'][:, :, 2:], axis=-1))
    largest = norms[1] == norms[1].max(1, keepdims=True)
    edits = {'blocks': registers.edit(1, 3, 2, largest)}
    _, now = intervene(model, params, IMAGES, edits, keep='norm')
    _, was = capture(MODEL, opened(MODEL).params, IMAGES, keep='norm')
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (now['norm'], was['norm']))
    np.testing.assert_allclose(found.arrays['moved'], 1 - (a * b).sum(1), atol=1e-6)
    assert np.ptp(found.arrays['added'] - found.arrays['moved']) > 1e-5
    assert 'moved to a register at layer 2' in found.policy


def test_layers_and_models_without_a_place_for_outliers_are_errors():
    with pytest.raises(ValueError, match='aside must be a layer, 1 to 3: got 4'):
        studies.run('knockout', Runner(opened(MODEL), GIVEN), regions=1, outliers=1, aside=4)
    cait = CaiT(patch_size=4, width=8, depth=2, num_heads=2, num_classes=3, class_depth=1)
    with pytest.raises(ValueError, match='needs a ViT: CaiT has no place'):
        studies.run('knockout', Runner(opened(cait), GIVEN), aside=1)
