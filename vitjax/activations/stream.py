"""Activations of a model on images, computed when they are read."""

import dataclasses
import functools
import hashlib
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vitjax import capture, pretrained
from vitjax import experiment as experiments
from vitjax.activations.record import Activations, Stack
from vitjax.data import augment, images, sources
from vitjax.data.images import Preprocessing
from vitjax.data.sources import SUFFIXES, Data, Encoded
from vitjax.experiment import Experiment

TOKENS = ('class', 'mean', 'patches', 'all')


def of_path(
    path: str | pathlib.Path,
    *,
    data: str | None = None,
    split: str = 'test',
    size: int | None = None,
    square: int = 256,
    keep: str | None = None,
    model: str | None = None,
    report: Callable[[str], object] = print,
    **how: Any,
) -> Activations:
    """`stream` of a run directory or a file of published weights.

    Args:
        path: as `vitjax.pretrained.load` takes it.
        data: `digits`, `tfds:NAME`, `folder:PATH`, or the path of a folder of image files without
            classes, whose only split is all of them; None is the run's own.
        split: `train`, `validation` or `test`.
        size: side in pixels of the model's images; None keeps what it was made for.
        square: side in pixels that files of unequal sizes are cut and resized to, before `size`.
        keep: as in `stream`; None is the blocks, or the convolutions where there are none.
        model: a published model's name where the weights do not say it.
        report: takes one line for each change made to the parameters.
        **how: further arguments of `stream`.

    Raises:
        ValueError: as `pretrained.load`, `sources.load` and `stream` do; for weights without data.
    """
    experiment, params = pretrained.load(path, model=model, image_size=size, report=report)
    if data is None and not pathlib.Path(path).is_dir():
        raise ValueError(f'say which images: {path} is a weights file, which has none of its own.')
    source = experiment.data
    if data is not None:
        source = dataclasses.replace(source, name=data, size=square)
    plain = pathlib.Path(source.name)
    if source.name != 'digits' and ':' not in source.name and plain.is_dir():
        loaded, split = photographs(plain, square), 'all'
    else:
        loaded = sources.load(source, split)
    if keep is None:
        keep = 'blocks' if hasattr(experiment.model, 'depth') else r'conv_\d+'
    about = {'source': str(path), 'data': source.name, 'split': split}
    return stream(experiment, params, loaded, keep=keep, about=about, **how)


