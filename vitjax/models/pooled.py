"""Base of CaiT and PatchConvNet: class-attention blocks that read logits from patches."""

import flax.linen as nn
import jax

from vitjax.base import fields
from vitjax.base.ranges import Amount, Classes, Extent, Rate, Ratio, Side
from vitjax.layers.attention import ClassAttention
from vitjax.layers.block import ClassBlock, Mlp
from vitjax.layers.dense import kernel_init
from vitjax.layers.embed import repeated
from vitjax.layers.norm import LayerNorm
from vitjax.layers.stack import stack
from vitjax.models.base import Arithmetic, Model, Trunk
from vitjax.ops import Implementation


class Pooled(Model):
    """Model of a trunk on patches alone, `blocks`, and class-attention blocks after it.

    Its subclasses add `embed` and `blocks`, and document the fields.
    """

    patch_size: Side = 16
    width: Extent = 192
    depth: Extent = 24
    class_depth: Extent = 2
    num_heads: Extent = 4
    mlp_ratio: Ratio = 4.0
    num_classes: Classes = 1000
    qkv_bias: bool = True
    layer_scale: Amount | None = 1e-5
    drop_path: Rate = 0.0
    dropout: Rate = 0.0
    attention_dropout: Rate = 0.0
    attention: Implementation = 'auto'
    dtype: Arithmetic = 'float32'
    remat: bool = False

    @property
    def class_tokens(self) -> int:
        """Number of class tokens that gather from the patches."""
        return 1

    @property
    def trunk(self) -> Trunk:
        """Patches alone through `blocks`; `class_blocks` read them."""
        stacks = {'blocks': self.depth, 'class_blocks': self.class_depth}
        return Trunk(self.patch_size, 0, 'attention', stacks, self.class_tokens)

    def add_pooling(self, dropout: float = 0.0, attention_dropout: float = 0.0) -> None:
        """Makes all parts after the trunk except the classifier; for `setup`."""
        fields.require(self, 'model')
        shape = self.class_tokens, self.width
        self.class_token = self.param('class_token', kernel_init, shape)
        attention = ClassAttention(
            self.num_heads, self.qkv_bias, dropout, attention_dropout, self.attention, self.dtype,
            parent=None,
        )  # fmt: skip
        mlp = Mlp(self.mlp_ratio, dropout, dtype=self.dtype, parent=None)
        self.class_blocks = stack(ClassBlock, self.class_depth, nn.broadcast)(
            attention, mlp, self.layer_scale, self.dtype
        )
        self.norm = LayerNorm(dtype=self.dtype)

    @nn.nowrap  # no named scope of its own
    def pool(self, tokens: jax.Array, train: bool) -> jax.Array:
        """Class tokens [B, class_tokens, width] after gathering from patch tokens."""
        token = repeated(self.class_token, tokens)
        return self.class_blocks(token, tokens, train)[0]
