"""The Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

import functools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.base import fields
from vitjax.base.ranges import Amount, Classes, Extent, Positive, Range, Rate, Ratio, Side
from vitjax.layers.attention import ClassAttention, MultiHeadAttention
from vitjax.layers.block import Block, ClassBlock, Mlp
from vitjax.layers.dense import Activation, kernel_init
from vitjax.layers.embed import PrefixPositions, TokenEmbed, repeated
from vitjax.layers.head import Head
from vitjax.layers.norm import Normalization, norm
from vitjax.layers.rope import Rope
from vitjax.layers.stack import stack
from vitjax.models.base import Arithmetic, Model, Trunk
from vitjax.ops import Implementation

Pool = Literal['class', 'distilled', 'mean', 'class_and_mean', 'flatten', 'map']
Registers = Annotated[int, Range(0, 1_024)]


class ViT(Model):
    """ViT, with the options of DeiT, AugReg, DINOv2 and v3, EVA-02, CLIP, SigLIP, AIMv2 and others.

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
        pool: input of the head: `class` token, `mean` over patches, both (`class_and_mean`), all
            tokens (`flatten`), or a learned token that gathers from all by attention (`map`, Zhai
            et al. 2022). `distilled` has DeiT's distillation token after the class token, a second
            head that reads it, and the mean of both heads as logits (Touvron et al. 2021, section
            4).
        registers: extra tokens after the class token (Darcet et al. 2024).
        position: `learned`, `sincos` or no absolute position embeddings (`none`).
        position_grid: rows and columns of the patches that learned positions are for; None is a
            square, or any grid if no square has as many patches.
        norm_epsilon: added to the variance in every normalization.
        head: widths of hidden layers in the head.
        attention: implementation (`vitjax.ops.attention`); they differ in speed and memory.
        dtype: compute type; parameters stay float32.
        remat: recompute each block in the backward pass, for memory.
        rope: rotary position embedding of queries and keys, as DINOv3, EVA-02 or RoPE-ViT
            (`axial`, `mixed`) have it; None has none.
        norm: `layer` or `rms` normalization, everywhere.
        mlp: nonlinearity of the MLP.
        mlp_norm: normalization before the MLP's second layer.
        qk_norm: normalization of each head's queries and keys.
        key_bias: biases on keys, with `qkv_bias`.
        bias: biases of the projections and MLPs.
        patch_bias: bias of the patch embedding.
        patch_norm: normalization of the patch embeddings.
        pre_norm: normalization of all tokens before the first block.
        fc_norm: with `mean`, the final normalization follows the mean; otherwise it precedes it.
        head_bias: biases of the head; a projection like CLIP's has none.
        prefix_positions: learned positions before the patches': of the `class` tokens, of `all`
            tokens there, or of `none`.
        spare_class_token: a class token that the head does not read: CLIP's with `mean`, say.
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
    pool: Pool = 'class'
    registers: Registers = 0
    position: Literal['learned', 'sincos', 'none'] = 'learned'
    position_grid: tuple[Extent, Extent] | None = None
    norm_epsilon: Positive = 1e-6
    head: tuple[Extent, ...] = ()
    attention: Implementation = 'auto'
    dtype: Arithmetic = 'float32'
    remat: bool = False
    rope: Rope | None = None
    norm: Normalization = 'layer'
    mlp: Activation = 'gelu'
    mlp_norm: bool = False
    qk_norm: bool = False
    key_bias: bool = True
    bias: bool = True
    patch_bias: bool = True
    patch_norm: bool = False
    pre_norm: bool = False
    fc_norm: bool = True
    head_bias: bool = True
    prefix_positions: PrefixPositions = 'class'
    spare_class_token: bool = False

    @property
    def class_tokens(self) -> int:
        """Number of class tokens."""
        read = {'class': 1, 'distilled': 2, 'class_and_mean': 1}.get(self.pool, 0)
        return read or int(self.spare_class_token)

    @property
    def placed_tokens(self) -> int:
        """Number of tokens before the patches that have learned positions."""
        counts = {'class': self.class_tokens, 'all': self.trunk.prefix, 'none': 0}
        return counts[self.prefix_positions]

    @property
    def trunk(self) -> Trunk:
        """Class tokens, registers and patches through `blocks`."""
        reads = {'distilled': 'class', 'map': 'attention'}
        latent = self.pool == 'map'
        stacks = {'blocks': self.depth} | ({'class_blocks': 1} if latent else {})
        return Trunk(
            self.patch_size, self.class_tokens + self.registers, reads.get(self.pool, self.pool),
            stacks, int(latent), latent,
        )  # fmt: skip

    def setup(self):
        fields.require(self, 'model')

        def chosen(asked: bool) -> Normalization | None:
            return self.norm if asked else None

        self.embed = TokenEmbed(
            self.patch_size, self.width, self.class_tokens, self.registers, self.position,
            self.dropout, self.dtype, self.position_grid, self.prefix_positions, self.patch_bias,
            chosen(self.patch_norm), chosen(self.pre_norm), self.norm_epsilon,
        )  # fmt: skip
        drops: Any = {'dropout': self.dropout, 'attention_dropout': self.attention_dropout}
        how: Any = {'implementation': self.attention, 'dtype': self.dtype, 'parent': None}
        attention = MultiHeadAttention(
            self.num_heads, qkv_bias=self.qkv_bias, head_width=self.head_width,
            key_bias=self.key_bias, bias=self.bias, qk_norm=chosen(self.qk_norm),
            norm_epsilon=self.norm_epsilon, rope=self.rope, prefix=self.trunk.prefix,
            **drops, **how,
        )  # fmt: skip
        mlp = functools.partial(
            Mlp, self.mlp_ratio, self.dropout, self.mlp_last_gelu, self.dtype, self.mlp, self.bias,
            chosen(self.mlp_norm), self.norm_epsilon, parent=None,
        )  # fmt: skip
        block = self.dtype, self.norm_epsilon, self.norm
        self.blocks = stack(Block, self.depth, 0, static=2, remat=self.remat)(
            attention, mlp(), self.layer_scale, *block
        )
        if self.pool == 'map':
            self.class_token = self.param('class_token', kernel_init, (1, self.width))
            gather = ClassAttention(self.num_heads, **drops, **how, latent=True)
            self.class_blocks = stack(ClassBlock, 1, nn.broadcast)(gather, mlp(), None, *block)
        self.final_norm = norm(self.norm, self.dtype, self.norm_epsilon)(name='norm')
        head = functools.partial(
            Head, self.num_classes, self.head, self.head_dropout, self.dtype, self.head_bias
        )
        self.classifier = head(name='head')
        if self.pool == 'distilled':
            self.distilled_classifier = head(name='head_distilled')

    @nn.nowrap  # no named scope of its own
    def through(self, tokens: jax.Array, grid: tuple[int, int], train: bool = False) -> jax.Array:
        """Tokens [B, N, width] that enter the first block to those that leave the last."""
        rates = jnp.linspace(0, self.drop_path, self.depth) if self.drop_path else None
        return self.blocks(tokens, rates, train, grid)[0]

    def readout(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """Tokens [B, N, width] that leave a block to logits: pooling, the final norm, the head."""
        if self.pool == 'distilled':
            logits, distilled = self.both(tokens, train)
            return (logits + distilled) / 2
        patches = tokens[:, self.prefix_tokens :]
        if self.pool == 'class':
            features = self.final_norm(tokens[:, 0])
        elif self.pool == 'mean' and self.fc_norm:
            features = self.final_norm(patches.mean(1))
        elif self.pool == 'mean':
            features = self.final_norm(patches).mean(1)
        elif self.pool == 'flatten':
            features = self.final_norm(tokens).reshape(tokens.shape[0], -1)
        elif self.pool == 'map':
            tokens = self.final_norm(tokens)
            probe = repeated(self.class_token, tokens)
            features = self.class_blocks(probe, tokens, train)[0][:, 0]
        else:
            tokens = self.final_norm(tokens)
            parts = tokens[:, 0], tokens[:, self.prefix_tokens :].mean(1)
            features = jnp.concatenate(parts, axis=-1)
        return self.classifier(features, train)

    def both(self, tokens: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Logits of the class token and of the distillation token, each from its own head."""
        features = self.final_norm(tokens[:, :2])
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
