"""Distillation: what a frozen teacher says of the training images, as a part of the loss."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from vitjax.base.ranges import Positive, Share


@dataclasses.dataclass(frozen=True)
class Distill:
    """A teacher's part of the loss.

    A ViT with `pool='distilled'` learns from the teacher with its second head and from the labels
    with its first (DeiT); every other model does both with its one.

    Attributes:
        teacher: run directory or published weights with the same classes; None trains without.
        kind: `hard` takes the teacher's likeliest class as the label (Touvron et al. 2021c,
            arXiv:2012.12877, equation 3), `soft` its whole answer (equation 2; Hinton et al. 2015).
        share: of the teacher in the loss; the labels have the rest.
        temperature: that logits are divided by in `soft`.
    """

    teacher: str | None = None
    kind: Literal['hard', 'soft'] = 'hard'
    share: Share = 0.5
    temperature: Positive = 1.0


def loss(settings: Distill, logits: jax.Array, teacher: jax.Array) -> jax.Array:
    """How far a student's logits [B, K] are from a teacher's, in nats: a mean over the batch.

    `hard`: the cross-entropy of the teacher's likeliest class. `soft`: the Kullback-Leibler
    divergence of the student's answer from the teacher's, both at the temperature, times its
    square. (DeiT's code divides this by the number of classes too.)
    """
    if settings.kind == 'hard':
        label = teacher.argmax(-1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    heat = settings.temperature
    ours, theirs = (jax.nn.log_softmax(x / heat) for x in (logits, teacher))
    return heat**2 * (jnp.exp(theirs) * (theirs - ours)).sum(-1).mean()
