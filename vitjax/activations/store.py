"""Captures on disk: memory maps with an index, and a digest of every example.

A capture is a directory. It holds a `.npy` of `[layers, examples, ...]` for each path,
`labels.npy`, `examples.npy` (a hash of every image, in order), `digests.npy` (a hash of each file's
values of each example) and `index.json`, which describes them. It is written batch by batch, and
resumed after a kill; damaged examples are captured again. Reading checks each example when it is
read: nothing is read twice, and nothing ahead.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from vitjax import runs
from vitjax.activations.record import Activations, Stack, digests
from vitjax.base import files, npy
from vitjax.base.console import Progress, silent
from vitjax.base.types import Array

INDEX, LABELS, EXAMPLES, DIGESTS = 'index.json', 'labels.npy', 'examples.npy', 'digests.npy'
Index: TypeAlias = dict[str, Any]  # content of index.json
Kinds: TypeAlias = dict[str, tuple[tuple[int, ...], Any]]  # shape and dtype of each file


def write(
    activations: Activations, out: str | pathlib.Path, *, dtype: str = 'float32',
    batch_size: int = 64, report: Progress = silent,
) -> None:  # fmt: skip
    """Writes a capture, or resumes one that was stopped.

    Disk space is checked before the first byte and allocated at once. Examples that are there are
    checked, also those of a finished capture. Damaged ones are captured again, with a line on
    stderr.

    Args:
        activations: activations of a model.
        out: a directory: new, empty, or with an unfinished capture of the same.
        dtype: float32 or float16.
        batch_size: examples between two updates of the index.
        report: called with the examples done and their total, after every batch.

    Raises:
        ValueError: if the activations are of an array; if `out` holds something else, with the
            differences; if another process writes there; if the disk is too small, with both sizes;
            if activations are not finite, or too large for float16, by layer.
    """
    if dtype not in ('float32', 'float16'):
        raise ValueError(f"dtype must be 'float32' or 'float16': {dtype!r}.")
    out, total, labels = pathlib.Path(out), activations.examples, activations.labels
    if labels is None or activations.hashes is None:
        raise ValueError(
            f'a capture needs images and their classes: {activations.source} has none.'
        )
    stacks = [dataclasses.asdict(s) | {'file': s.file} for s in activations.stacks]
    index = {**activations.about, 'examples': total, 'dtype': dtype, 'stacks': stacks}
    index |= {'labels': _digest(labels), 'done': 0}
    index = json.loads(json.dumps(index))  # as it will be read again: tuples are lists
    kinds = _kinds(activations.stacks, total, dtype)
    if files.is_empty(out):
        _require_space(kinds, out)
        out.mkdir(parents=True, exist_ok=True)
    with runs.lock(out, 'capturing'):
        wrong = _wrong(out, index, kinds)
        with files.writing(files.inside(out, LABELS)) as file:
            np.save(file, labels)
        if wrong.any() or 'order' not in index:
            _write(activations, activations.hashes, out, index, wrong, batch_size, report)


def _write(
    activations: Activations, hashes: Callable[[np.ndarray], np.ndarray], out: pathlib.Path,
    index: Index, wrong: np.ndarray, batch_size: int, report: Progress,
) -> None:  # fmt: skip
    """Writes the batches with missing or damaged examples [N]."""
    total = index['examples']
    maps = [np.load(out / s.file, mmap_mode='r+') for s in activations.stacks]
    images, checks = (np.load(out / name, mmap_mode='r+') for name in (EXAMPLES, DIGESTS))
    for start in range(0, total, batch_size):
        rows = np.arange(start, min(start + batch_size, total))
        if not wrong[rows].any():
            continue
        images[rows] = known = hashes(rows)
        values = map(np.asarray, activations.values(rows))
        stacks = zip(activations.stacks, maps, values, strict=True)
        for i, (stack, file, value) in enumerate(stacks):
            with np.errstate(over='ignore'):  # `_require_finite` names the layer
                written = value.astype(file.dtype)
            _require_finite(stack, value, written)
            file[:, rows] = written
            checks[i, rows] = _of_examples(written, known)
        for file in (*maps, images, checks):
            file.flush()
        index['done'] = max(index['done'], int(rows[-1]) + 1)
        files.write_json(out / INDEX, index)
        report(index['done'], total)
    files.write_json(out / INDEX, index | digests(images))


def read(directory: str | pathlib.Path, *, checked: bool = True) -> Activations:
    """The activations of a capture, as memory maps.

    Args:
        directory: the capture.
        checked: checks each example that is read against its digest. Captures of earlier versions
            have none.

    Raises:
        ValueError: if it is not a capture, not finished, or damaged; also later, when damaged
            examples are read.
    """
    directory = pathlib.Path(directory)
    index = _read_index(directory)
    try:
        total, dtype = int(index['examples']), index['dtype']
        stacks = tuple(map(_stack, index['stacks']))
        kinds = _kinds(stacks, total, dtype)
        if index['done'] < total or 'order' not in index:
            raise ValueError(
                f'{directory} is not finished: {index["done"]} of {total} examples; the command '
                'that began it resumes it.'
            )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f'{directory / INDEX} is no index of a capture: {error!r}.') from None
    if 'labels' not in index:  # written by an earlier version
        checked, _ = False, kinds.pop(DIGESTS)
    maps = {name: npy.array(files.inside(directory, name), *kind) for name, kind in kinds.items()}
    labels = np.array(npy.array(files.inside(directory, LABELS), (total,)))
    hashes = maps[EXAMPLES]
    if digests(hashes)['order'] != index['order']:
        raise ValueError(_changed(directory / EXAMPLES))
    if index.get('labels', _digest(labels)) != _digest(labels):
        raise ValueError(_changed(directory / LABELS))

    def values(rows: np.ndarray) -> list[Array]:
        found = [np.asarray(maps[stack.file][:, rows]) for stack in stacks]
        for i, value in enumerate(found if checked else ()):
            if (_of_examples(value, hashes[rows]) != maps[DIGESTS][i, rows]).any():
                raise ValueError(_changed(directory / stacks[i].file))
        return [*found]

    return Activations(stacks, total, values, lambda rows: hashes[rows], labels, index)


def _stack(known: dict[str, Any]) -> Stack:
    layers = known['layers'] and (known['layers'][0], known['layers'][1])
    return Stack(known['path'], tuple(known['shape']), layers)


def _changed(path: pathlib.Path) -> str:
    return f'{path} has changed since it was written; the command that captured it restores it.'


def is_capture(path: str | pathlib.Path) -> bool:
    """Returns True for the directory of a capture."""
    return (pathlib.Path(path) / INDEX).is_file()


def _kinds(stacks: tuple[Stack, ...], examples: int, dtype: str) -> Kinds:
    """Shape and dtype of every file except the labels."""
    kinds: Kinds = {s.file: ((s.shape[0], examples, *s.shape[1:]), dtype) for s in stacks}
    return kinds | {
        EXAMPLES: ((examples,), 'uint64'), DIGESTS: ((len(stacks), examples), 'uint64')
    }  # fmt: skip


def _of_examples(values: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Hashes [n] uint64 of the values [layers, n, ...] of n images with these hashes."""
    out = np.empty(len(hashes), np.uint64)
    for i, known in enumerate(np.asarray(hashes)):
        row = hashlib.sha256(np.ascontiguousarray(values[:, i]).data)
        row.update(known.tobytes())
        out[i] = int.from_bytes(row.digest()[:8], 'little')
    return out


