import dataclasses
from typing import Any

import numpy as np
import pytest
from helpers import TINY

from vitjax import activations, runs
from vitjax.activations.record import Stack
from vitjax.data.kinds import load
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import prepared
from vitjax.studies.samples import samples


@pytest.fixture
def loaded():
    """A run on digits without parameters; its test split has 359 images."""
    experiment = dataclasses.replace(TINY, preprocessing=Preprocessing(8, 1.0), data=Source())
    return runs.Loaded(prepared(experiment), {})


@pytest.fixture
def representation():
    """Activations whose values are their rows."""
    data = load(Source(), 'test')

    def values(rows) -> list[Any]:
        return [rows[None, :, None]]

    stack = Stack('rows', (1, 1), None)
    return activations.Activations((stack,), len(data), values, None, data.labels, {})


@pytest.mark.parametrize('examples', [1, 2, 7, 256, 358, 359])
def test_similarity_and_intervene_take_the_same_examples(loaded, representation, examples):
    compared = activations.subset(representation, examples)
    intervened = samples(loaded, examples=examples)
    rows = compared.values(np.arange(examples))[0].ravel()
    assert intervened.names == tuple(f'test[{row}]' for row in rows)
    np.testing.assert_array_equal(compared.labels, intervened.labels)


def test_more_examples_than_the_split_has_are_refused_by_both(loaded, representation):
    match = 'examples must be from 1 to 359, the images there are: 1,000'
    with pytest.raises(ValueError, match=match):
        activations.subset(representation, 1000)
    with pytest.raises(ValueError, match=match):
        samples(loaded, examples=1000)
    assert len(samples(loaded, most=1000).names) == 359
