"""Similarity of two representations: every layer of one with every layer of the other.

A representation is a stack of layers `[L, n, f]`: n examples in the same order on both sides, and f
features, any number of them. Layers of unequal widths come as a list of stacks or of single layers
`[n, f]`. Every metric returns a matrix `[layers of x, layers of y]`.

    cka(x, y)                             # all examples at once
    minibatch_cka(zip(xs, ys))            # a stream of batches, in constant memory

`hsic` is the building block of CKA. Its result can be added: over batches, devices and processes.

`METRICS` is the registry that flags, messages and figures read. A user's own metric needs no entry:
`find('my_metrics:overlap')` is the function `overlap` of the module `my_metrics`.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable

import numpy as np

from vitjax.analysis.similarity.cca import cca, procrustes, procrustes_angle, pwcca, svcca
from vitjax.analysis.similarity.cka import (
    Hsic,
    cka,
    hsic,
    minibatch_cka,
    sum_over_processes,
)
from vitjax.analysis.similarity.interval import bootstrap
from vitjax.analysis.similarity.rsa import mutual_knn, rsa
from vitjax.analysis.similarity.stacks import Representation

__all__ = [
    'METRICS', 'Hsic', 'Metric', 'Representation', 'bootstrap', 'cca', 'cka', 'find', 'hsic',
    'minibatch_cka', 'mutual_knn', 'procrustes', 'procrustes_angle', 'pwcca', 'rsa',
    'sum_over_processes', 'svcca',
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of similarity.

    Attributes:
        name: name in flags and of files.
        title: name in figures and console output.
        measure: maps two representations, and the settings, to a matrix.
        most: value of a heat map's last color; None takes the largest.
        settings: keyword arguments of `measure` that commands have flags for.
        kernel: kernel of a CKA, which streams over batches; empty for others.
    """

    name: str
    title: str
    measure: Callable[..., np.ndarray]
    most: float | None = 1.0
    settings: tuple[str, ...] = ()
    kernel: str = ''


METRICS = {
    metric.name: metric
    for metric in (
        Metric('cka', 'CKA', cka, kernel='linear'),
        Metric('rbf', 'CKA, Gaussian kernel', functools.partial(cka, kernel='rbf'), kernel='rbf'),
        Metric('cca', 'mean canonical correlation', cca),
        Metric('svcca', 'SVCCA', svcca),
        Metric('pwcca', 'PWCCA', pwcca),
        Metric('procrustes', 'Procrustes distance', procrustes, most=2**0.5),
        Metric('angle', 'Procrustes angle (radians)', procrustes_angle, most=1.5708),
        Metric('rsa', 'RSA, Spearman', rsa),
        Metric('knn', 'mutual nearest neighbours', mutual_knn, settings=('k',)),
    )
}


def find(name: str) -> Metric:
    """The metric of a name: one of `METRICS`, or a user's own.

    Args:
        name: a key of `METRICS`, or `MODULE:NAME`: a `Metric`, or a function of two lists of stacks
            [L, n, f] that returns a matrix [layers of x, layers of y].

    Raises:
        ValueError: if there is no such metric, or its module cannot be imported.
    """
    if name in METRICS:
        return METRICS[name]
    module, colon, attribute = name.partition(':')
    if not colon:
        known = ', '.join(METRICS)
        raise ValueError(f'a metric must be one of {known}, or MODULE:FUNCTION: {name!r}.')
    try:
        own = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f'{name} cannot be imported: {error}; PYTHONPATH lists folders.') from None
    if isinstance(own, Metric):
        return own
    return Metric(f'{module}.{attribute}', attribute.replace('_', ' '), own, most=None)
