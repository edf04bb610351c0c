"""Results of one forward and backward pass; every view draws from these."""

import dataclasses
import difflib
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from vitjax.analysis import attention
from vitjax.base import fields
from vitjax.base.labels import labels
from vitjax.base.ranges import Pattern
from vitjax.base.types import Array, Arrays, Params
from vitjax.data.preprocess import Preprocessing, normalise, photographs, squares
from vitjax.experiment import Experiment
from vitjax.figures.text import named, short
from vitjax.inside import capture
from vitjax.inside.path import Path
from vitjax.models.base import Model, Trunk
from vitjax.runs import Loaded
from vitjax.views.target import class_index, goal
from vitjax.views.view import DEFAULTS, NotApplicable, Options

# Captured paths, as regular expressions that views keep.
WEIGHTS = 'blocks/attention/weights'
MIXED = 'blocks/attention/mixed_weights'
CLASS_WEIGHTS = 'class_blocks/attention/weights'
MAPS = r'conv_\d+'
STAGES = rf'{MAPS}|pool_\d+'
HIDDEN = 'blocks/mlp/hidden'
PIXELS = 2**21  # of all photographs in a figure: more would not show at 300 dots an inch

Image: TypeAlias = str | pathlib.Path | np.ndarray
Images: TypeAlias = Sequence[Image] | Mapping[str, Image]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A captured array, or one layer of it.

    Attributes:
        path: captured path.
        index: layer of a stack, from 0; None outside of stacks.
    """

    path: str
    index: int | None = None

    @property
    def label(self) -> str:
        """Its name in figures and messages."""
        if self.index is None:
            return self.path
        return f'{self.path}, layer {self.index + 1}'.removeprefix('blocks, ')

    @property
    def stem(self) -> str:
        """Its name in the names of files."""
        return self.label.replace('/', '.').replace(',', '').replace(' ', '_')

    def of(self, arrays: Arrays) -> jax.Array:
        """The layer of captured arrays or of their gradients, [B, ...]."""
        values = arrays[self.path]
        return values if self.index is None else values[self.index]


@dataclasses.dataclass(frozen=True)
class Results:
    """Results of one pass through a model, and its inputs.

    Attributes:
        loaded: the model, its parameters, and their changes to fit the image size.
        names: names of the images.
        photographs: what the model sees of the images at their own resolution, float32
            [B, S, S, 3] in 0..1.
        pixels: the model's input before it is normalised, uint8 [B, H, W, 3].
        images: the same, normalised.
        logits: [B, classes], or features [B, D] of a model without classes.
        found: captured arrays by path, float32.
        grads: the target's gradients at the same paths; empty if no view reads them.
        chosen: class of each image whose logit is differentiated, [B]; None for a model with fewer
            than two classes.
        options: options of the views.
    """

    loaded: Loaded
    names: tuple[str, ...]
    photographs: np.ndarray
    pixels: np.ndarray
    images: np.ndarray
    logits: np.ndarray
    found: Arrays
    grads: Arrays
    chosen: np.ndarray | None
    options: Options

    @property
    def at(self) -> list[str]:
        """Captured paths that the user asks about, in the order of the pass."""
        return [p for p in self.found if self.options.at and re.fullmatch(self.options.at, p)]

    @property
    def model(self) -> Model:
        """The module."""
        return self.loaded.experiment.model

    @property
    def params(self) -> Params:
        """Its parameters."""
        return self.loaded.params

    @property
    def preprocessing(self) -> Preprocessing:
        """The way from images to the model's input."""
        return _preprocessing(self.loaded.experiment)

    @property
    def trunk(self) -> Trunk:
        """The model's description of its trunk."""
        return self.model.trunk

    @property
    def kind(self) -> str:
        """The architecture's name, for messages."""
        return type(self.model).__name__

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.trunk.grid(*self.pixels.shape[1:3])

    @property
    def centre(self) -> tuple[int, int]:
        """Row and column of the patch in the centre."""
        return self.grid[0] // 2, self.grid[1] // 2

    def token(self, patch: tuple[int, int]) -> int:
        """Index of a patch, a row and a column, among the trunk's tokens."""
        return self.trunk.prefix + patch[0] * self.grid[1] + patch[1]

    def image(self) -> int:
        """Index from 0 of the image that the user asks about.

        Raises:
            ValueError: if there is no such image.
        """
        return _index('image', self.options.image, len(self.pixels))

    def layer(self, depth: int, default: int = -1) -> int:
        """Index from 0 of the layer, of `depth`, that the user asks about; else `default`.

        Raises:
            ValueError: if there is no such layer.
        """
        if self.options.layer is None:
            return default % depth
        return _index('layer', self.options.layer, depth)

    def title(self, index: int) -> str:
        """First name of a class."""
        classes = self.loaded.experiment.classes
        return classes[index].split(',')[0] if classes else f'class {index}'

    def titles(self, *, asked: bool = True) -> list[str]:
        """Name of each image, its most likely class and that class's probability.

        Args:
            asked: if the user chose the class whose logit is differentiated, show that one.
        """
        if self.chosen is None:
            said = [f'logit {x:.2f}' * self.model.num_classes for x in self.logits[:, 0]]
        elif asked and self.options.target is not None:
            said = [f'asked: {self.answer(i, k, 18)}' for i, k in enumerate(self.chosen)]
        else:
            likeliest = enumerate(self.logits.argmax(1))
            said = [f'predicted: {self.answer(i, k, 18)}' for i, k in likeliest]
        names = [named(name, 28) for name in self.names]
        return ['\n'.join(filter(None, each)) for each in zip(names, said, strict=True)]

    def answer(self, image: int, index: int, most: int = 14) -> str:
        """A class, cut to `most` characters, and its probability for an image."""
        return f'{short(self.title(index), most)}, {self.probability[image, index]:.0%}'

    @property
    def probability(self) -> np.ndarray:
        """Probabilities of the classes [B, classes]."""
        return scipy.special.softmax(self.logits.astype(np.float32), 1)

    @property
    def differentiated(self) -> str:
        """Target of the gradients, in words."""
        if self.chosen is not None:
            return "gradient of the class's logit"
        if self.model.num_classes == 1:
            return 'gradient of the logit'
        return 'gradient of half the squared length of the features (no head)'

    def trunk_weights(self) -> jax.Array:
        """The trunk's attention weights [L, B, heads, N, N].

        Raises:
            NotApplicable: if there are none.
        """
        if WEIGHTS not in self.found:
            if self.trunk.class_tokens:
                raise NotApplicable(
                    f'the trunk of {self.kind} has no attention; see class-attention'
                )
            raise NotApplicable(f'{self.kind} has no attention; see grad-cam')
        return self.found[WEIGHTS]

    def tokens(self) -> jax.Array:
        """Tokens leaving each block, [L, B, N, D].

        Raises:
            NotApplicable: if there are none.
        """
        if 'blocks' not in self.found:
            raise NotApplicable(f'{self.kind} has feature maps of unequal shapes, not tokens')
        return self.found['blocks']

    def patches(self) -> jax.Array:
        """Tokens of the patches, [L, B, patches, D]."""
        return self.tokens()[:, :, self.trunk.prefix :]

    def feature_maps(self, pattern: str = MAPS) -> Arrays:
        """Feature maps of a convolutional network in the order of the pass; empty for others."""
        return {path: maps for path, maps in self.found.items() if re.fullmatch(pattern, path)}

    def layers(self, path: str) -> list[Layer]:
        """Layers of a captured path, or the one that the user asks about.

        Raises:
            ValueError: if there is no such layer.
        """
        if Path(path).stack is None:
            return [Layer(path)]
        depth = len(self.found[path])
        indices = range(depth) if self.options.layer is None else [self.layer(depth)]
        return [Layer(path, index) for index in indices]

    def has_patches(self, layer: Layer) -> bool:
        """True for tokens with all patches [B, N, D], and for feature maps."""
        shape = layer.of(self.found).shape
        if len(shape) == 4:  # in a stack also weights [B, heads, N, N] and heads [B, N, heads, D]
            return layer.index is None or shape[1:3] == self.grid
        return shape[1:-1] == (self.trunk.prefix + math.prod(self.grid),)

    def as_maps(self, layer: Layer, arrays: Arrays | None = None) -> jax.Array:
        """A layer as [B, rows, columns, channels]; of tokens, those of the patches.

        Args:
            layer: tokens or feature maps.
            arrays: the gradients; by default the captured arrays.

        Raises:
            ValueError: for arrays without patches.
        """
        values = layer.of(self.found if arrays is None else arrays)
        if not self.has_patches(layer):
            rule = 'at must have tokens or feature maps'
            raise ValueError(f'{rule}: {layer.label} is {list(values.shape)}.')
        if values.ndim == 4:
            return values
        patches = values[:, self.trunk.prefix :]
        return patches.reshape(len(values), *self.grid, values.shape[-1])

    def answer_map(self, matrix: jax.Array | None, rows: jax.Array | None) -> np.ndarray:
        """Scores with which the prediction reads the patches, [B, rows, columns].

        Args:
            matrix: token-to-token scores of the trunk [B, N, N]; None for a convolutional one.
            rows: class-attention scores [B, K, keys], the patches last; None for a model without
                such layers. If each class has its own token, the chosen class's is read.

        Raises:
            NotApplicable: if both are None.
        """
        if rows is not None:
            own = 0 if rows.shape[1] == 1 else self.chosen
            read = rows[np.arange(len(rows)), own]
        elif matrix is not None:
            patches = matrix[:, self.trunk.prefix :].mean(1)
            readings = {
                'class': matrix[:, 0], 'class_and_mean': (matrix[:, 0] + patches) / 2,
                'mean': patches,
            }  # fmt: skip
            read = readings.get(self.trunk.reads, matrix.mean(1))
        else:
            raise NotApplicable(f'{self.kind} has no attention; see grad-cam')
        return np.asarray(attention.to_grid(read, grid=self.grid, prefix=self.keys_before(read)))

    def keys_before(self, weights: Array) -> int:
        """Number of keys before the patches in weights [..., keys]."""
        return weights.shape[-1] - math.prod(self.grid)


