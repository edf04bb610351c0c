"""Distillation: loss against a frozen teacher's logits on the training images."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from vitjax.base.ranges import Positive, Share


@dataclasses.dataclass(frozen=True)
class Distill:
    """Settings of the loss against a teacher.

    A ViT with `pool='distilled'` learns from the teacher with its second head and from the labels
    with its first (DeiT). Every other model has one head for both.

    Attributes:
        teacher: run directory or published weights with the same classes; None trains without.
        kind: `hard` takes the teacher's likeliest class as the label (Touvron et al. 2021c,
            arXiv:2012.12877, equation 3), `soft` its distribution (equation 2; Hinton et al. 2015).
        share: weight of the teacher's loss; the labels get 1 - share.
        temperature: divisor of the logits in `soft`.
    """

    teacher: str | None = None
    kind: Literal['hard', 'soft'] = 'hard'
    share: Share = 0.5
    temperature: Positive = 1.0


def loss(settings: Distill, logits: jax.Array, teacher: jax.Array) -> jax.Array:
    """Loss of a student's logits [B, K] against a teacher's, in nats: mean over the batch.

    `hard`: cross-entropy of the teacher's likeliest class. `soft`: Kullback-Leibler divergence of
    the student's distribution from the teacher's, both at the temperature, times its square.
    (DeiT's code also divides by the number of classes.)
    """
    if settings.kind == 'hard':
        label = teacher.argmax(-1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    heat = settings.temperature
    ours, theirs = (jax.nn.log_softmax(x / heat) for x in (logits, teacher))
    return heat**2 * (jnp.exp(theirs) * (theirs - ours)).sum(-1).mean()
