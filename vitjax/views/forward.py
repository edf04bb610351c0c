"""Results of one forward and backward pass; every view draws from these."""

import dataclasses
import difflib
import math
import pathlib
import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from vitjax.analysis import attention
from vitjax.base.labels import labels
from vitjax.base.types import Arrays, Params
from vitjax.data.preprocess import Preprocessing, normalise, squares
from vitjax.experiment import Experiment
from vitjax.figures.text import named, short
from vitjax.inside import capture
from vitjax.models.base import Model, Trunk
from vitjax.runs import Loaded
from vitjax.views.view import NotApplicable

# Captured paths, as regular expressions that views keep.
WEIGHTS = 'blocks/attention/weights'
MIXED = 'blocks/attention/mixed_weights'
CLASS_WEIGHTS = 'class_blocks/attention/weights'
MAPS = r'conv_\d+'
HIDDEN = 'blocks/mlp/hidden'


@dataclasses.dataclass(frozen=True)
class Results:
    """Results of one pass through a model, and its inputs.

    Attributes:
        loaded: the model, its parameters, and their changes to fit the image size.
        names: names of the images.
        pixels: the model's input before it is normalised, uint8 [B, H, W, 3].
        images: the same, normalised.
        logits: [B, classes], or features [B, D] of a model without classes.
        found: captured arrays by path, float32.
        grads: the target's gradients at the same paths; empty if no view reads them.
        chosen: class of each image whose logit is differentiated, [B]; None for a model with fewer
            than two classes.
        asked: True if the caller chose that class; else it is each image's most likely.
    """

    loaded: Loaded
    names: tuple[str, ...]
    pixels: np.ndarray
    images: np.ndarray
    logits: np.ndarray
    found: Arrays
    grads: Arrays
    chosen: np.ndarray | None
    asked: bool = False

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

    def image(self, number: int) -> int:
        """Index from 0 of an image that a user counts from 1.

        Raises:
            ValueError: if there is no such image.
        """
        if not 1 <= number <= len(self.pixels):
            raise ValueError(f'image must be 1 to {len(self.pixels)} here: got {number}.')
        return number - 1

    def title(self, index: int) -> str:
        """First name of a class."""
        classes = self.loaded.experiment.classes
        return classes[index].split(',')[0] if classes else f'class {index}'

    @property
    def titles(self) -> tuple[str, ...]:
        """Name of each image, the class whose logit is differentiated, and its probability."""
        return self._titles(self.chosen, 'asked' if self.asked else 'predicted')

    @property
    def answers(self) -> tuple[str, ...]:
        """Name of each image, its most likely class and that class's probability."""
        return self._titles(None if self.chosen is None else self.logits.argmax(1), 'predicted')

    def _titles(self, classes: np.ndarray | None, how: str) -> tuple[str, ...]:
        names = [named(name, 28) for name in self.names]
        if classes is None:
            values = [f'\nlogit {x:.2f}' * self.model.num_classes for x in self.logits[:, 0]]
            return tuple(f'{name}{value}' for name, value in zip(names, values, strict=True))
        said = [self.answer(image, index, 18) for image, index in enumerate(classes)]
        return tuple(f'{name}\n{how}: {text}' for name, text in zip(names, said, strict=True))

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

    @property
    def pictures(self) -> np.ndarray:
        """The model's input before it is normalised, 0 to 1."""
        return self.pixels / 255.0

    def trunk_weights(self) -> jax.Array:
        """The trunk's attention weights [L, B, heads, N, N].

        Raises:
            NotApplicable: if there are none.
        """
        if WEIGHTS in self.found:
            return self.found[WEIGHTS]
        if self.trunk.class_tokens:
            raise NotApplicable(f'the trunk of {self.kind} has no attention; see class-attention')
        raise NotApplicable(f'{self.kind} has no attention; see grad-cam')

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

    def feature_maps(self) -> Arrays:
        """Feature maps of a convolutional network in order; empty for other models."""
        paths = [path for path in self.found if re.fullmatch(MAPS, path)]
        return {path: self.found[path] for path in sorted(paths, key=lambda p: int(p[5:]))}

    def stages(self) -> Arrays:
        """Feature maps of a convolutional network, pooled ones too, in the order of the pass."""
        paths = [path for path in self.found if re.fullmatch(rf'{MAPS}|pool_\d+', path)]

        def place(path: str) -> tuple[int, bool, int]:
            return -self.found[path].shape[1], path.startswith('conv'), int(path[5:])

        return {path: self.found[path] for path in sorted(paths, key=place)}

    def as_maps(self, values: jax.Array, name: str) -> jax.Array:
        """Tokens [B, N, D] without their prefix, or feature maps, as [B, rows, columns, channels].

        Raises:
            ValueError: for arrays without patches, by their `name`.
        """
        if values.ndim == 3 and values.shape[1] == self.trunk.prefix + math.prod(self.grid):
            patches = values[:, self.trunk.prefix :]
            values = patches.reshape(len(values), *self.grid, values.shape[-1])
        if values.ndim != 4:
            rule = 'at must have tokens or feature maps'
            raise ValueError(f'{rule}: {name} is {list(values.shape)}.')
        return values

    def answer_map(self, matrix: jax.Array | None, rows: jax.Array | None) -> np.ndarray:
        """Scores with which the prediction reads the patches, [B, rows, columns].

        Args:
            matrix: token-to-token scores of the trunk [B, N, N]; None for a convolutional one.
            rows: class-attention scores [B, K, 1 + N]; None for a model without such layers. If
                each class has its own token, the chosen class's is read.

        Raises:
            NotApplicable: if both are None.
        """
        if rows is not None:
            own = 0 if rows.shape[1] == 1 else self.chosen
            read, prefix = rows[np.arange(len(rows)), own], 1
        elif matrix is not None:
            read = matrix[:, 0] if self.trunk.class_token else matrix.mean(1)
            prefix = self.trunk.prefix
        else:
            raise NotApplicable(f'{self.kind} has no attention; see grad-cam')
        return np.asarray(attention.to_grid(read, grid=self.grid, prefix=prefix))


