"""Labelled images of a run's own data, for views that need some."""

import dataclasses

import numpy as np

from vitjax.data import kinds
from vitjax.experiment import Experiment
from vitjax.views.seen import Seen


def labelled(experiment: Experiment, count: int = 256) -> kinds.Data | None:
    """Some test images of a run, the same each time; None where there are none of its classes."""
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


def grey(seen: Seen) -> bool:
    """Whether a model learnt from grey images, whose colours would be its initial noise.

    It is asked of its own images where they are there, else of those that it is shown.
    """
    data = labelled(seen.loaded.experiment, 16)
    pixels = seen.pixels if data is None else data.images
    return bool((pixels == pixels[..., :1]).all())
