"""Base class of models, and the description of a trunk that analysis reads."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.base.types import PyTree, Shapes
from vitjax.layers.embed import grid_of

Arithmetic = Literal['float32', 'bfloat16', 'float16', 'float64']


@dataclasses.dataclass(frozen=True)
class Trunk:
    """Part of a model between its images and its head.

    Attributes:
        patch_size: pixels that a token spans each way; None for feature maps of unequal shapes
            instead of tokens.
        prefix: tokens before the patches: the class token and registers.
        reads: source of the logits: the trunk's `class` token, the `mean` of its patches, both
            (`class_and_mean`), all its tokens (`flatten`), its patches by class `attention`, or
            feature `maps`.
        stacks: depth of each stack of equal blocks, by its captured path.
        class_tokens: tokens in the class-attention blocks, one or one a class; 0 without blocks.
        latent: that token attends to the trunk's tokens alone, not to itself.
    """

    patch_size: int | None
    prefix: int
    reads: str
    stacks: dict[str, int]
    class_tokens: int = 0
    latent: bool = False

    @property
    def class_token(self) -> bool:
        """True if logits are read from the trunk's first token, the class token."""
        return self.reads in ('class', 'class_and_mean')

    @property
    def reader(self) -> str:
        """Name of what attends to the patches for the logits, for titles and messages."""
        return 'pooling token' if self.latent else 'class token'

    def grid(self, height: int, width: int | None = None) -> tuple[int, int]:
        """Rows and columns of patches of an image in pixels; a square one without `width`.

        Raises:
            ValueError: if the trunk has no patches, or they do not divide the image.
        """
        if self.patch_size is None:
            raise ValueError('feature maps of unequal shapes have no grid of patches.')
        return grid_of((height, height if width is None else width), self.patch_size)


if TYPE_CHECKING:

    class _Declared:
        """Fields of every model, for type checkers; each model has them at a place of its own."""

        num_classes: int
        dtype: Arithmetic
        embed: Any  # with tokens
        through: Any
        readout: Any
else:
    _Declared = object


class Model(nn.Module, _Declared):
    """Linen module called as `(images, train)` that describes its trunk.

    A model has the fields `num_classes` and `dtype`; with tokens also `patch_size`, `width` and
    `depth`, and two methods: `through(tokens, grid, train)` through the blocks, and
    `readout(tokens, train)` from the tokens that leave any block to logits.
    Captures, views and resizing find its parts by name: `embed` (its patch embedding
    `embed/patch/projection`), `blocks`, `class_blocks`, `norm` and `head` (its last layer
    `head/output`); without tokens `conv_1`, `conv_2`, ...
    """

    if TYPE_CHECKING:  # frozen dataclasses hash, which linen's stubs do not say

        def __hash__(self) -> int: ...

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        tokens = self.embed(images, train)
        grid = self.trunk.grid(*images.shape[1:3])
        return self.readout(self.through(tokens, grid, train), train)

    @property
    def trunk(self) -> Trunk:
        """Description of the part between images and logits."""
        raise NotImplementedError

    def loss_logits(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Logits for the labels' loss and logits for the teacher's; here the same."""
        logits = self(images, train)
        return logits, logits

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before the patches; 0 without tokens."""
        return self.trunk.prefix


def parameter_shapes(model: nn.Module, image_size: int) -> Shapes:
    """Shapes and dtypes of a model's parameters, without computing them.

    Args:
        model: any linen module called as `(images)`, with images of three channels.
        image_size: side of its square images in pixels; a `position_grid` overrides it.
    """
    height = width = image_size
    if grid := vars(model).get('position_grid'):
        height, width = (side * vars(model)['patch_size'] for side in grid)
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    return jax.eval_shape(lambda key, x: model.init(key, x), jax.random.key(0), images)['params']


def count_parameters(params: PyTree) -> int:
    """Number of parameters in a tree of arrays or shapes.

    >>> count_parameters({'kernel': jax.ShapeDtypeStruct((2, 3), 'float32')})
    6
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
