"""Activations of a model on images, computed when read."""

import dataclasses
import functools
import hashlib
import math
import pathlib
import re
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vitjax import ops, runs
from vitjax.activations.record import Activations, Stack
from vitjax.base.types import Array, Params
from vitjax.data import kinds, preprocess
from vitjax.data.kinds import folder
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source
from vitjax.experiment import Experiment, preprocessing, to_json
from vitjax.inside import capture
from vitjax.inside.path import Path
from vitjax.models.base import Model
from vitjax.pretrained import Stated
from vitjax.runs import provenance

TOKENS = ('class', 'mean', 'patches', 'all')


def of_path(
    path: str | pathlib.Path, *, data: str | None = None, split: str = 'test',
    size: int | None = None, square: int = 256, keep: str | None = None,
    model: str | None = None, stated: Stated | None = None,
    report: Callable[[Any], object] = print, **how: Any,
) -> Activations:  # fmt: skip
    """`stream` of a run directory or a file of published weights.

    Args:
        path: a path as `vitjax.runs.load` takes it.
        data: `digits`, `tfds:NAME`, `folder:PATH`, or the path of a folder of image files without
            classes, whose only split is all of them; None is the run's own.
        split: `train`, `validation` or `test`.
        size: side of the model's images in pixels; None keeps the model's.
        square: side in pixels of the squares that files are hashed as. The model's input is made
            from the file itself, but hashes must not depend on the model.
        keep: as in `stream`; None is the blocks, or the convolutions of models without blocks.
        model: a published model's name if the weights do not tell it.
        stated: a user's statements about weights; not for a run.
        report: called with each change made to the parameters.
        **how: further arguments of `stream`.

    Raises:
        ValueError: as `runs.load`, `sources.load` and `stream` do; for weights without data.
    """
    experiment, params, _ = runs.load(
        path, model=model, image_size=size, stated=stated, report=report
    )
    source = experiment.data
    if data is not None:
        source = dataclasses.replace(source or kinds.Source(), name=data, size=square)
    elif source is None or not pathlib.Path(path).is_dir():
        raise ValueError(f'--data must say which images: {path} has none of its own.')
    plain = pathlib.Path(source.name)
    prepared = preprocessing(experiment)
    if source.name != 'digits' and ':' not in source.name and plain.is_dir():
        split, loaded = 'all', folder.photographs(plain, prepared)
        known = functools.partial(folder.photographs, plain, Preprocessing(square, crop=1.0))
    else:
        loaded = _shared(source, split, prepared)
        undecoded = dataclasses.replace(source, size=source.size or square, memory=0)
        known = functools.partial(kinds.load, undecoded, split)
    keep = keep or ('blocks' if experiment.model.trunk.stacks else r'conv_\d+')
    about = {'source': str(path), 'data': source.name, 'split': split}
    known = known if loaded.prepared else None
    return stream(experiment, params, loaded, keep=keep, about=about, known=known, **how)


# Images by what they were loaded from; an entry lasts as long as activations hold its images.
_LOADED: weakref.WeakValueDictionary[Any, Data] = weakref.WeakValueDictionary()


def _shared(source: Source, split: str, prepared: Preprocessing) -> Data:
    """Images of a split, of which runs that are compared hold one copy."""
    key = source, split, prepared
    if (found := _LOADED.get(key)) is None:
        found = _LOADED[key] = kinds.load(source, split, prepared)
    return found


