"""Two representations side by side."""

import numpy as np
import pytest
from streams import VIT, close, direct, experiment_of, read_all, stream_of

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


def test_a_representation_from_elsewhere(tmp_path, captured):
    rng = np.random.default_rng(0)
    flat, layers = rng.normal(size=(21, 5)), rng.normal(size=(2, 21, 5)).astype(np.float32)
    np.save(tmp_path / 'flat.npy', flat)
    np.save(tmp_path / 'layers.npy', layers)
    one, two = (activations.from_file(tmp_path / n) for n in ('flat.npy', 'layers.npy'))
    assert one.names == ['flat'] and two.names == ['layers 1', 'layers 2']
    np.testing.assert_array_equal(read_all(two)[0], layers)
    activations.require_same_examples(one, activations.read(captured))  # only the number is known
    np.save(tmp_path / 'labels.npy', np.arange(21))
    (tmp_path / 'text.npy').write_text('no array')
    with pytest.raises(ValueError, match=r'floats of .*: it is int64 of \[21\]'):
        activations.from_file(tmp_path / 'labels.npy')
    with pytest.raises(ValueError, match='text.npy is no whole array of numbers: the magic string'):
        activations.from_file(tmp_path / 'text.npy')


def test_cka_of_a_stream_is_that_of_its_batches(vit, data, found):
    other = experiment_of(VIT, seed=1)
    stream = stream_of(vit, data, keep='blocks', tokens='all', batch_size=8)
    against = stream_of(other, data, keep='blocks', tokens='all', batch_size=16)
    second = direct(*other, data, 'blocks')['blocks']
    cuts = [slice(0, 9), slice(9, 21)]  # the last 3 are joined to the second 9
    seen = []
    matrix, low, high = activations.cka(
        stream, against, batch_size=9, report=lambda done, _: seen.append(done)
    )
    assert seen == [9, 21]
    wanted = similarity.minibatch_cka(
        (found['blocks'][:, c].reshape(3, -1, 48), second[:, c].reshape(3, -1, 48)) for c in cuts
    )
    close(matrix, wanted)
    assert (low <= high).all()
    close(np.diag(activations.cka(stream, batch_size=21)[0]), 1)
    assert np.isnan(activations.cka(stream, batch_size=21)[1]).all()  # one batch has no interval


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
