"""How alike two representations are: every layer of one with every layer of the other.

A representation is a stack of layers `[L, n, f]`: n examples in the same order on both sides, f
features, any number of each. Layers of unequal widths come as a list of stacks or of single layers
`[n, f]`. Every measure returns a matrix `[layers of x, layers of y]`.

    cka(x, y)                             # all examples at once
    minibatch_cka(zip(xs, ys))            # a stream of batches, in constant memory

CKA's building block is `hsic`, whose result can be added: over batches, devices and processes.
"""

from vitjax.analysis.similarity.cca import cca, procrustes, procrustes_angle, pwcca, svcca
from vitjax.analysis.similarity.cka import (
    Hsic,
    bootstrap,
    cka,
    hsic,
    minibatch_cka,
    sum_over_processes,
)
from vitjax.analysis.similarity.rsa import mutual_knn, rsa
from vitjax.analysis.similarity.stacks import Representation

__all__ = [
    'Hsic', 'Representation', 'bootstrap', 'cca', 'cka', 'hsic', 'minibatch_cka', 'mutual_knn',
    'procrustes', 'procrustes_angle', 'pwcca', 'rsa', 'sum_over_processes', 'svcca',
]  # fmt: skip
