"""Two representations side by side."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from streams import VIT, close, direct, experiment_of, stream_of

from vitjax import activations
from vitjax.analysis import similarity
from vitjax.data.source import Data


def test_other_images_and_another_order_are_refused(vit, data, captured, tmp_path):
    back = activations.read(captured)
    same = stream_of(vit, data)
    activations.require_same_examples(back, same)
    turned = Data(data.images[::-1], data.labels[::-1], data.classes)
    with pytest.raises(ValueError, match='the order differs'):
        activations.require_same_examples(back, stream_of(vit, turned))
    changed = Data(np.concatenate([data.images[:20], 255 - data.images[20:]]), data.labels, ())
    with pytest.raises(ValueError, match='of different ones'):
        activations.require_same_examples(back, stream_of(vit, changed))
    with pytest.raises(ValueError, match='21 and 20'):
        activations.require_same_examples(back, activations.subset(same, 20))


def test_cka_of_a_stream_is_that_of_its_batches(vit, data, found):
    other = experiment_of(VIT, seed=1)
    stream = stream_of(vit, data, keep='blocks', tokens='all', batch_size=8)
    against = stream_of(other, data, keep='blocks', tokens='all', batch_size=16)
    second = direct(*other, data, 'blocks')['blocks']
    cuts = [slice(0, 9), slice(9, 21)]  # the last 3 are joined to the second 9
    seen = []
    matrix, low, high = activations.cka(
        stream, against, batch_size=9, report=lambda done, *_, **__: seen.append(done)
    )
    assert seen == [9, 21]
    wanted = similarity.minibatch_cka(
        (found['blocks'][:, c].reshape(3, -1, 48), second[:, c].reshape(3, -1, 48)) for c in cuts
    )
    close(matrix, wanted)
    assert (low <= high).all()
    close(np.diag(activations.cka(stream, batch_size=21)[0]), 1)
    assert np.isnan(activations.cka(stream, batch_size=21)[1]).all()  # one batch has no interval


def test_several_runs_are_compared_layer_by_layer_and_read_once(vit, data):
    sides, rows_read = [], []
    for seed, layers in ((0, None), (1, None), (2, (2, 3))):  # the third has two layers
        stream = stream_of(experiment_of(VIT, seed=seed), data, layers=layers)

        def values(rows, own=stream.values):
            rows_read.extend(rows)
            return own(rows)

        about = {**stream.about, 'source': f'runs/{seed}'}
        sides.append(dataclasses.replace(stream, values=values, about=about))
    found, distance = activations.matrices(['cka', 'procrustes'], *sides, batch_size=7)
    assert sorted(rows_read) == sorted([*range(21)] * 3)
    assert found.layers == ('blocks 1 / blocks 2', 'blocks 3') and found.x == ['0', '1', '2']
    for k, places in enumerate([(0, 0, 0), (2, 2, 1)]):  # of the same relative depth
        for i, j in ((0, 1), (0, 2), (2, 1)):
            pair = activations.cka(sides[i], sides[j], batch_size=7)
            ends: Any = found[1:4]
            for ours, theirs in zip(ends, pair, strict=True):
                close(ours[k, i, j], theirs[places[i], places[j]])
            x, y = (activations.whole(sides[n])[0][[places[n]]] for n in (i, j))
            close(distance.values[k, i, j], similarity.procrustes(x, y)[0, 0])
    close(found.mean().values, found.values.mean(0))
    assert found.at(-1).title.startswith('blocks 3; tokens: class; 21 images\n95% interval over')


@pytest.mark.parametrize(
    ('batch_size', 'said'),
    [(64, 'no interval: one batch of 21'), (7, 'over batches of 7 (jackknife, 3 batches): ±')],
)
def test_a_matrix_says_which_interval_it_has(vit, data, batch_size, said):
    stream = stream_of(vit, data, keep='blocks', tokens='mean')
    (made,) = activations.matrices(['cka'], stream, batch_size=batch_size)
    assert said in made.title


def test_tokens_as_samples(vit, data, found):
    stream = stream_of(vit, data, keep='blocks', tokens='patches')
    value = activations.whole(stream, 'token')[0]
    close(value, found['blocks'][:, :, 2:].reshape(3, 21 * 4, 8))
    close(activations.whole(stream)[0], found['blocks'][:, :, 2:].reshape(3, 21, 32))
    matrix, _, _ = activations.cka(stream, batch_size=21, samples='token')
    close(matrix, similarity.cka(value))
    with pytest.raises(ValueError, match='needs tokens: capture patches or all'):
        activations.whole(stream_of(vit, data, tokens='mean'), 'token')
    with pytest.raises(ValueError, match="one of image, token: 'patch'"):
        activations.whole(stream, 'patch')
