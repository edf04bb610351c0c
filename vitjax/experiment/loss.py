"""Losses of a training step: the registry that `Experiment.loss` names."""

import jax
import optax

from vitjax.experiment import registry


def cross_entropy(logits: jax.Array, soft_labels: jax.Array) -> jax.Array:
    """Mean over the batch of -Σ_k p_k log softmax(logits)_k, in nats, for soft labels [B, K]."""
    return optax.softmax_cross_entropy(logits, soft_labels).mean()


def binary_cross_entropy(logits: jax.Array, soft_labels: jax.Array) -> jax.Array:
    """Mean over batch and classes of a binary cross-entropy for each class, in nats.

    Every class with a positive soft label counts as present (Wightman et al. 2021,
    arXiv:2110.00476, section 3.1), as in PatchConvNet's published code. Labels must not be
    smoothed.
    """
    return optax.sigmoid_binary_cross_entropy(logits, soft_labels > 0).mean()


# `(logits [B, K], soft labels [B, K]) -> scalar`. A new loss is a function and an entry here, or a
# function of a user's module, named MODULE:NAME.
LOSSES = {'cross_entropy': cross_entropy, 'binary': binary_cross_entropy}
NAME = registry.Named(LOSSES)
