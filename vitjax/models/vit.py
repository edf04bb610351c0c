"""The Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

import functools
from collections.abc import Iterator
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.base import fields
from vitjax.base.ranges import Amount, Classes, Extent, Positive, Range, Rate, Ratio, Side
from vitjax.layers.attention import MultiHeadAttention
from vitjax.layers.block import Block, Mlp
from vitjax.layers.embed import TokenEmbed
from vitjax.layers.head import Head
from vitjax.layers.norm import LayerNorm
from vitjax.layers.stack import stack
from vitjax.models.base import Arithmetic, Model, Trunk
from vitjax.ops import Implementation

Registers = Annotated[int, Range(0, 1_024)]


class ViT(Model):
    """ViT, with the options that DeiT, AugReg, DINOv2 and the CIFAR tutorial need.

    Images [B, H, W, 3], normalized, to logits [B, num_classes] (features when it is 0).

    Attributes:
        patch_size: side of a patch in pixels; must divide the image.
        width: channels of a token.
        depth: number of blocks.
        num_heads: attention heads.
        head_width: channels of a head; None is width / num_heads.
        mlp_ratio: hidden width of the MLP over `width`.
        mlp_last_gelu: a GELU after the MLP's second layer too (the CIFAR tutorial's).
        num_classes: logits; 0 returns features.
        qkv_bias: biases on queries, keys and values.
        layer_scale: initial LayerScale; None has none.
        drop_path: stochastic depth of the last block, rising linearly from 0 at the first.
        dropout: rate after the embeddings, projections and MLP layers.
        attention_dropout: rate on the attention weights.
        head_dropout: rate before and inside the head.
        pool: input of the head: `class` token, `mean` over patches, or all tokens, `flatten`;
            `distilled` has DeiT's distillation token after the class token, a second head that
            reads it, and the mean of both heads as logits (Touvron et al. 2021, section 4).
        registers: extra tokens after the class token (Darcet et al. 2024).
        position: `learned` or `sincos` position embeddings.
        position_grid: rows and columns of the patches that learned positions are for; None is a
            square, or any grid if no square has as many patches.
        norm_epsilon: added to the variance in every LayerNorm.
        head: widths of hidden layers in the head.
        attention: implementation (`vitjax.ops.attention`); they differ in speed and memory.
        dtype: compute type; parameters stay float32.
        remat: recompute each block in the backward pass, for memory.
    """

    patch_size: Side = 16
    width: Extent = 192
    depth: Extent = 12
    num_heads: Extent = 3
    head_width: Extent | None = None
    mlp_ratio: Ratio = 4.0
    mlp_last_gelu: bool = False
    num_classes: Classes = 1000
    qkv_bias: bool = True
    layer_scale: Amount | None = None
    drop_path: Rate = 0.0
    dropout: Rate = 0.0
    attention_dropout: Rate = 0.0
    head_dropout: Rate = 0.0
    pool: Literal['class', 'distilled', 'mean', 'flatten'] = 'class'
    registers: Registers = 0
    position: Literal['learned', 'sincos'] = 'learned'
    position_grid: tuple[Extent, Extent] | None = None
    norm_epsilon: Positive = 1e-6
    head: tuple[Extent, ...] = ()
    attention: Implementation = 'auto'
    dtype: Arithmetic = 'float32'
    remat: bool = False

    @property
    def class_tokens(self) -> int:
        """Number of tokens read by a head that stand for no patch."""
        return {'class': 1, 'distilled': 2}.get(self.pool, 0)

    @property
    def trunk(self) -> Trunk:
        """Class tokens, registers and patches through `blocks`."""
        reads = 'class' if self.class_tokens else self.pool
        prefix = self.class_tokens + self.registers
        return Trunk(self.patch_size, prefix, reads, {'blocks': self.depth})

    def setup(self):
        fields.require(self, 'model')
        self.embed = TokenEmbed(
            self.patch_size, self.width, self.class_tokens, self.registers, self.position,
            self.dropout, self.dtype, self.position_grid,
        )  # fmt: skip
        attention = MultiHeadAttention(
            self.num_heads, self.qkv_bias, self.dropout, self.attention_dropout, self.attention,
            self.dtype, self.head_width, parent=None,
        )  # fmt: skip
        mlp = Mlp(self.mlp_ratio, self.dropout, self.mlp_last_gelu, self.dtype, parent=None)
        self.blocks = stack(Block, self.depth, 0, remat=self.remat)(
            attention, mlp, self.layer_scale, self.dtype, self.norm_epsilon
        )
        self.norm = LayerNorm(self.dtype, self.norm_epsilon)
        head = functools.partial(Head, self.num_classes, self.head, self.head_dropout, self.dtype)
        self.classifier = head(name='head')
        if self.pool == 'distilled':
            self.distilled_classifier = head(name='head_distilled')

    @nn.nowrap  # no named scope of its own
    def through(self, tokens: jax.Array, grid: tuple[int, int], train: bool = False) -> jax.Array:
        """Tokens [B, N, width] that enter the first block to those that leave the last."""
        rates = jnp.linspace(0, self.drop_path, self.depth) if self.drop_path else None
        return self.blocks(tokens, rates, train)[0]

    def readout(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """Tokens [B, N, width] that leave a block to logits: pooling, the final norm, the head."""
        if self.pool == 'distilled':
            logits, distilled = self.both(tokens, train)
            return (logits + distilled) / 2
        if self.pool == 'class':
            features = self.norm(tokens[:, 0])
        elif self.pool == 'mean':
            features = self.norm(tokens[:, self.prefix_tokens :].mean(1))
        else:
            features = self.norm(tokens).reshape(tokens.shape[0], -1)
        return self.classifier(features, train)

    def both(self, tokens: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Logits of the class token and of the distillation token, each from its own head."""
        features = self.norm(tokens[:, :2])
        logits = self.classifier(features[:, 0], train)
        return logits, self.distilled_classifier(features[:, 1], train)

    def loss_logits(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        if self.pool != 'distilled':
            return super().loss_logits(images, train)
        tokens = self.embed(images, train)
        return self.both(self.through(tokens, self.trunk.grid(*images.shape[1:3]), train), train)


_SIZES = {  # width, depth, heads: Dosovitskiy et al. 2021, table 1; tiny and small from DeiT
    'tiny': (192, 12, 3),
    'small': (384, 12, 6),
    'base': (768, 12, 12),
    'large': (1024, 24, 16),
    'huge': (1280, 32, 16),
}
_DEIT3 = {  # width, depth, heads, patch: Touvron et al. 2022, and their code for medium
    'small': (384, 12, 6, 16),
    'medium': (512, 12, 8, 16),
    'base': (768, 12, 12, 16),
    'large': (1024, 24, 16, 16),
    'huge': (1280, 32, 16, 14),
}


def _published() -> Iterator[tuple[str, ViT]]:
    for size, (width, depth, heads) in _SIZES.items():
        plain = ViT(16, width, depth, heads)
        for patch in (8, 14, 16, 32):
            yield f'vit_{size}_patch{patch}', plain.clone(patch_size=patch)
        if size in ('tiny', 'small', 'base'):  # Touvron et al. 2020
            deit = plain.clone(drop_path=0.1)
            yield f'deit_{size}_patch16', deit
            yield f'deit_{size}_distilled_patch16', deit.clone(pool='distilled')
        if size in ('small', 'base', 'large'):  # Oquab et al. 2023; Darcet et al. 2024
            dinov2 = plain.clone(patch_size=14, layer_scale=1.0, num_classes=0)
            yield f'vit_{size}_patch14_dinov2', dinov2
            yield f'vit_{size}_patch14_reg4_dinov2', dinov2.clone(registers=4)
    for size, (width, depth, heads, patch) in _DEIT3.items():
        yield f'deit3_{size}_patch{patch}', ViT(patch, width, depth, heads, layer_scale=1e-4)


PUBLISHED = dict(_published())
