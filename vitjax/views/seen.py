"""What one pass through a model gave: all that a view draws from."""

import dataclasses
import difflib
import inspect
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from vitjax.analysis import attention
from vitjax.base.labels import labels
from vitjax.base.types import Array, Arrays, Module, Params
from vitjax.data.preprocess import Preprocessing, normalise, squares
from vitjax.experiment import Experiment
from vitjax.figures.panels import named, short
from vitjax.figures.style import Figure
from vitjax.inside import capture
from vitjax.models.base import Trunk
from vitjax.runs import Loaded

# Captured paths, as regular expressions that views keep.
WEIGHTS = 'blocks/attention/weights'
MIXED = 'blocks/attention/mixed_weights'
CLASS_WEIGHTS = 'class_blocks/attention/weights'
MAPS = r'conv_\d+'
HIDDEN = 'blocks/mlp/hidden'

# Weights are drawn as multiples of 1/N, what each of N tokens would get of attention that has no
# preference. A scale that ends no earlier than at DIM leaves such attention dim and flat.
UNIFORM, DIM = 'attention\n(uniform = 1)', 3.0


class NotApplicable(Exception):
    """Why a view does not apply to a model, in one line."""


class Drawing(NamedTuple):
    """One figure of a view, and what it shows.

    Attributes:
        name: of its files, as in `heads_by_layer`.
        figure: matplotlib's; a list of them is an animation, a string a page of HTML.
        arrays: what is drawn, by name.
    """

    name: str
    figure: Figure | list[Figure] | str
    arrays: Mapping[str, Array]


Drawings = Iterator[Drawing]


