"""Studies against single interventions, and against parameters without the ablated parts."""

import dataclasses
import functools
import itertools
import json
import math
from typing import Any

import jax
import numpy as np
import pytest
from helpers import assert_close, distance, normal, random_params

from vitjax import studies
from vitjax.analysis import prune
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, prepared
from vitjax.inside.capture import capture, gradients, paths
from vitjax.inside.intervene import Edit, add, intervene, places
from vitjax.models import CaiT, ConvNet, PatchConvNet, ViT
from vitjax.plan import timing
from vitjax.runs import Loaded
from vitjax.studies.lesion import lesions, reordered
from vitjax.studies.runner import Runner, frugal, goal, image_bytes
from vitjax.studies.samples import Samples

SHAPE: dict[str, Any] = {'patch_size': 4, 'width': 8, 'num_heads': 2, 'num_classes': 3}
VIT = ViT(**SHAPE, depth=3, registers=1)
CAIT = CaiT(**SHAPE, depth=2, class_depth=1)
PATCHCONVNET = PatchConvNet(**SHAPE, depth=3)
IMAGES: Any = normal(5, 8, 8, 3, seed=1)
LABELS = np.array([0, 1, 2, 0, 1])
GIVEN = Samples(tuple('abcde'), IMAGES, LABELS, 'noise')


def _opened(model) -> Loaded:
    experiment = Experiment(model=model, preprocessing=Preprocessing(8), classes=('p', 'q', 'r'))
    return Loaded(prepared(experiment), random_params(model, IMAGES))


opened: Any = functools.cache(_opened)


def drop(model, logits):
    clean = np.asarray(capture(model, opened(model).params, IMAGES, keep='norm')[0])
    rows, chosen = np.arange(len(clean)), clean.argmax(1)
    return clean[rows, chosen] - np.asarray(logits)[..., rows, chosen]


@pytest.mark.slow
@pytest.mark.parametrize(('model', 'stack'), [(VIT, 'blocks'), (PATCHCONVNET, 'class_blocks')])
def test_heads_are_removed_one_at_a_time_and_estimated_as_importance_does(model, stack):
    done = []

    def note(count, total=0, /, *, now=''):
        done.append(count)

    found = studies.run('heads', Runner(opened(model), GIVEN, report=note))
    params = opened(model).params
    depth, heads, _ = found.arrays[f'{stack}_zero_answer'].shape
    for layer, head in np.ndindex(depth, heads):
        removed = np.zeros((depth, heads), bool)
        removed[layer, head] = True
        without = prune.remove_heads(params, removed, stack=stack)
        logits, _ = capture(model, without, IMAGES, keep='norm')
        got = found.arrays[f'{stack}_zero_answer'][layer, head]
        np.testing.assert_allclose(got, drop(model, logits), atol=2e-6)
    path = f'{stack}/attention/weights'
    _, weights, grads = gradients(model, params, IMAGES, goal(model), keep=path)
    importance = prune.head_importance(weights[path], grads[path])
    size = np.abs(found.arrays[f'{stack}_zero_estimate']).mean(-1)
    assert_close(size, importance, 1e-5)
    assert done == [len(IMAGES)]
    assert {row['stack'] for row in found.rows} == {*model.trunk.stacks} - (
        {'blocks'} if model is PATCHCONVNET else set()
    )


@pytest.mark.slow
def test_a_mean_is_over_all_images_though_batches_are_small():
    path = 'blocks/attention/heads'
    params = opened(VIT).params
    value = np.asarray(capture(VIT, params, IMAGES, keep=path)[1][path]).mean(1, keepdims=True)
    edit = Edit(places(VIT, IMAGES, path, layers=1, heads=1), value)
    wanted = drop(VIT, intervene(VIT, params, IMAGES, {path: edit})[0])
    small = studies.run('heads', Runner(opened(VIT), GIVEN, memory=1e-4))
    np.testing.assert_allclose(small.arrays['blocks_mean_answer'][1, 1], wanted, atol=2e-6)
    with pytest.raises(ValueError, match='one image takes about .* GB, --memory allows 1e-09'):
        studies.run('heads', Runner(opened(VIT), GIVEN, memory=1e-9))


@pytest.mark.slow
@pytest.mark.parametrize('model', [VIT, PATCHCONVNET], ids=['vit', 'patchconvnet'])
def test_memory_of_a_pass_is_within_its_bound(model):
    """Gradients take the most; the size makes arrays outweigh fixed costs."""
    big = model.clone(patch_size=2, width=32, depth=6)
    few, many = (jax.ShapeDtypeStruct((count, 32, 32, 3), 'float32') for count in (1, 3))
    params = random_params(big, few)
    run = functools.partial(gradients, frugal(big), target=goal(big), keep='blocks')

    def bytes_of(images):
        return timing.program_bytes(timing.compiled(run, (params, images))[0])

    held = 16.0 * np.prod(paths(big, few)['blocks'])
    bound = image_bytes(big, few, held)
    taken = (bytes_of(many) - bytes_of(few)) / 2
    assert 0.3 * bound < taken < bound


