"""Labelled images of a run's own data, for views that need them."""

import dataclasses

import numpy as np

from vitjax.data import kinds
from vitjax.experiment import Experiment
from vitjax.views.forward import Results


def labelled(experiment: Experiment, count: int = 256) -> kinds.Data | None:
    """Test images of a run, the same ones each time; None without images of its classes."""
    if experiment.data is None:
        return None
    try:
        data = kinds.load(experiment.data, 'test', experiment.preprocessing)
    except ValueError:  # no longer there
        return None
    if data.classes != experiment.classes:
        return None
    chosen = np.random.default_rng(0).permutation(len(data))[:count]
    return dataclasses.replace(data, images=data.images[chosen], labels=data.labels[chosen])


def grey(results: Results) -> bool:
    """True if a model learnt from grey images; colours would show its initial noise.

    The run's own images decide, or without them the images of the results.
    """
    data = labelled(results.loaded.experiment, 16)
    pixels = results.pixels if data is None else data.images
    return bool((pixels == pixels[..., :1]).all())
