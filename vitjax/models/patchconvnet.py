"""PatchConvNet (Touvron et al. 2021b, Augmenting convolutional networks, arXiv:2112.13692)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.base.ranges import Amount, Extent, Ratio
from vitjax.layers.block import ConvBlock
from vitjax.layers.embed import ConvStem
from vitjax.layers.head import Head, PerClassHead
from vitjax.layers.stack import stack
from vitjax.models.pooled import Pooled


class PatchConvNet(Pooled):
    """PatchConvNet: a convolutional stem, a column of residual blocks, attention-based pooling.

    Images [B, H, W, 3], normalized, to logits [B, num_classes] (features when it is 0).

    Attributes:
        patch_size: pixels a token spans; log2(patch_size) stride-2 convolutions make the stem.
        width: channels of a token.
        depth: number of trunk blocks.
        class_depth: number of pooling blocks, which are class-attention blocks.
        num_heads: heads of the pooling; must divide `width`.
        mlp_ratio: hidden width of the pooling's MLP over `width`.
        num_classes: logits; 0 returns features.
        class_tokens_per_class: one class token and one linear output a class, attending to the
            patches only, instead of one token for all.
        stem_bias: biases in the stem.
        stem_last_gelu: a GELU after the stem's last convolution too.
        depthwise: the trunk's 3x3 convolution channel by channel; False is a full one.
        se_ratio: channels over hidden channels in squeeze-excite.
        se_bias: biases in squeeze-excite.
        qkv_bias: biases on queries, keys and values.
        layer_scale: initial LayerScale; None has none.
        drop_path: stochastic depth, the same in every trunk block, none in the pooling.
        dropout: rate after the pooling's projection and MLP layers.
        attention_dropout: rate on the pooling's attention weights.
        attention: implementation (`vitjax.ops.attention`); they differ in speed and memory.
        dtype: compute type; parameters stay float32.
        remat: recompute each trunk block in the backward pass, for memory.
    """

    width: Extent = 384
    depth: Extent = 60
    class_depth: Extent = 1
    num_heads: Extent = 1
    mlp_ratio: Ratio = 3.0
    layer_scale: Amount | None = 1e-6
    class_tokens_per_class: bool = False
    stem_bias: bool = False
    stem_last_gelu: bool = False
    depthwise: bool = True
    se_ratio: Extent = 4
    se_bias: bool = True

    @property
    def class_tokens(self) -> int:
        """Number of class tokens: one, or one a class."""
        return self.num_classes if self.class_tokens_per_class else 1

    def setup(self):
        if self.class_tokens_per_class and not self.num_classes:
            raise ValueError('class_tokens_per_class needs num_classes of 1 or more: got 0.')
        self.embed = ConvStem(
            self.patch_size, self.width, self.stem_bias, self.stem_last_gelu, self.dtype
        )
        self.blocks = stack(ConvBlock, self.depth, 0, static=2, remat=self.remat)(
            self.depthwise, self.se_ratio, self.se_bias, self.layer_scale, self.dtype
        )
        self.add_pooling(self.dropout, self.attention_dropout)
        if self.class_tokens_per_class:
            self.classifier = PerClassHead(name='head')
        else:
            self.classifier = Head(self.num_classes, dtype=self.dtype, name='head')

    @nn.nowrap  # no named scope of its own
    def through(self, tokens: jax.Array, grid: tuple[int, int], train: bool = False) -> jax.Array:
        """Tokens [B, N, width] that enter the first trunk block to those that leave the last."""
        rates = jnp.full(self.depth, self.drop_path) if self.drop_path else None
        return self.blocks(tokens, rates, grid, train)[0]

    def readout(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """Tokens [B, N, width] of any trunk depth to logits, through the attention pooling."""
        token = self.pool(tokens, train)
        return self.classifier(self.norm(token if self.class_tokens_per_class else token[:, 0]))


_SIZES = {  # width, depth: Touvron et al. 2021b, table 3; LayerScale as the reference starts it
    's60': (384, 60, 1e-4),
    's120': (384, 120, 1e-6),
    'b60': (768, 60, 1e-6),
    'b120': (768, 120, 1e-6),
    'l60': (1024, 60, 1e-6),
    'l120': (1024, 120, 1e-6),
}
PUBLISHED = {
    f'patchconvnet_{size}': PatchConvNet(16, width, depth, layer_scale=scale)
    for size, (width, depth, scale) in _SIZES.items()
}
_S60 = PUBLISHED['patchconvnet_s60']
PUBLISHED['patchconvnet_s60_multi'] = _S60.clone(class_tokens_per_class=True)