def stream(
    experiment: Experiment,
    params: Any,
    data: Data,
    *,
    keep: str = 'blocks',
    tokens: str | None = None,
    layers: tuple[int, int] | None = None,
    batch_size: int = 64,
    about: dict[str, Any] | None = None,
) -> Activations:
    """Activations of a model on images, computed when read; nothing is kept.

    Images are cut to the central square that the preprocessing's `crop` says, resized and
    normalised on the device; a batch is spread over this process's devices.

    Args:
        experiment: says the model and its preprocessing.
        params: the model's.
        data: images and labels.
        keep: which paths, as in `vitjax.capture.capture`.
        tokens: what to take of arrays of tokens: the `class` token, the `mean` over the patches,
            all `patches`, or `all` tokens. None is `class` where there is one, else `mean`. Maps of
            features [H, W, C] count as patches, class tokens on their own are taken as they are,
            and attention weights have to be asked for with `all`.
        layers: first and last layer to take of every stack; None takes all.
        batch_size: images at a time on the devices.
        about: more to say in the index.

    Raises:
        ValueError: if `keep` matches nothing, a path has not the tokens asked for, or not the
            layers; in words that name both.
    """
    model: Any = experiment.model
    prepared = experiment.preprocessing or Preprocessing(experiment.augment.size, 1.0)
    if tokens is None:
        tokens = 'class' if getattr(model, 'pool', '') == 'class' else 'mean'
    if tokens not in TOKENS:
        raise ValueError(f'tokens must be one of {", ".join(TOKENS)}: {tokens!r}.')
    forward = _forward(model, prepared, keep, tokens, layers)
    shape = (1, prepared.size, prepared.size, 3)
    found = jax.eval_shape(forward, params, jax.ShapeDtypeStruct(shape, jnp.uint8))
    stacks = tuple(
        Stack(path, (value.shape[0], *value.shape[2:]), _span(path, value.shape[0], layers))
        for path, value in sorted(found.items(), key=lambda item: network_order(item[0]))
    )
    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ('batch',), axis_types=(AxisType.Auto,), devices=devices)
    placed = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec('batch'))
    step = -(-min(batch_size, len(data)) // len(devices)) * len(devices)

    @functools.lru_cache(maxsize=1)  # hashes and forward pass want the same images
    def fetch(rows: tuple[int, ...]) -> np.ndarray:
        return np.asarray(data.images[np.array(rows)])

    def run(pixels: np.ndarray) -> dict[str, Any]:
        missing = np.repeat(pixels[:1], step - len(pixels), axis=0)  # one shape, compiled once
        padded = np.concatenate([_square(pixels, prepared.crop), _square(missing, prepared.crop)])
        found = forward(placed, jax.device_put(padded, split))
        if len(pixels) == step:
            return found
        return {path: value[:, : len(pixels)] for path, value in found.items()}

    def read(rows: np.ndarray) -> list[Any]:
        pixels = fetch(tuple(rows))
        parts = [run(pixels[i : i + step]) for i in range(0, len(pixels), step)]
        if len(parts) == 1:
            return [parts[0][stack.path] for stack in stacks]
        return [np.concatenate([p[stack.path] for p in parts], axis=1) for stack in stacks]

    values = experiments.to_json(experiment)
    facts = {
        'model': values['model'],
        'weights': digest_of(params),
        'preprocessing': dataclasses.asdict(prepared),
        'classes': list(data.classes),
        'keep': keep,
        'tokens': tokens,
        **(about or {}),
    }

    def hashes(rows: np.ndarray) -> np.ndarray:
        return np.array([_hash(image) for image in fetch(tuple(rows))], np.uint64)

    return Activations(stacks, len(data), read, hashes, np.asarray(data.labels), facts)


@functools.lru_cache(maxsize=8)
def _forward(
    model: Any, prepared: Preprocessing, keep: str, tokens: str, layers: tuple[int, int] | None
) -> Any:
    patches = (prepared.size // getattr(model, 'patch_size', prepared.size)) ** 2

    def run(params: Any, pixels: jax.Array) -> dict[str, jax.Array]:
        x = augment.resize(pixels, prepared.size, (prepared.mean, prepared.deviation))
        out = {}
        for path, value in capture.capture(model, params, x, keep=keep)[1].items():
            stacked = _is_stack(path)
            value = value if stacked else value[None]
            if stacked and layers is not None:
                first, last = layers
                if not 0 <= first <= last < len(value):
                    raise ValueError(
                        f'layers must be from 0 to {len(value) - 1}, the first not after the '
                        f'last: {first} {last} of {path}.'
                    )
                value = value[first : last + 1]
            out[path] = take_tokens(path, value, tokens, model, patches).astype(jnp.float32)
        return out

    return jax.jit(run)


def _is_stack(path: str) -> bool:
    return path.split('/')[0] in ('blocks', 'class_blocks')


def _span(path: str, count: int, layers: tuple[int, int] | None) -> tuple[int, int] | None:
    return (layers or (0, count - 1)) if _is_stack(path) else None


def network_order(path: str) -> tuple[int, list[Any]]:
    """Sorts paths as the network runs, `conv_2` before `conv_10`."""
    first = path.split('/')[0]
    place = {'embed': 0, 'blocks': 2, 'class_blocks': 3, 'norm': 4, 'head': 5}.get(first, 1)
    return place, [int(p) if p.isdigit() else p for p in re.split(r'(\d+)', path)]


def take_tokens(path: str, value: jax.Array, tokens: str, model: Any, patches: int) -> jax.Array:
    """[layers, B, ...] of what the token policy takes."""
    if value.ndim == 3:  # features of an image
        return value
    last = path.split('/')[-1]
    if last in ('weights', 'mixed_weights', 'mixed_logits'):
        if tokens != 'all':
            raise ValueError(f'{path} is attention, not tokens: tokens must be all, not {tokens}.')
        return value
    if value.ndim == 5:  # a map of features
        value = value.reshape(*value.shape[:2], -1, value.shape[-1])
        prefix, has_class = 0, False
    else:
        count = value.shape[2]
        per_class = getattr(model, 'class_tokens_per_class', False)
        own = model.num_classes if per_class else 1
        if path.startswith('class_blocks') and count == own:
            return value.reshape(*value.shape[:2], -1)  # class tokens and nothing else
        prefix = count - patches
        has_class = prefix > 0 and getattr(model, 'pool', 'class') == 'class'
    if tokens == 'class' and not has_class:
        raise ValueError(
            f'{path} of {type(model).__name__} has no class token: tokens must be mean, patches '
            'or all.'
        )
    taken = {
        'class': lambda: value[:, :, 0],
        'mean': lambda: value[:, :, prefix:].mean(2),
        'patches': lambda: value[:, :, prefix:],
        'all': lambda: value,
    }
    return taken[tokens]()


def _square(pixels: np.ndarray, crop: float) -> np.ndarray:
    """The central square of images [B, H, W, 3] that covers `crop` of the short side."""
    side = round(min(pixels.shape[1:3]) * crop)
    top, left = ((extent - side) // 2 for extent in pixels.shape[1:3])
    return pixels[:, top : top + side, left : left + side]


def photographs(folder: str | pathlib.Path, size: int) -> Data:
    """The image files of a folder as uint8 squares of `size` pixels, decoded when read; no labels.

    Raises:
        ValueError: if there are none.
    """
    files = sorted(p for p in pathlib.Path(folder).iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f'there are no images ({", ".join(SUFFIXES)}) in {folder}.')
    square = Preprocessing(size, crop=1.0)
    decoded = Encoded(files, lambda path: images.squares([path], square)[0])
    return Data(decoded, np.full(len(files), -1, np.int32), ())


def digest_of(params: Any) -> str:
    """A SHA-256 of parameters: of their paths, shapes and bytes."""
    out = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        out.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n'.encode())
        out.update(array.tobytes())
    return out.hexdigest()


def _hash(image: np.ndarray) -> int:
    digest = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, 'little')