def stream(
    experiment: Experiment, params: Params, data: Data, *, keep: str = 'blocks',
    tokens: str | None = None, layers: tuple[int, int] | None = None, batch_size: int = 64,
    about: dict[str, Any] | None = None, known: Callable[[], Data] | None = None,
) -> Activations:  # fmt: skip
    """Activations of a model on images, computed when read and not stored.

    `vitjax.data.preprocess` prepares the images: on the device, unless they were prepared from
    their files. A batch is sharded over this process's devices.

    Args:
        experiment: experiment with the model and its preprocessing.
        params: parameters of the model.
        data: images and labels.
        keep: regular expression over paths, as in `vitjax.inside.capture.capture`.
        tokens: tokens to take: the `class` token, the `mean` over the patches, all `patches`, or
            `all` tokens. None is `class` if the trunk has one, else `mean`. Feature maps [H, W, C]
            count as patches, class tokens on their own stay, and attention weights require `all`.
        layers: first and last layer to take of every stack, from 1; None takes all.
        batch_size: images at a time on the devices.
        about: further entries of the index.
        known: returns the same data as hashes see them, whatever the model; None is `data`.

    Raises:
        ValueError: if `keep` matches nothing, or a path does not have the tokens or layers.
    """
    model, prepared = experiment.model, preprocessing(experiment)
    tokens = tokens or ('class' if model.trunk.class_token else 'mean')
    if tokens not in TOKENS:
        raise ValueError(f'tokens must be one of {", ".join(TOKENS)}: {tokens!r}.')
    chosen = None
    if layers is not None:
        blank: Any = jax.ShapeDtypeStruct((1, prepared.size, prepared.size, 3), jnp.float32)
        chosen = _span(layers, capture.require_match(model, blank, keep))
    forward = _forward(model, prepared, data.prepared, keep, tokens, chosen)
    pixels = jax.ShapeDtypeStruct((1, *data.images.shape[1:]), jnp.uint8)
    found = jax.eval_shape(forward, params, pixels)
    first = chosen[0] if chosen else 0
    paths = sorted(found, key=network_order)
    stacks = tuple(_stack(path, found[path].shape, first) for path in paths)
    reader = _Reader(forward, params, data, paths, known, batch_size)
    facts = {
        'model': to_json(experiment)['model'],
        'weights': provenance.digest(params, end='\n'),
        'preprocessing': dataclasses.asdict(prepared),
        'resampling': 'bicubic',  # captures without this entry were bilinear
        'classes': list(data.classes),
        'keep': keep,
        'tokens': tokens,
        **(about or {}),
    }
    return Activations(stacks, len(data), reader.values, reader.hashes, data.labels, facts)


def _stack(path: str, shape: tuple[int, ...], first: int) -> Stack:
    count, _, *rest = shape
    return Stack(path, (count, *rest), (first, first + count - 1) if Path(path).stack else None)


