"""Outlier tokens moved to a register at test time; the register was never trained.

Large pretrained ViTs keep global information in a few patches whose norms stand out (Darcet et al.
2024). An extra token takes them over without any training (Jiang et al. 2025, arXiv:2506.08010, who
move the neurons that make them). Here whole tokens are moved, at one layer.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.inside.intervene import Edit
from vitjax.models import ViT
from vitjax.runs import Loaded

PATCH, OUTLIER, REGISTER = 1, 2, 3


def with_register(loaded: Loaded) -> Loaded:
    """The model with one more register, the last before the patches, which enters as zeros.

    Raises:
        ValueError: for a model that is not a ViT.
    """
    model = loaded.experiment.model
    if not isinstance(model, ViT):
        raise ValueError(f'moving outliers aside needs a ViT: {type(model).__name__} has no place.')
    embed = loaded.params['embed']
    own = np.asarray(embed.get('registers', np.zeros((0, model.width), np.float32)))
    embed = {**embed, 'registers': np.concatenate([own, np.zeros((1, model.width), own.dtype)])}
    model = model.clone(registers=model.registers + 1)
    experiment = dataclasses.replace(loaded.experiment, model=model)
    return Loaded(experiment, {**loaded.params, 'embed': embed}, loaded.changes)


def move(tokens: jax.Array, role: jax.Array) -> jax.Array:
    """Tokens [B, N, D] with the outliers' mean in the register, and the patches' mean in each.

    `role` [B, N, 1] marks each token as `PATCH`, `OUTLIER` or `REGISTER`.
    """

    def mean(kind: int) -> jax.Array:
        chosen = (role == kind).astype(tokens.dtype)
        return (tokens * chosen).sum(1, keepdims=True) / jnp.maximum(chosen.sum(1), 1)[:, None]

    usual = jnp.where(role == OUTLIER, mean(PATCH), tokens)
    return jnp.where(role == REGISTER, mean(OUTLIER), usual)


def edit(layer: int, depth: int, prefix: int, outliers: np.ndarray) -> Edit:
    """The move of `outliers` [B, patches] among the tokens leaving a layer, from 0, of `blocks`."""
    role = np.where(outliers, OUTLIER, PATCH)
    role = np.pad(role, ((0, 0), (prefix, 0)))
    role[:, prefix - 1] = REGISTER
    where = (np.arange(depth) == layer)[:, None, None, None]
    return Edit(where, role[None, :, :, None], move)
