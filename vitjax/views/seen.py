"""What one pass through a model gave."""

import dataclasses
import re
from typing import Any

import numpy as np

from vitjax.experiment import Experiment
from vitjax.layers.embed import grid_of

WEIGHTS = 'blocks/attention/weights'
MIXED = 'blocks/attention/mixed_weights'
CLASS_WEIGHTS = 'class_blocks/attention/weights'
MAPS = r'conv_\d+'
HIDDEN = 'blocks/mlp/hidden'

# A view yields the name of its files, a figure (a list of them is an animation), and the arrays.
Result = tuple[str, Any, dict[str, Any]]


class NoMeaning(Exception):
    """Why a view has no meaning for a model, in one line."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What views were asked for; the help of scripts/visualize.py says what each is."""

    layer: int | None = None
    query: tuple[int, int] | None = None
    target: str | None = None
    at: str | None = None
    channels: tuple[int, ...] = ()
    interpolation: str = 'bicubic'
    discard: float = 0.9
    steps: int = 30
    jitter: int | None = None
    blur: float | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one pass through a model gave, and what it was made from.

    Attributes:
        experiment: the model's, with preprocessing and class names.
        params: the model's parameters.
        names: of the photographs.
        pixels: what the model sees, uint8 [B, H, W, 3].
        images: the same, normalised.
        logits: [B, classes], or features.
        found: captured arrays by path.
        grads: the target's gradients at the same paths; empty if no view reads them.
        chosen: the class that gradients are of, for each image; None where there are not two.
        options: of the command.
        resized: whether position embeddings were interpolated.
    """

    experiment: Experiment
    params: Any
    names: tuple[str, ...]
    pixels: np.ndarray
    images: Any
    logits: Any
    found: dict[str, Any]
    grads: dict[str, Any]
    chosen: np.ndarray | None
    options: Options
    resized: bool = False

    @property
    def model(self) -> Any:
        """The module."""
        return self.experiment.model

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return grid_of(self.pixels.shape[1:3], self.model.patch_size)

    @property
    def centre(self) -> tuple[int, int]:
        """Row and column of the patch in the centre."""
        return self.grid[0] // 2, self.grid[1] // 2

    def title(self, index: int) -> str:
        """The name of a class."""
        classes = self.experiment.classes
        return classes[index].split(',')[0] if classes else f'class {index}'

    @property
    def titles(self) -> tuple[str, ...]:
        """For each image the class that gradients are of, or the photograph's name."""
        return self.names if self.chosen is None else tuple(map(self.title, self.chosen))

    @property
    def kind(self) -> str:
        """The architecture's name."""
        return type(self.model).__name__

    @property
    def pictures(self) -> Any:
        """What the model sees, 0 to 1."""
        return self.pixels / 255.0

    @property
    def preprocessing(self) -> Any:
        """What turned photographs into the model's input."""
        return self.experiment.preprocessing

    @property
    def prefix(self) -> int:
        """Tokens before the patches in the trunk."""
        return self.model.prefix_tokens

    @property
    def smooth(self) -> bool:
        """Whether maps are interpolated."""
        return self.options.interpolation == 'bicubic'

    def trunk_weights(self) -> Any:
        """The trunk's attention weights, or why there are none."""
        if WEIGHTS in self.found:
            return self.found[WEIGHTS]
        if hasattr(self.model, 'attention'):
            raise NoMeaning(f'the trunk of {self.kind} is convolutional; see class-attention')
        raise NoMeaning(f'{self.kind} has no attention')

    def class_weights(self) -> Any:
        """The class-attention weights, or why there are none."""
        if CLASS_WEIGHTS not in self.found:
            raise NoMeaning(f'{self.kind} has no class-attention layers')
        return self.found[CLASS_WEIGHTS]

    def tokens(self) -> Any:
        """Tokens leaving each block, [L, B, N, D], or why there are none."""
        if 'blocks' not in self.found:
            raise NoMeaning(f'{self.kind} has feature maps of unequal shapes, not tokens')
        return self.found['blocks']

    def feature_maps(self) -> dict[str, Any]:
        """A convolutional network's feature maps in order; empty for the others."""
        maps = {path: value for path, value in self.found.items() if re.fullmatch(MAPS, path)}
        return dict(sorted(maps.items(), key=lambda item: int(item[0].split('_')[1])))

    def layer(self, depth: int) -> int:
        """The layer that was asked for, from 0 on; the last without one."""
        layer = self.options.layer
        if layer is None:
            return depth - 1
        if not 1 <= layer <= depth:
            raise ValueError(f'--layer must be 1 to {depth} here: got {layer}.')
        return layer - 1