class _Reader:
    """Forward passes over chosen examples, sharded over this process's devices.

    Args:
        forward: maps parameters and pixels to arrays by path.
        params: parameters of the model.
        data: images.
        paths: paths in the order in which `values` returns them.
        known: returns the same images as hashes see them; None is `data`.
        batch_size: images at a time on the devices.
    """

    def __init__(
        self, forward: Callable[..., dict[str, jax.Array]], params: Params, data: Data,
        paths: list[str], known: Callable[[], Data] | None, batch_size: int,
    ):  # fmt: skip
        devices = jax.local_devices()
        kinds = (AxisType.Auto,)
        mesh = jax.make_mesh((len(devices),), ('batch',), axis_types=kinds, devices=devices)
        self._forward, self._data, self._paths = forward, data, paths
        self._params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        self._sharding = NamedSharding(mesh, PartitionSpec('batch'))
        self._step = -(-min(batch_size, len(data)) // len(devices)) * len(devices)
        self._known = known and functools.cache(known)
        self._rows, self._pixels = np.array([-1]), np.empty(0, np.uint8)

    def _images(self, rows: np.ndarray) -> np.ndarray:
        """Images of rows; hashes and the forward pass read the same ones in turn."""
        if not np.array_equal(rows, self._rows):
            self._rows, self._pixels = rows, np.asarray(self._data.images[rows])
        return self._pixels

    def values(self, rows: np.ndarray) -> list[Array]:
        """Arrays [layers, n, ...] of n rows, one per path."""
        pixels, step = self._images(rows), self._step
        parts = [self._run(pixels[i : i + step]) for i in range(0, len(pixels), step)]
        if len(parts) == 1:
            return [parts[0][path] for path in self._paths]
        return [np.concatenate([part[path] for part in parts], axis=1) for path in self._paths]

    def _run(self, pixels: np.ndarray) -> dict[str, jax.Array]:
        # The last batch is padded with its first image: a single shape is compiled.
        padding = np.repeat(pixels[:1], self._step - len(pixels), axis=0)
        batch = jax.device_put(np.concatenate([pixels, padding]), self._sharding)
        found = self._forward(self._params, batch)
        return {k: v[:, : len(pixels)] for k, v in found.items()} if len(padding) else found

    def hashes(self, rows: np.ndarray) -> np.ndarray:
        """Hashes [n] uint64 of the images of n rows."""
        images = self._known().images[rows] if self._known else self._images(rows)
        digests = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
        return np.array([int.from_bytes(digest, 'little') for digest in digests], np.uint64)


@functools.lru_cache(maxsize=8)
def _forward(
    model: Model, preprocessing: Preprocessing, prepared: Preprocessing | None, keep: str,
    tokens: str, layers: tuple[int, ...] | None,
) -> Callable[..., dict[str, jax.Array]]:  # fmt: skip
    def run(params: Params, pixels: jax.Array) -> dict[str, jax.Array]:
        x = preprocess.finish(pixels, preprocessing, prepared)
        out = {}
        with ops.entered():
            found = capture.capture(model, params, x, keep=keep, layers=layers)[1]
        for path, value in found.items():
            value = value if Path(path).stack else value[None]
            taken = take_tokens(path, value, tokens, model, preprocessing.size)
            out[path] = taken.astype(jnp.float32)
        return out

    return jax.jit(run)


def _span(layers: tuple[int, int], kept: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Indices from 0 of the layers from a first to a last one, which count from 1."""
    first, last = layers
    for path, (depth, *_) in kept.items():
        if Path(path).stack and not 1 <= first <= last <= depth:
            rule = f'a first and a last one of 1 to {depth} at {path}'
            raise ValueError(f'layers must be {rule}: got {first} {last}.')
    return tuple(range(first - 1, last))


def network_order(path: str) -> tuple[int, list[Any]]:
    """Key that sorts paths as the network runs, `conv_2` before `conv_10`."""
    places = {'embed': 0, 'blocks': 2, 'class_blocks': 3, 'norm': 4, 'head': 5}
    return places.get(Path(path).parts[0], 1), [
        int(p) if p.isdigit() else p for p in re.split(r'(\d+)', path)
    ]


def take_tokens(path: str, value: jax.Array, tokens: str, model: Model, size: int) -> jax.Array:
    """The tokens of a captured array [layers, B, ...] that `tokens` selects, as in `stream`.

    Args:
        path: path of the array.
        value: the array.
        tokens: one of `TOKENS`.
        model: the model.
        size: side of the model's input in pixels.

    Raises:
        ValueError: if the path does not have such tokens.
    """
    if value.ndim == 3:  # features of an image
        return value
    if Path(path).is_attention:
        if tokens != 'all':
            raise ValueError(f'{path} is attention, not tokens: tokens must be all, not {tokens}.')
        return value
    if path.endswith('/heads'):  # tokens, with the heads' channels side by side
        value = value.reshape(*value.shape[:3], -1)
    trunk, in_class_blocks = model.trunk, path.startswith('class_blocks')
    if value.ndim == 5:  # a map of features
        value = value.reshape(*value.shape[:2], -1, value.shape[-1])
        prefix = 0
    elif in_class_blocks and value.shape[2] == trunk.class_tokens:
        return value.reshape(*value.shape[:2], -1)  # class tokens and nothing else
    else:  # some paths have only the patches, as the patch embedding
        prefix = value.shape[2] - math.prod(trunk.grid(size))
    own = in_class_blocks and not trunk.latent  # keys and values begin with the class token
    if tokens == 'class' and not (prefix and (trunk.class_token or own)):
        where = f'{path} of {type(model).__name__}'
        raise ValueError(f'{where} has no class token: tokens must be mean, patches or all.')
    if tokens == 'class':
        return value[:, :, 0]
    patches = value if tokens == 'all' else value[:, :, prefix:]
    return patches.mean(2) if tokens == 'mean' else patches
