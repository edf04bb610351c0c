"""Identity of the data that a run trains on, of its initial weights and of its teacher.

Checkpoints record it, so that a run never resumes on other images than it began with.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitjax import pretrained, runs
from vitjax.base.files import first_line
from vitjax.base.types import PyTree
from vitjax.data import kinds
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source
from vitjax.data.splits import SPLITS
from vitjax.experiment import Experiment, require_data, to_json
from vitjax.runs import checkpoint

Path = str | pathlib.Path
Facts = dict[str, Any]
Load = Callable[..., Data]  # takes a source, a split and a preprocessing
SHOWN = 3  # class names in a message


def of_data(data: Data) -> Facts:
    """Identity of a split: number of images, and digests of class names, labels and examples."""
    classes, labels = json.dumps(data.classes).encode(), np.asarray(data.labels, '<i4').tobytes()
    return {
        'images': len(data), 'classes': _sha(classes), 'labels': _sha(labels),
        'digest': data.digest,
    }  # fmt: skip


def _splits(source: Source, prepared: Preprocessing | None, load: Load) -> dict[str, Data]:
    """Every split, read as a run reads it, so that `load` may return a cached one."""
    return {s: load(source, s, *(() if s == 'train' else (prepared,))) for s in SPLITS}


def of_weights(path: Path) -> str:
    """Digest of the parameters of a run or weights file, and of the preprocessing of a run.

    Raises:
        ValueError: if they cannot be read.
    """
    if pathlib.Path(path).is_dir():
        loaded = runs.load(path, report=lambda change: None)
        facts, arrays = to_json(loaded.experiment)['preprocessing'], loaded.params
    else:
        facts, arrays = None, pretrained.read(path)
    return digest(arrays, json.dumps(facts))[:32]


def digest(arrays: PyTree, facts: str = '', end: str = '') -> str:
    """SHA-256 of a tree of arrays: of their paths, dtypes, shapes and bytes.

    Args:
        arrays: the tree, as parameters.
        facts: text that is digested first.
        end: text after each array's path, dtype and shape; checkpoints and captures differ in it.
    """
    out = hashlib.sha256(facts.encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        leaf = np.ascontiguousarray(leaf)
        out.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}{end}'.encode())
        out.update(leaf.tobytes())
    return out.hexdigest()


def of_run(experiment: Experiment, load: Load) -> Facts:
    """Identity of data, weights and teacher of an experiment that is resolved against its data.

    Args:
        experiment: experiment with its preprocessing.
        load: reads a split of a source, as `data.kinds.load`.

    Raises:
        ValueError: as `load` and `of_weights` do.
    """
    read = _splits(require_data(experiment), experiment.preprocessing, load)
    paths = {'weights': experiment.weights, 'teacher': experiment.distill.teacher}
    others = {name: of_weights(path) for name, path in paths.items() if path is not None}
    return {'data': {split: of_data(data) for split, data in read.items()}, **others}


def recorded(run: Path) -> Facts | None:
    """Identity that the newest checkpoint of a run records; None if there is none."""
    found = checkpoint.position(run).get('origin')
    return found if isinstance(found, dict) else None


def differences(
    old: Facts, new: Facts, classes: tuple[Sequence[str], Sequence[str]] | None = None
) -> list[str]:
    """Differences between what a run was trained on and what is there now, a few words each.

    Args:
        old: identity that a checkpoint records.
        new: identity now; only its entries are compared.
        classes: names of the classes then and now, printed if they differ.
    """
    found = []
    for split, now in new.get('data', {}).items():
        then = old.get('data', {}).get(split)
        if then is None:
            continue
        kind = 'training' if split == 'train' else split
        changed = {name for name in now if then.get(name) != now[name]}
        if 'classes' in changed:
            found.append('class names' + (_names(*classes) if classes else ''))
        if 'images' in changed:
            found.append(f'{then["images"]:,} -> {now["images"]:,} {kind} images')
        elif 'labels' in changed:
            found.append(f'the labels of the {kind} images')
        elif changed == {'digest'} and now['digest'] and then.get('digest'):
            found.append(f'the {kind} images')
    for name, said in (('weights', 'the initial weights'), ('teacher', "the teacher's weights")):
        if name in old and name in new and old[name] != new[name]:
            found.append(said)
    return list(dict.fromkeys(found))


def require_same(
    run: Path, facts: Facts, classes: Sequence[str], report: Callable[[str], object]
) -> None:
    """Refuses to resume a run on other images or weights than it began with.

    Args:
        run: the run directory.
        facts: identity now, as `of_run` returns it.
        classes: names of the classes now.
        report: called with a line if an earlier version wrote the run and recorded no identity.

    Raises:
        ValueError: with the differences, and what to do.
    """
    if not checkpoint.steps(run):
        return
    old = recorded(run)
    if old is None:
        report(f'{run} does not record its data (an earlier version wrote it): not checked')
        return
    if found := differences(old, facts, (runs.read_experiment(run).classes, classes)):
        advice = 'Put the data back as they were to resume it, or choose another --out.'
        what = f'{run} was trained on other data (then -> now)'
        raise ValueError(f'{what}: {"; ".join(found)}.\n{advice}')


def remark(run: Path, read: Mapping[str, Data]) -> str:
    """A line on how splits differ from those that a run was trained on; empty if they do not.

    Args:
        run: a run directory, or weights, which record nothing.
        read: data by split.
    """
    if not (pathlib.Path(run).is_dir() and checkpoint.steps(run)):
        return ''
    old, now = recorded(run), {split: of_data(data) for split, data in read.items()}
    if not (old and read):
        return ''
    classes = runs.read_experiment(run).classes, next(iter(read.values())).classes
    found = '; '.join(differences(old, {'data': now}, classes))
    return f'the data of {run} changed since it was trained (then -> now): {found}' if found else ''


def with_others(source: Source, read: Mapping[str, Data]) -> dict[str, Data]:
    """Splits that were read and the others of their source, without decoding images of those."""
    unread = dataclasses.replace(source, memory=0)
    return {**{s: kinds.load(unread, s) for s in SPLITS if s not in read}, **read}


def remark_on(run: Path, experiment: Experiment, load: Load) -> str:
    """`remark` on every split of a finished run, read as `experiment` declares.

    Raises:
        ValueError: if `experiment` reads different data from another place.
    """
    known = runs.read_experiment(run)
    asked = require_data(experiment)
    try:
        said = remark(run, _splits(asked, known.preprocessing, load))
    except (ValueError, OSError) as error:
        said = f'the data of {run} cannot be compared with those of then: {first_line(error)}'
    if said and known.data != asked:
        raise ValueError(f'{said}; choose another --out.')
    return said


def _names(old: Sequence[str], new: Sequence[str]) -> str:
    """The class names that differ, as ` cat, dog -> cat, wolf`."""
    then, now = ([n for n in a if n not in b] for a, b in ((old, new), (new, old)))
    if not (then or now):
        return ' in another order'
    shown = [', '.join(names[:SHOWN]) + ', ...' * (len(names) > SHOWN) for names in (then, now)]
    return f' {shown[0] or "none"} -> {shown[1] or "none"}'


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