def _index(what: str, number: int, count: int) -> int:
    if not 1 <= number <= count:
        raise ValueError(f'{what} must be 1 to {count} here: got {number}.')
    return number - 1


def kept_paths(
    loaded: Loaded, count: int, *, keep: Sequence[str], at: str | None
) -> dict[str, tuple[int, ...]]:
    """Paths that match one of `keep`, with shapes for `count` images; computes nothing.

    If none matches, it is the model's last path: a capture has to keep something.

    Raises:
        ValueError: if `at` matches no path of the model.
    """
    size = _preprocessing(loaded.experiment).size
    blank = np.broadcast_to(np.float32(0), (count, size, size, 3))
    known = capture.paths(loaded.experiment.model, blank)
    if at is not None:
        fields.check(at, Pattern, 'at')
        if not any(re.fullmatch(at, path) for path in known):
            close = ', '.join(difflib.get_close_matches(at, known, n=4) or known)
            raise ValueError(f'at must match a captured path: {at!r} matches none; close: {close}.')
    pattern = '|'.join(f'(?:{each})' for each in (*keep, at) if each) or capture.NOTHING
    kept = {path: shape for path, shape in known.items() if re.fullmatch(pattern, path)}
    return kept or dict([list(known.items())[-1]])


def forward_pass(
    loaded: Loaded, images: Images, *, keep: Sequence[str] = (), gradients: bool = False,
    options: Options = DEFAULTS,
) -> Results:  # fmt: skip
    """Runs one forward pass through a model, and one backward pass if `gradients` are needed.

    Args:
        loaded: a model, as `vitjax.runs.load` opens it.
        images: files, or uint8 arrays [H, W, 3] of any size; or a dict of them by name.
        keep: regular expressions of paths to capture.
        gradients: take the target's gradients at those paths too.
        options: `at` adds paths, `target` is the class whose logit is differentiated.

    Raises:
        ValueError: for an image that cannot be read, and a path or class that the model lacks.
    """
    experiment, params, _ = loaded
    model, preprocessing = experiment.model, _preprocessing(experiment)
    names = tuple(images) if isinstance(images, Mapping) else _names(images)
    images = [*images.values()] if isinstance(images, Mapping) else images
    pixels = squares(images, preprocessing)
    inputs = normalise(pixels, preprocessing)
    pattern = '|'.join(map(re.escape, kept_paths(loaded, len(pixels), keep=keep, at=options.at)))
    index = None if options.target is None else class_index(experiment, options.target)
    if gradients:
        aim = goal(model.num_classes, index)
        logits, found, grads = capture.gradients(model, params, inputs, aim, keep=pattern)
    else:
        (logits, found), grads = capture.capture(model, params, inputs, keep=pattern), {}
    found, grads = jax.tree.map(lambda x: x.astype(jnp.float32), (found, grads))
    found = dict(sorted(found.items(), key=_place))
    logits, chosen = np.asarray(logits), None
    if model.num_classes > 1:
        chosen = logits.argmax(1) if index is None else np.full(len(logits), index)
    most = math.isqrt(PIXELS // len(pixels))
    return Results(
        loaded, names, photographs(images, preprocessing, most) / np.float32(255), pixels, inputs,
        logits, found, grads, chosen, options,
    )  # fmt: skip


def _names(images: Sequence[Image]) -> tuple[str, ...]:
    """Labels of files; an array is `image` and its number, from 1."""
    of_files = iter(labels([image for image in images if not isinstance(image, np.ndarray)]))
    return tuple(
        f'image {i}' if isinstance(image, np.ndarray) else next(of_files)
        for i, image in enumerate(images, 1)
    )


def _place(item: tuple[str, jax.Array]) -> tuple[int, bool, int]:
    """Place of a captured array in the pass of a convolutional network; other arrays follow."""
    path, values = item
    stage = re.fullmatch(r'(conv|pool)_(\d+)', path)
    return (-values.shape[1], stage[1] == 'conv', int(stage[2])) if stage else (0, False, 0)


def _preprocessing(experiment: Experiment) -> Preprocessing:
    if experiment.preprocessing is None:
        raise ValueError("experiment.preprocessing must describe the model's input: it is None.")
    return experiment.preprocessing