def layer_index(layer: int | None, depth: int) -> int:
    """Index from 0 of a layer that a user counts from 1; by default the last.

    Raises:
        ValueError: if there is no such layer.
    """
    if layer is None:
        return depth - 1
    if not 1 <= layer <= depth:
        raise ValueError(f'layer must be 1 to {depth} here: got {layer}.')
    return layer - 1


def kept_paths(
    loaded: Loaded, count: int, *, keep: Sequence[str], at: str | None
) -> dict[str, tuple[int, ...]]:
    """Paths that match one of `keep`, with shapes for `count` images; computes nothing.

    If none matches, it is the model's last path: a capture has to keep something.

    Raises:
        ValueError: if `at` is no path of the model.
    """
    size = _preprocessing(loaded.experiment).size
    blank = np.broadcast_to(np.float32(0), (count, size, size, 3))
    known = capture.paths(loaded.experiment.model, blank)
    if at is not None and at not in known:
        close = difflib.get_close_matches(at, known, n=4) or known
        raise ValueError(
            f'at must be a captured path: {at!r} is not one; close: {", ".join(close)}.'
        )
    pattern = re.compile('|'.join(filter(None, keep)) or '-')
    kept = {p: shape for p, shape in known.items() if p == at or pattern.fullmatch(p)}
    return kept or dict([list(known.items())[-1]])


def forward_pass(
    loaded: Loaded, images: Sequence[str | pathlib.Path | np.ndarray], *, keep: Sequence[str] = (),
    at: str | None = None, gradients: bool = False, target: str | int | None = None,
) -> Results:  # fmt: skip
    """Runs one forward pass through a model, and one backward pass if `gradients` are needed.

    Args:
        loaded: a model, as `vitjax.runs.load` opens it.
        images: files, or uint8 arrays [H, W, 3] of any size.
        keep: regular expressions of paths to capture.
        at: one more path.
        gradients: take the target's gradients at those paths too.
        target: class whose logit is differentiated, by name or number; by default each image's
            most likely.

    Raises:
        ValueError: for an image that cannot be read, and a path or class that the model lacks.
    """
    experiment, params, _ = loaded
    model = experiment.model
    preprocessing = _preprocessing(experiment)
    pixels = squares(images, preprocessing)
    inputs = normalise(pixels, preprocessing)
    pattern = '|'.join(map(re.escape, kept_paths(loaded, len(pixels), keep=keep, at=at)))
    index = None if target is None else class_index(experiment, target)
    if gradients:
        goal = _goal(model.num_classes, index)
        logits, found, grads = capture.gradients(model, params, inputs, goal, keep=pattern)
    else:
        (logits, found), grads = capture.capture(model, params, inputs, keep=pattern), {}
    found, grads = jax.tree.map(lambda x: x.astype(jnp.float32), (found, grads))
    logits, chosen = np.asarray(logits), None
    if model.num_classes > 1:
        chosen = logits.argmax(1) if index is None else np.full(len(logits), index)
    asked = chosen is not None and index is not None
    of_files = iter(labels([image for image in images if not isinstance(image, np.ndarray)]))
    names = tuple(
        f'image {i + 1}' if isinstance(image, np.ndarray) else next(of_files)
        for i, image in enumerate(images)
    )
    return Results(loaded, names, pixels, inputs, logits, found, grads, chosen, asked)


def _preprocessing(experiment: Experiment) -> Preprocessing:
    if experiment.preprocessing is None:
        raise ValueError("experiment.preprocessing must describe the model's input: it is None.")
    return experiment.preprocessing


def class_index(experiment: Experiment, target: str | int, what: str = 'target') -> int:
    """Index of a class, given as an index, a name or one of its names; errors name `what`.

    Raises:
        ValueError: if the model has no such class.
    """
    count = experiment.model.num_classes
    target = str(target)
    if count < 2:
        raise ValueError(f'{what} {target}: the model has no classes to choose from.')
    if target.isdecimal() and int(target) < count:
        return int(target)
    names = [name.lower() for name in experiment.classes]
    found = [i for i, n in enumerate(names) if target.lower() in (n, *re.split(r',\s*', n))]
    if not found:
        close = difflib.get_close_matches(target.lower(), names, n=3)
        hint = f'; close: {"; ".join(close)}' if close else ''
        raise ValueError(f'{what} must be a class or 0 to {count - 1}: {target!r}{hint}.')
    return found[0]


def _goal(num_classes: int, index: int | None) -> Callable[[jax.Array], jax.Array]:
    """Target of gradients: a class's logit, each image's largest, or the only one.

    Without classes, half the squared length of the features, whose gradient is the features.
    """
    if num_classes == 0:
        return lambda features: (features**2).sum() / 2
    if num_classes == 1:
        return lambda logits: logits.sum()
    if index is None:
        return lambda logits: logits.max(1).sum()
    return lambda logits: logits[:, index].sum()
