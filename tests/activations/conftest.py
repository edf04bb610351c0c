"""A model, its images, what `capture` finds on them, and a capture of it on disk."""

import pytest
from streams import VIT, direct, experiment_of, images_of, stream_of

from vitjax import activations


@pytest.fixture(scope='module')
def vit():
    return experiment_of(VIT)


@pytest.fixture(scope='module')
def data():
    return images_of(21)


@pytest.fixture(scope='module')
def found(vit, data):
    return direct(vit[0], vit[1], data, 'blocks|embed|norm')


@pytest.fixture(scope='module')
def captured(vit, data, tmp_path_factory):
    out = tmp_path_factory.mktemp('captures') / 'whole'
    about = {'data': 'noise', 'split': 'test'}
    stream = stream_of(vit, data, keep='blocks|embed', tokens='mean', about=about)
    activations.write(stream, out, batch_size=8)
    return out
