"""A capture on disk: memory maps with an index.

A capture is a directory: one `.npy` of `[layers, examples, ...]` for each path, `labels.npy`,
`examples.npy` (a hash of every image, in order), and `index.json`, which says what all of it is.
It is written batch by batch; one that was killed is resumed where it stopped.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any, TypeAlias

import numpy as np

from vitjax.activations.record import Activations, Report, Stack, digests, silent
from vitjax.types import Array

INDEX = 'index.json'
Index: TypeAlias = dict[str, Any]  # what the file says


def write(
    activations: Activations, out: str | pathlib.Path, *, dtype: str = 'float32',
    batch_size: int = 64, report: Report = silent,
) -> None:  # fmt: skip
    """Writes a capture, or resumes one that was stopped.

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
        rows = np.arange(start, stop)
        hashes[start:stop] = activations.hashes(rows)
        values = map(np.asarray, activations.values(rows))
        for stack, file, value in zip(activations.stacks, maps, values, strict=True):
            with np.errstate(over='ignore'):  # looked for below
                file[:, start:stop] = value
            _require_finite(stack, value, file[:, start:stop])
        for file in (*maps, hashes):
            file.flush()
        index['done'] = stop
        _write_index(out, index)
        report(stop, total)
    if 'order' not in index:
        _write_index(out, index | digests(hashes))


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
            'command that began it resumes it.'
        )
    stacks = tuple(
        Stack(s['path'], tuple(s['shape']), tuple(s['layers']) if s['layers'] else None)
        for s in index['stacks']
    )
    maps = [np.load(directory / s.file, mmap_mode='r') for s in stacks]
    hashes = np.load(directory / 'examples.npy', mmap_mode='r')

    def values(rows: np.ndarray) -> list[Array]:
        return [np.asarray(file[:, rows]) for file in maps]

    labels = np.load(directory / 'labels.npy')
    return Activations(stacks, index['examples'], values, lambda rows: hashes[rows], labels, index)


def is_capture(path: str | pathlib.Path) -> bool:
    """Whether a path is a capture's directory."""
    return (pathlib.Path(path) / INDEX).is_file()


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


def _allocate(activations: Activations, out: pathlib.Path, dtype: str, index: Index) -> None:
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


def _resume(out: pathlib.Path, index: Index) -> int:
    """How many examples `out` has of the same capture."""
    known = _read_index(out)
    lines = [
        f'  {name}: {json.dumps(known.get(name))} -> {json.dumps(index.get(name))}'
        for name in sorted({*index, *known} - {'source', 'done', 'images', 'order'})
        if known.get(name) != index.get(name)
    ]
    if lines:
        different = '\n'.join(line if len(line) < 200 else line[:197] + '...' for line in lines)
        raise ValueError(
            f'{out} holds another capture (there -> asked); choose another --out:\n{different}'
        )
    index.update({k: known[k] for k in ('images', 'order') if k in known})
    return known['done']


def _require_finite(stack: Stack, value: np.ndarray, written: np.ndarray) -> None:
    if np.isfinite(written).all():
        return
    layer = next(i for i, part in enumerate(written) if not np.isfinite(part).all())
    name, most = stack.names[layer], np.abs(value[layer]).max()
    if not np.isfinite(most):
        raise ValueError(f'{name} has activations that are NaN or infinite.')
    raise ValueError(
        f'{name} does not fit float16: it reaches {most:.3g}, float16 65504; use float32.'
    )


def _read_index(directory: pathlib.Path) -> Index:
    try:
        return json.loads((directory / INDEX).read_text())
    except FileNotFoundError:
        raise ValueError(f'a capture has an {INDEX}: {directory} has none.') from None
    except json.JSONDecodeError as error:
        raise ValueError(f'{directory / INDEX} cannot be read: {error}.') from None


def _write_index(out: pathlib.Path, index: Index) -> None:
    draft = out / 'index.tmp'
    draft.write_text(json.dumps(index, indent=1) + '\n')
    draft.replace(out / INDEX)
