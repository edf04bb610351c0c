"""CaiT (Touvron et al. 2021, Going deeper with Image Transformers, arXiv:2103.17239)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.base.ranges import Extent
from vitjax.layers.attention import MultiHeadAttention
from vitjax.layers.block import Block, Mlp
from vitjax.layers.embed import TokenEmbed
from vitjax.layers.head import Head
from vitjax.layers.stack import stack
from vitjax.models.pooled import Pooled


class CaiT(Pooled):
    """CaiT: a trunk of talking-heads blocks on patches alone, then class-attention blocks.

    Images [B, H, W, 3], normalized, to logits [B, num_classes] (features when it is 0).

    Attributes:
        patch_size: side of a patch in pixels; must divide the image.
        width: channels of a token.
        depth: number of trunk blocks.
        class_depth: number of class-attention blocks.
        num_heads: attention heads; must divide `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        num_classes: logits; 0 returns features.
        qkv_bias: biases on queries, keys and values.
        layer_scale: initial LayerScale; None has none.
        drop_path: stochastic depth, the same in every trunk block, none in the class blocks.
        dropout: rate after the embeddings, projections and MLP layers.
        attention_dropout: rate on the factors of the values, after the second mixing.
        attention: implementation (`vitjax.ops.attention`); they differ in speed and memory.
        dtype: compute type; parameters stay float32.
        remat: recompute each trunk block in the backward pass, for memory.
        position_grid: rows and columns of the patches that positions are for; None is a square,
            or any grid if no square has as many patches.
    """

    position_grid: tuple[Extent, Extent] | None = None

    def setup(self):
        self.embed = TokenEmbed(
            self.patch_size, self.width, dropout=self.dropout, dtype=self.dtype,
            position_grid=self.position_grid,
        )  # fmt: skip
        attention = MultiHeadAttention(
            self.num_heads, self.qkv_bias, self.dropout, self.attention_dropout, self.attention,
            self.dtype, talking=True, parent=None,
        )  # fmt: skip
        mlp = Mlp(self.mlp_ratio, self.dropout, dtype=self.dtype, parent=None)
        self.blocks = stack(Block, self.depth, 0, remat=self.remat)(
            attention, mlp, self.layer_scale, self.dtype
        )
        self.add_pooling()
        self.classifier = Head(self.num_classes, dtype=self.dtype, name='head')

    @nn.nowrap  # no named scope of its own
    def through(self, tokens: jax.Array, grid: tuple[int, int], train: bool = False) -> jax.Array:
        """Tokens [B, N, width] that enter the first trunk block to those that leave the last."""
        rates = jnp.full(self.depth, self.drop_path) if self.drop_path else None
        return self.blocks(tokens, rates, train)[0]

    def readout(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """Patch tokens [B, N, width] of any trunk depth to logits, through class attention."""
        return self.classifier(self.norm(self.pool(tokens, train)[:, 0]))


_SIZES = {  # width, depth, LayerScale, stochastic depth: Touvron et al. 2021, tables 3, 8 and code
    'xxs24': (192, 24, 1e-5, 0.05),
    'xxs36': (192, 36, 1e-5, 0.1),
    'xs24': (288, 24, 1e-5, 0.05),
    's24': (384, 24, 1e-5, 0.1),
    's36': (384, 36, 1e-6, 0.2),
    'm36': (768, 36, 1e-6, 0.3),
    'm48': (768, 48, 1e-6, 0.4),
}
PUBLISHED = {
    f'cait_{size}': CaiT(16, width, depth, num_heads=width // 48, layer_scale=scale, drop_path=drop)
    for size, (width, depth, scale, drop) in _SIZES.items()
}
