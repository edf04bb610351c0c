"""Activations of a whole split: streamed from a model, or kept as memory maps with an index.

A capture is a directory: one `.npy` of `[layers, examples, ...]` for each path, `labels.npy`,
`examples.npy` (a hash of every image, in order), and `index.json`, which says what all of it is.
It is written batch by batch; one that was killed goes on where it stopped.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vitjax import capture, pretrained
from vitjax import experiment as experiments
from vitjax.analysis import similarity
from vitjax.data import augment, images, sources
from vitjax.data.preprocess import Preprocessing
from vitjax.data.sources import SUFFIXES, Data, Encoded
from vitjax.experiment import Experiment

TOKENS = ('class', 'mean', 'patches', 'all')
SAMPLES = ('image', 'token')
INDEX = 'index.json'


@dataclasses.dataclass(frozen=True)
class Stack:
    """One captured path: `shape` is `(layers, ...)`, without the axis of examples after layers."""

    path: str
    shape: tuple[int, ...]
    layers: tuple[int, int] | None  # first and last; None where a path is no stack

    @property
    def names(self) -> list[str]:
        """What each layer is called: `blocks[3]`, or the path alone."""
        if self.layers is None:
            return [self.path]
        return [f'{self.path}[{i}]' for i in range(self.layers[0], self.layers[1] + 1)]

    @property
    def file(self) -> str:
        """The file that a capture keeps it in."""
        span = '' if self.layers is None else '.{}-{}'.format(*self.layers)
        return self.path.replace('/', '.') + span + '.npy'


@dataclasses.dataclass(frozen=True)
class Activations:
    """Layers of a representation over examples, read some examples at a time.

    Attributes:
        stacks: what there is, in the order of `read`.
        examples: how many.
        read: n indices of examples to arrays [layers, n, ...], one for each stack.
        hashes: n indices to the images' hashes, uint64; None where images are not known.
        labels: [examples] int32, -1 without a class; None where they are not known.
        about: what `index.json` says of them.
    """

    stacks: tuple[Stack, ...]
    examples: int
    read: Callable[[np.ndarray], list[Any]]
    hashes: Callable[[np.ndarray], np.ndarray] | None
    labels: np.ndarray | None
    about: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The layers' names, in the order of the stacks."""
        return [name for stack in self.stacks for name in stack.names]


# ---- From a model ------------------------------------------------------------------------------


