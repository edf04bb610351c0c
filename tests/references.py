"""Layers in float64 NumPy, written down from the papers."""

import math

import numpy as np
from helpers import exact

erf = np.vectorize(math.erf)


def dense(x, params):
    return x @ exact(params['kernel']) + exact(params.get('bias', 0))


def gelu(x):
    """Hendrycks & Gimpel 2016, eq. 1."""
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def norm(x, params):
    """Ba et al. 2016, eq. 4."""
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params['scale'] + params['bias']


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def attention(q, k, v, mixing=None):
    """Vaswani et al. 2017, eq. 1, mixed as in Shazeer et al. 2020; one head of one image a time."""
    q, k, v = (exact(x) for x in (q, k, v))
    out = np.zeros_like(q)
    for image in range(len(q)):
        heads = range(q.shape[2])
        scores = [q[image, :, h] @ k[image, :, h].T / np.sqrt(q.shape[-1]) for h in heads]
        if mixing is not None:
            kernel, bias = exact(mixing.logits_kernel), exact(mixing.logits_bias)
            scores = [sum(scores[h] * kernel[h, g] for h in heads) + bias[g] for g in heads]
        weights = [softmax(s) for s in scores]
        if mixing is not None:
            kernel, bias = exact(mixing.weights_kernel), exact(mixing.weights_bias)
            weights = [sum(weights[h] * kernel[h, g] for h in heads) + bias[g] for g in heads]
        for h in heads:
            out[image, :, h] = weights[h] @ v[image, :, h]
    return out