def _digest(labels: np.ndarray) -> str:
    return hashlib.sha256(f'{labels.dtype}'.encode() + labels.tobytes()).hexdigest()


def _require_space(kinds: Kinds, out: pathlib.Path) -> None:
    needed = sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in kinds.values())
    needed += 2**16 * (len(kinds) + 2)
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ValueError(
            f'the capture takes {needed / 1e9:,.1f} GB, {there} has {free / 1e9:,.1f} GB free; '
            'fewer layers, fewer tokens or float16 take less.'
        )


def _allocate(path: pathlib.Path, shape: tuple[int, ...], kind: Any) -> None:
    path.unlink(missing_ok=True)  # left by a process that was killed while it allocated
    try:
        np.lib.format.open_memmap(path, 'w+', np.dtype(kind), shape).flush()
        if hasattr(os, 'posix_fallocate'):  # a full disk is an error now, not SIGBUS later
            with path.open('r+b') as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _wrong(out: pathlib.Path, index: Index, kinds: Kinds) -> np.ndarray:
    """True for examples [N] to capture: those not done, and damaged ones of the same capture.

    Creates files that are missing or truncated. Updates `index` with the progress on disk.
    """
    total, reasons = index['examples'], []
    if files.is_empty(out):
        files.write_json(files.inside(out, INDEX), index)
    elif _resume(out, index) and 'order' in index:  # finished by an earlier version
        return np.zeros(total, bool)
    for name, kind in kinds.items():
        path = files.inside(out, name)
        try:
            npy.array(path, *kind)
        except ValueError as error:
            reasons.append(str(error).removesuffix('.'))
            _allocate(path, *kind)
    maps = {name: npy.array(out / name, *kind) for name, kind in kinds.items()}
    wrong = np.arange(total) >= index['done']
    for start in range(0, index['done'], 1024):
        rows = slice(start, min(start + 1024, index['done']))
        for i, name in enumerate(name for name in kinds if name not in (EXAMPLES, DIGESTS)):
            found = _of_examples(maps[name][:, rows], maps[EXAMPLES][rows])
            bad = found != maps[DIGESTS][i, rows]
            wrong[rows] |= bad
            if bad.any() and not reasons:
                reasons.append(f'{out / name} has changed since it was written')
    if again := int(wrong[: index['done']].sum()):
        files.warn(f'{reasons[0]}; {again} of {index["done"]} examples are captured again')
    return wrong


def _resume(out: pathlib.Path, index: Index) -> bool:
    """Updates `index` with the progress of the same capture in `out`; True if it has no digests."""
    known = _read_index(out)
    new = {'labels'} - known.keys()  # an earlier version did not write it
    lines = [
        f'  {name}: {json.dumps(known.get(name))} -> {json.dumps(index.get(name))}'
        for name in sorted({*index, *known} - {'source', 'done', 'images', 'order', *new})
        if known.get(name) != index.get(name)
    ]
    if lines:
        different = '\n'.join(line if len(line) < 200 else line[:197] + '...' for line in lines)
        raise ValueError(
            f'{out} holds another capture (there -> asked); choose another --out:\n{different}'
        )
    index.update({k: known[k] for k in ('images', 'order', 'done') if k in known})
    return bool(new)


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
        return files.read_json(files.inside(directory, INDEX))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f'a capture has an {INDEX}: {directory} has none.') from None