@pytest.mark.slow
@pytest.mark.parametrize('model', [VIT, CAIT])
def test_all_tokens_of_another_image_at_the_last_layer_give_its_logits(model):
    found = studies.run('patch', Runner(opened(model), GIVEN), region=2)
    params, prefix = opened(model).params, model.trunk.prefix
    others = capture(model, params, np.roll(IMAGES, -1, 0), keep='norm')[0]
    answer = found.arrays['answer']
    assert answer.shape == (model.depth, prefix + 1, 5)
    if model is not VIT:  # of a ViT, the class token decides
        np.testing.assert_allclose(answer[-1, -1], drop(model, others), atol=2e-6)
    else:
        np.testing.assert_allclose(answer[-1, 0], drop(model, others), atol=2e-6)
        np.testing.assert_allclose(answer[-1, 1:], 0, atol=2e-6)
    quiet = studies.run('patch', Runner(opened(model), GIVEN), noise=0.02).arrays
    assert np.abs(quiet['answer']).max() > 1e-4
    assert distance(quiet['estimate'], quiet['answer']) < 0.1
    with pytest.raises(ValueError, match='region must be 1 to 2 patches: got 3'):
        studies.run('patch', Runner(opened(model), GIVEN), region=3)


@pytest.mark.slow
def test_a_class_token_cut_off_from_all_patches():
    """In class attention it is then the same for every image."""
    found = studies.run('knockout', Runner(opened(CAIT), GIVEN), regions=2, outliers=1)
    names = list(found.arrays['regions'])
    assert names == ['1,1', '1,2', '2,1', '2,2', 'all', 'outliers', 'random']
    params = opened(CAIT).params
    clean = np.asarray(capture(CAIT, params, IMAGES, keep='norm')[0])
    left = np.take_along_axis(clean, clean.argmax(1)[:, None], 1)[:, 0] - found.arrays['answer']
    for kind in set(clean.argmax(1)):
        same = left[0, names.index('all'), clean.argmax(1) == kind]
        np.testing.assert_allclose(same, same[0], atol=2e-6)
    row = found.arrays['norms'][-1].argmax(1)
    for image, patch in enumerate(row):
        cell = found.arrays['answer'][0, patch, image]
        outlier = found.arrays['answer'][0, names.index('outliers'), image]
        np.testing.assert_allclose(cell, outlier, atol=2e-6)
    with pytest.raises(ValueError, match='regions must be 1 to 2 and outliers 1 to 3: got 2, 4'):
        studies.run('knockout', Runner(opened(CAIT), GIVEN), regions=2, outliers=4)
    mean = dataclasses.replace(VIT, pool='mean')
    with pytest.raises(ValueError, match="a class token: that of this ViT reads 'mean'"):
        studies.run('knockout', Runner(opened(mean), GIVEN))


@pytest.mark.slow
@pytest.mark.parametrize('model', [VIT, PATCHCONVNET])
def test_lesions_are_models_of_those_layers(model):
    params, depth = opened(model).params, model.depth
    orders: Any = [[*range(depth), -1], [-1, *range(1, depth), -1], [*range(depth - 1, -1, -1), 0]]
    logits = reordered(model, params, IMAGES, orders)
    for found, order in zip(logits, orders, strict=True):
        kept = [layer for layer in order if layer >= 0]
        short = prune.keep_layers(params, kept)
        assert_close(found, model.clone(depth=len(kept)).apply({'params': short}, IMAGES), 5e-6)
    study = studies.run('lesion', Runner(opened(model), GIVEN), draws=1)
    assert study.rows[0]['accuracy'] == np.mean(np.asarray(logits[0]).argmax(1) == LABELS)
    kinds = [row['kind'] for row in study.rows]
    assert [kinds.count(k) for k in ('skipped', 'repeated', 'swapped', 'random')] == [
        depth, depth, depth - 1, depth - 1
    ]  # fmt: skip
    with pytest.raises(ValueError, match=f'layers of blocks are 0 to {depth - 1}, or -1'):
        reordered(model, params, IMAGES, np.array([[depth]]))


def test_sets_of_layers_removed_at_random_are_all_there_are_or_all_different():
    for depth, draws in itertools.product((2, 3, 4, 7), (1, 3, 5, 20)):
        what, orders = lesions(depth, draws, seed=0)
        for count in range(1, depth):
            chosen = [i for i, row in enumerate(what) if row.get('removed') == count]
            sets = {tuple(order[order >= 0]) for order in orders[chosen]}
            assert len(sets) == len(chosen) == min(draws, math.comb(depth, count))
            assert {len(own) for own in sets} == {depth - count}