class View(NamedTuple):
    """What a view is; each file of this package defines one as `VIEW`.

    Attributes:
        group: `attention`, `tokens`, `gradients` or `page`.
        draw: `Seen` to drawings; its keyword-only arguments are the view's options.
        keep: regular expression of the captured paths that it reads; empty for a view of
            parameters or pixels alone.
        gradients: whether it also reads the target's gradients at those paths.
    """

    group: str
    draw: Callable[..., Drawings]
    keep: str = ''
    gradients: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the view's options."""
        parameters = inspect.signature(self.draw).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one pass through a model gave, and what went in.

    Attributes:
        loaded: the model, its parameters, and what was changed to fit the image size.
        names: of the images.
        pixels: what the model sees, uint8 [B, H, W, 3].
        images: the same, normalised.
        logits: [B, classes], or features [B, D] of a model without classes.
        found: captured arrays by path, float32.
        grads: the target's gradients at the same paths; empty if no view reads them.
        chosen: for each image the class that gradients are taken of, [B]; None for a model with
            fewer than two classes.
        asked: whether somebody chose that class; else it is each image's most likely.
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
    def model(self) -> Module:
        """The module."""
        return self.loaded.experiment.model

    @property
    def params(self) -> Params:
        """Its parameters."""
        return self.loaded.params

    @property
    def preprocessing(self) -> Preprocessing:
        """What turned images into the model's input."""
        return _preprocessing(self.loaded.experiment)

    @property
    def trunk(self) -> Trunk:
        """What the model says of its trunk."""
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
        """The index of a patch, given by row and column, among the trunk's tokens."""
        return self.trunk.prefix + patch[0] * self.grid[1] + patch[1]

    def image(self, number: int) -> int:
        """The index from 0 of an image that a user counts from 1.

        Raises:
            ValueError: if there is no such image.
        """
        if not 1 <= number <= len(self.pixels):
            raise ValueError(f'image must be 1 to {len(self.pixels)} here: got {number}.')
        return number - 1

    def title(self, index: int) -> str:
        """The name of a class."""
        classes = self.loaded.experiment.classes
        return classes[index].split(',')[0] if classes else f'class {index}'

    @property
    def titles(self) -> tuple[str, ...]:
        """For each image its name, the class that gradients are taken of, and its probability."""
        return self._titles(self.chosen, 'asked' if self.asked else 'predicted')

    @property
    def answers(self) -> tuple[str, ...]:
        """For each image its name, the most likely class and its probability."""
        return self._titles(None if self.chosen is None else self.logits.argmax(1), 'predicted')

    def _titles(self, classes: np.ndarray | None, how: str) -> tuple[str, ...]:
        names = [named(name, 28) for name in self.names]
        if classes is None:
            values = [f'\nlogit {x:.2f}' * self.model.num_classes for x in self.logits[:, 0]]
            return tuple(f'{name}{value}' for name, value in zip(names, values, strict=True))
        odds = self.probability[np.arange(len(classes)), classes]
        said = [short(self.title(index), 18) for index in classes]
        lines = zip(names, said, odds, strict=True)
        return tuple(f'{name}\n{how}: {label}, {share:.0%}' for name, label, share in lines)

    def answer(self, image: int, index: int) -> str:
        """A class and its probability for an image."""
        return f'{short(self.title(index), 14)}, {self.probability[image, index]:.0%}'

    @property
    def probability(self) -> np.ndarray:
        """Of the classes [B, classes]: the softmax of `logits`."""
        return scipy.special.softmax(self.logits.astype(np.float32), 1)

    @property
    def differentiated(self) -> str:
        """What gradients are of, in words."""
        if self.chosen is not None:
            return "gradient of the class's logit"
        if self.model.num_classes == 1:
            return 'gradient of the logit'
        return 'gradient of half the squared length of the features (no head)'

    @property
    def pictures(self) -> np.ndarray:
        """What the model sees, 0 to 1."""
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
        """Of `tokens`, those of the patches."""
        return self.tokens()[:, :, self.trunk.prefix :]

    def feature_maps(self) -> Arrays:
        """A convolutional network's feature maps in order; empty for the others."""
        paths = [path for path in self.found if re.fullmatch(MAPS, path)]
        return {path: self.found[path] for path in sorted(paths, key=lambda p: int(p[5:]))}

    def stages(self) -> Arrays:
        """A convolutional network's feature maps, pooled ones too, in the order they come in."""
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
        """What the answer reads of the patches, [B, rows, columns].

        Args:
            matrix: token-to-token scores of the trunk [B, N, N]; None for a convolutional one.
            rows: class-attention scores [B, K, 1 + N] where a model has such layers. Of one class
                token for each class, it is the chosen class's that is read.

        Raises:
            NotApplicable: if there are neither.
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
    """The index from 0 of a layer that a user counts from 1; the last one's by default.

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

    Where none matches it is the model's last path, as a capture has to keep something.

    Raises:
        ValueError: if `at` is no path of the model.
    """
    size = _preprocessing(loaded.experiment).size
    blank = np.broadcast_to(np.float32(0), (count, size, size, 3))
    known = capture.paths(loaded.experiment.model, loaded.params, blank)
    if at is not None and at not in known:
        close = difflib.get_close_matches(at, known, n=4) or known
        raise ValueError(f'at must be a captured path: {at!r} is none; close: {", ".join(close)}.')
    pattern = re.compile('|'.join(filter(None, keep)) or '-')
    kept = {p: shape for p, shape in known.items() if p == at or pattern.fullmatch(p)}
    return kept or dict([list(known.items())[-1]])


def look(
    loaded: Loaded, images: Sequence[str | pathlib.Path | np.ndarray], *, keep: Sequence[str] = (),
    at: str | None = None, gradients: bool = False, target: str | int | None = None,
) -> Seen:  # fmt: skip
    """One pass through a model, and one back if `gradients` are needed.

    Args:
        loaded: what `vitjax.runs.load` returns.
        images: files, or uint8 arrays [H, W, 3] of any size.
        keep: regular expressions of paths to capture.
        at: one more path.
        gradients: whether to take the target's gradients at those paths too.
        target: class that they are taken of, by name or number; by default each image's most
            likely.

    Raises:
        ValueError: for an image that cannot be read, and a path or class that the model lacks.
    """
    experiment, params, _ = loaded
    model: Module = experiment.model
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
    return Seen(loaded, names, pixels, inputs, logits, found, grads, chosen, asked)


def _preprocessing(experiment: Experiment) -> Preprocessing:
    if experiment.preprocessing is None:
        raise ValueError('experiment.preprocessing must say what the model expects: it is None.')
    return experiment.preprocessing


def class_index(experiment: Experiment, target: str | int, what: str = 'target') -> int:
    """The index of a class, given by index, by name or by one of its names; errors say `what`.

    Raises:
        ValueError: if the model has no such class.
    """
    count: int = experiment.model.num_classes  # type: ignore[attr-defined]
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
    """What gradients are taken of: a class's logit, each image's largest, or the only one.

    Without classes, half the squared length of the features, whose gradient is the features.
    """
    if num_classes == 0:
        return lambda features: (features**2).sum() / 2
    if num_classes == 1:
        return lambda logits: logits.sum()
    if index is None:
        return lambda logits: logits.max(1).sum()
    return lambda logits: logits[:, index].sum()