def of_path(
    path: str | pathlib.Path,
    *,
    data: str | None = None,
    split: str = 'test',
    size: int | None = None,
    square: int = 256,
    keep: str | None = None,
    model: str | None = None,
    report: Callable[[Any], object] = print,
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
        for path, value in sorted(found.items(), key=lambda item: _order(item[0]))
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
            out[path] = _take(path, value, tokens, model, patches).astype(jnp.float32)
        return out

    return jax.jit(run)


def _is_stack(path: str) -> bool:
    return path.split('/')[0] in ('blocks', 'class_blocks')


def _span(path: str, count: int, layers: tuple[int, int] | None) -> tuple[int, int] | None:
    return (layers or (0, count - 1)) if _is_stack(path) else None


def _order(path: str) -> tuple[int, list[Any]]:
    """Sorts paths as the network runs, `conv_2` before `conv_10`."""
    first = path.split('/')[0]
    place = {'embed': 0, 'blocks': 2, 'class_blocks': 3, 'norm': 4, 'head': 5}.get(first, 1)
    return place, [int(p) if p.isdigit() else p for p in re.split(r'(\d+)', path)]


def _take(path: str, value: jax.Array, tokens: str, model: Any, patches: int) -> jax.Array:
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


# ---- On disk -----------------------------------------------------------------------------------


def write(
    activations: Activations,
    out: str | pathlib.Path,
    *,
    dtype: str = 'float32',
    batch_size: int = 64,
    report: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Writes a capture, or goes on writing one that was stopped.

    Space on the disk is looked for before the first byte, and taken at once.

    Args:
        activations: what to write, of a model.
        out: a directory: new, empty, or holding an unfinished capture of the same.
        dtype: float32 or float16.
        batch_size: examples between two notes in the index.
        report: takes how many examples are done, of how many, after every batch.

    Raises:
        ValueError: if `out` holds something else, with what differs; if the disk is too small,
            with both sizes; if activations are not finite, or too large for float16, by layer.
    """
    if dtype not in ('float32', 'float16'):
        raise ValueError(f"dtype must be 'float32' or 'float16': {dtype!r}.")
    out, total = pathlib.Path(out), activations.examples
    stacks = [dataclasses.asdict(s) | {'file': s.file} for s in activations.stacks]
    index = {**activations.about, 'examples': total, 'dtype': dtype, 'stacks': stacks, 'done': 0}
    index = json.loads(json.dumps(index))  # as it will be read again: tuples are lists
    if out.exists() and any(out.iterdir()):
        index['done'] = _resume(out, index)
    if not index['done']:
        _allocate(activations, out, dtype, index)
    maps = [np.load(out / s.file, mmap_mode='r+') for s in activations.stacks]
    hashes = np.load(out / 'examples.npy', mmap_mode='r+')
    assert activations.hashes
    for start in range(index['done'], total, batch_size):
        stop = min(start + batch_size, total)
        hashes[start:stop] = activations.hashes(np.arange(start, stop))
        values = activations.read(np.arange(start, stop))
        for stack, file, value in zip(activations.stacks, maps, values, strict=True):
            value = np.asarray(value)
            with np.errstate(over='ignore'):  # looked for below
                file[:, start:stop] = value
            _require_finite(stack, value, file[:, start:stop])
        for file in (*maps, hashes):
            file.flush()
        index['done'] = stop
        _write_index(out, index)
        report(stop, total)
    if 'order' not in index:
        _write_index(out, index | _digests(hashes))


def read(directory: str | pathlib.Path) -> Activations:
    """The activations of a capture, as memory maps.

    Raises:
        ValueError: if it is none, or not finished.
    """
    directory = pathlib.Path(directory)
    index = _read_index(directory)
    if index['done'] < index['examples'] or 'order' not in index:
        raise ValueError(
            f'{directory} is not finished: {index["done"]} of {index["examples"]} examples; the '
            'command that began it goes on with it.'
        )
    stacks = tuple(
        Stack(s['path'], tuple(s['shape']), tuple(s['layers']) if s['layers'] else None)
        for s in index['stacks']
    )
    maps = [np.load(directory / s.file, mmap_mode='r') for s in stacks]
    hashes = np.load(directory / 'examples.npy', mmap_mode='r')
    return Activations(
        stacks,
        index['examples'],
        lambda rows: [np.asarray(file[:, rows]) for file in maps],
        lambda rows: np.asarray(hashes[rows]),
        np.load(directory / 'labels.npy'),
        index,
    )


def from_array(path: str | pathlib.Path) -> Activations:
    """A representation from elsewhere: a `.npy` of [examples, features], or with layers in front.

    Raises:
        ValueError: for another file, or another shape.
    """
    path = pathlib.Path(path)
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f'{path} is not a .npy file of numbers: {error}.') from None
    if array.ndim not in (2, 3) or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f'{path} must be floats of [examples, features] or [layers, examples, features]: '
            f'it is {array.dtype} of {list(array.shape)}.'
        )
    layers = None if array.ndim == 2 else (0, len(array) - 1)
    array = array[None] if array.ndim == 2 else array
    stack = Stack(path.stem, (array.shape[0], array.shape[2]), layers)
    return Activations(
        (stack,),
        array.shape[1],
        lambda rows: [np.asarray(array[:, rows])],
        None,
        None,
        {'file': str(path), 'tokens': 'as given'},
    )


def is_capture(path: str | pathlib.Path) -> bool:
    """Whether a path is a capture's directory."""
    return (pathlib.Path(path) / INDEX).is_file()


def select(activations: Activations, keep: str) -> Activations:
    """Only the paths that match a regular expression in full.

    Raises:
        ValueError: if none does, with the paths there are.
    """
    chosen = [i for i, s in enumerate(activations.stacks) if re.fullmatch(keep, s.path)]
    if not chosen:
        known = ', '.join(s.path for s in activations.stacks)
        raise ValueError(f'keep must match a captured path: {keep!r} matches none of {known}.')

    def read(rows: np.ndarray) -> list[Any]:
        values = activations.read(rows)
        return [values[i] for i in chosen]

    stacks = tuple(activations.stacks[i] for i in chosen)
    return dataclasses.replace(activations, stacks=stacks, read=read)


def spread(activations: Activations, examples: int | None) -> Activations:
    """Only so many examples, evenly spread over all of them; None takes all.

    Raises:
        ValueError: if there are not as many.
    """
    if examples is None:
        return activations
    if not 1 <= examples <= activations.examples:
        raise ValueError(f'examples must be from 1 to {activations.examples}: {examples}.')
    chosen = np.linspace(0, activations.examples - 1, examples).astype(int)
    hashes, labels = activations.hashes, activations.labels
    return dataclasses.replace(
        activations,
        examples=examples,
        read=lambda rows: activations.read(chosen[rows]),
        hashes=None if hashes is None else lambda rows: hashes(chosen[rows]),
        labels=None if labels is None else labels[chosen],
    )


def _require_space(activations: Activations, out: pathlib.Path, itemsize: int) -> None:
    values = sum(int(np.prod(stack.shape)) for stack in activations.stacks)
    needed = activations.examples * (values * itemsize + 12) + 2**16 * (len(activations.stacks) + 3)
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ValueError(
            f'the capture takes {needed / 1e9:,.1f} GB, {there} has {free / 1e9:,.1f} GB free; '
            'fewer layers, fewer tokens or float16 take less.'
        )


def _allocate(
    activations: Activations, out: pathlib.Path, dtype: str, index: dict[str, Any]
) -> None:
    n = activations.examples
    files: dict[str, Any] = {'examples.npy': ((n,), 'uint64')}
    files |= {s.file: ((s.shape[0], n, *s.shape[1:]), dtype) for s in activations.stacks}
    for name in files:  # of an attempt that was killed while it took space
        (out / name).unlink(missing_ok=True)
    _require_space(activations, out, np.dtype(dtype).itemsize)
    out.mkdir(parents=True, exist_ok=True)
    _write_index(out, index)
    for name, (shape, kind) in files.items():
        np.lib.format.open_memmap(out / name, 'w+', np.dtype(kind), shape).flush()
        if hasattr(os, 'posix_fallocate'):  # a full disk is an error now, not a crash later
            with (out / name).open('r+b') as file:
                os.posix_fallocate(file.fileno(), 0, (out / name).stat().st_size)
    assert activations.labels is not None
    np.save(out / 'labels.npy', activations.labels)


def _resume(out: pathlib.Path, index: dict[str, Any]) -> int:
    """How many examples `out` has of the same capture."""
    known = _read_index(out)
    names = sorted({*index, *known} - {'source', 'done', 'images', 'order'})
    lines = [
        f'  {name}: {json.dumps(known.get(name))} -> {json.dumps(index.get(name))}'
        for name in names
        if known.get(name) != index.get(name)
    ]
    if lines:
        raise ValueError(
            f'{out} holds another capture (there -> asked); choose another --out:\n'
            + '\n'.join(line if len(line) < 200 else line[:197] + '...' for line in lines)
        )
    index.update({k: known[k] for k in ('images', 'order') if k in known})
    return known['done']


def _require_finite(stack: Stack, value: np.ndarray, written: np.ndarray) -> None:
    if np.isfinite(written).all():
        return
    layer = next(i for i, part in enumerate(written) if not np.isfinite(part).all())
    if np.isfinite(value[layer]).all():
        most = np.abs(value[layer]).max()
        raise ValueError(
            f'{stack.names[layer]} does not fit float16: it reaches {most:.3g}, float16 65504; '
            'use float32.'
        )
    raise ValueError(f'{stack.names[layer]} has activations that are NaN or infinite.')


def _read_index(directory: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads((directory / INDEX).read_text())
    except FileNotFoundError:
        raise ValueError(f'a capture has an {INDEX}: {directory} has none.') from None
    except json.JSONDecodeError as error:
        raise ValueError(f'{directory / INDEX} cannot be read: {error}.') from None


def _write_index(out: pathlib.Path, index: dict[str, Any]) -> None:
    draft = out / 'index.tmp'
    draft.write_text(json.dumps(index, indent=1) + '\n')
    draft.replace(out / INDEX)


def _digests(hashes: np.ndarray) -> dict[str, str]:
    """One hash of which images there are, and one of their order."""
    kinds = {'images': np.sort(hashes), 'order': np.asarray(hashes)}
    return {k: hashlib.sha256(v.astype('<u8').tobytes()).hexdigest() for k, v in kinds.items()}


# ---- Side by side ------------------------------------------------------------------------------


def require_same_examples(a: Activations, b: Activations) -> None:
    """Refuses to compare representations of different images, or in a different order.

    Where images are not known (a `.npy` from elsewhere) only their number is compared.

    Raises:
        ValueError: saying which.
    """
    if a.examples != b.examples:
        raise ValueError(f'both sides must have the same images: {a.examples} and {b.examples}.')
    if a.hashes is None or b.hashes is None:
        return
    one, other = (_digests(np.concatenate([*_by_batch(s.hashes, s.examples)])) for s in (a, b))
    if one['order'] == other['order']:
        return
    if one['images'] == other['images']:
        raise ValueError(
            'both sides must have the same images in the same order: the order differs.'
        )
    raise ValueError('both sides must have the same images: these are of different ones.')


def _by_batch(read: Any, examples: int, size: int = 1024) -> Iterator[Any]:
    for start in range(0, examples, size):
        yield read(np.arange(start, min(start + size, examples)))


def as_samples(values: list[Any], samples: str) -> list[Any]:
    """Stacks [L, n, ...] as [L, n, f], tokens of an image side by side, or as [L, n T, f].

    Args:
        values: what `Activations.read` returns.
        samples: `image`, an image's tokens are one flat vector; `token`, each is a sample.

    Raises:
        ValueError: for `token` where a stack has no axis of tokens.
    """
    if samples not in SAMPLES:
        raise ValueError(f'samples must be one of {", ".join(SAMPLES)}: {samples!r}.')
    if samples == 'image':
        return [value.reshape(*value.shape[:2], -1) for value in values]
    if any(value.ndim != 4 for value in values):
        raise ValueError("samples='token' needs tokens: capture patches or all.")
    return [value.reshape(value.shape[0], -1, value.shape[3]) for value in values]


def whole(activations: Activations, samples: str = 'image') -> list[Any]:
    """All examples at once, as float32 stacks [L, n, f] in memory."""
    batches = _by_batch(activations.read, activations.examples)
    columns = zip(*(as_samples(values, samples) for values in batches), strict=True)
    return [np.concatenate(column, axis=1, dtype=np.float32) for column in columns]


def cka(
    a: Activations,
    b: Activations | None = None,
    *,
    batch_size: int = 64,
    samples: str = 'image',
    kernel: str = 'linear',
    bandwidth: float = 1.0,
    report: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minibatch CKA of every layer of a with every layer of b, and its 95% interval.

    Memory is one batch of both, whatever the number of examples, and what `bootstrap` needs of
    each batch (8 bytes a pair). A last batch that would have fewer than 4 samples is joined to the
    one before.

    Args:
        a: one side.
        b: the other, of the same examples; None is a.
        batch_size: examples in a batch, whose Gram matrices are the estimate's.
        samples: as in `as_samples`.
        kernel: as in `vitjax.analysis.similarity.hsic`.
        bandwidth: as there.
        report: takes how many examples are done, of how many, after every batch.

    Returns:
        CKA, and the low and high end of its interval over batches, each [layers of a, layers of
        b]; the ends are NaN when there is one batch.

    Raises:
        ValueError: for fewer than 4 samples; for a layer that is constant or not finite, by name.
    """
    total, parts = a.examples, []
    starts = list(range(0, total, batch_size))
    if len(starts) > 1 and total - starts[-1] < 4:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], total], strict=True):
        rows = np.arange(start, stop)
        x = as_samples(a.read(rows), samples)
        y = None if b is None else as_samples(b.read(rows), samples)
        part = similarity.hsic(x, y, kernel=kernel, bandwidth=bandwidth)
        parts.append(part.on_host())
        report(stop, total)
    matrix = functools.reduce(lambda p, q: p + q, parts).cka(a.names, (b or a).names)
    if len(parts) == 1:
        return matrix, np.full_like(matrix, np.nan), np.full_like(matrix, np.nan)
    return matrix, *similarity.bootstrap(parts)