def test_a_mean_over_all_sets_of_one_layer_is_the_mean_over_layers():
    """Drawn with replacement, one of four sets came twice: 0.605 where the mean was 0.716."""
    found = studies.run('lesion', Runner(opened(VIT.clone(depth=4)), GIVEN), draws=4)
    skipped = np.mean([row['accuracy'] for row in found.rows if row['kind'] == 'skipped'])
    first, second, _ = (row for row in found.rows if row['kind'] == 'random, mean')
    assert (first['drawn'], first['of'], second['drawn'], second['of']) == (4, 4, 4, 6)
    assert first['accuracy'] == pytest.approx(skipped)
    assert 0 <= first['accuracy_low'] < first['accuracy'] < first['accuracy_high'] <= 1
    _, right = found.figure.axes
    ticks = ' '.join(tick.get_text() for tick in right.get_xticklabels())
    assert '(4 of 4)' in ticks and '(4 of 6)' in ticks
    mean, band = right.lines[1], right.collections[0]
    told = [text.get_text() for text in found.figure.legends[0].get_texts()]
    assert 'mean of sets, 95% over images and sets' in told
    assert np.asarray(mean.get_ydata())[1] == pytest.approx(skipped)
    assert np.asarray(band.get_paths()[0].vertices)[:, 1].max() >= first['accuracy_high']


@pytest.mark.slow
@pytest.mark.parametrize('count', [1, 2, 5])
def test_figures_name_their_interval(count):
    given = GIVEN.take(slice(0, count))
    lesion = studies.run('lesion', Runner(opened(VIT), given), draws=1)
    knockout = studies.run('knockout', Runner(opened(VIT), given), regions=1, outliers=1)
    wilson, student = "shaded: Wilson's over images", "shaded: Student's t over images"
    for study, said in ((lesion, wilson), (knockout, student)):
        wanted = said if count > 1 else 'no interval, one image'
        assert wanted in study.figure.get_suptitle().replace('\n', ' ')
        assert wanted.removeprefix('shaded: ') in study.interval


def test_steering_adds_the_difference_of_means():
    params = opened(VIT).params
    found = studies.run(
        'steer', Runner(opened(VIT), GIVEN), fitted=GIVEN, source=0, toward=1, strengths=(0.0, 2.0)
    )
    tokens = np.asarray(capture(VIT, params, IMAGES, keep='blocks')[1]['blocks'])[:, :, 0]
    direction = tokens[:, LABELS == 1].mean(1) - tokens[:, LABELS == 0].mean(1)
    assert_close(found.arrays['direction'], direction, 1e-5)
    images = IMAGES[LABELS == 0]
    where = places(VIT, images, 'blocks', layers=1, tokens=0)
    edit = Edit(where, 2 * direction[:, None, None], add)
    logits, _ = intervene(VIT, params, images, {'blocks': edit})
    margin = found.arrays['margin']
    np.testing.assert_allclose(margin[1, 1], logits[:, 1] - logits[:, 0], atol=5e-6)
    np.testing.assert_allclose(margin[:, 0], np.broadcast_to(margin[0, 0], (3, 2)), atol=2e-6)
    with pytest.raises(ValueError, match='must be different classes: both are 1'):
        studies.run('steer', Runner(opened(VIT), GIVEN), fitted=GIVEN, source=1, toward=1)
    bare = dataclasses.replace(GIVEN, labels=None)
    with pytest.raises(ValueError, match='images with labels'):
        studies.run('steer', Runner(opened(VIT), bare), fitted=GIVEN, source=0, toward=1)


def test_models_without_attention_or_blocks_are_refused():
    model = ConvNet(widths=(4,), hidden=7, num_classes=3)
    with pytest.raises(ValueError, match='ConvNet has no attention heads'):
        studies.run('heads', Runner(opened(model), GIVEN))
    for name in ('patch', 'lesion'):
        with pytest.raises(ValueError, match='need a stack `blocks`: ConvNet has none'):
            studies.run(name, Runner(opened(model), GIVEN))


def test_features_have_effects_too():
    model = VIT.clone(num_classes=0)
    bare = dataclasses.replace(GIVEN, labels=None)
    found = studies.run('heads', Runner(opened(model), bare))
    assert set(found.arrays) >= {'blocks_zero_answer', 'blocks_zero_token'}
    assert 'blocks_zero_loss' not in found.arrays
    assert studies.run('lesion', Runner(opened(model), bare), draws=1).rows[0][
        'cosine'
    ] == pytest.approx(1)


def test_files_describe_their_contents(tmp_path):
    found = studies.run('lesion', Runner(opened(VIT), GIVEN), draws=1)
    found.write(tmp_path, GIVEN, weights='w')
    with np.load(tmp_path / 'lesion.npz') as arrays:
        about = json.loads(str(arrays['about']))
        assert about['images'] == 5 and about['policy'] == found.policy
        np.testing.assert_array_equal(arrays['value'], found.arrays['value'])
    head, first, *_ = (tmp_path / 'lesion.csv').read_text().splitlines()
    assert head.split(',')[-2:] == ['images', 'policy'] and ',5,' in first
    assert (tmp_path / 'lesion.png').stat().st_size > 5000
