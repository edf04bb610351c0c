"""Compare representations: every layer with every layer, or read classes off every layer."""

import csv
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import command
from tyro.conf import Positional, arg

Metric = Literal[
    'cka', 'rbf', 'cca', 'svcca', 'pwcca', 'procrustes', 'angle', 'rsa', 'knn'
]  # fmt: skip


def main(
    a: Annotated[Positional[str], arg(metavar='A')],
    b: Annotated[Positional[str | None], arg(metavar='[B]')] = None,
    *,
    out: str | None = None,
    metrics: tuple[Metric, ...] = ('cka',),
    probe: bool = False,
    data: str | None = None,
    split: Literal['train', 'validation', 'test'] = 'test',
    examples: int | None = None,
    train_examples: int | None = None,
    keep: str | None = None,
    tokens: Literal['class', 'mean', 'patches', 'all'] | None = None,
    samples: Literal['image', 'token'] = 'image',
    size: tuple[int, ...] = (),
    square: int = 256,
    model: str | None = None,
    bandwidth: float = 1.0,
    k: int | None = None,
    batch_size: int = 64,
) -> None:
    """Write each metric's matrix, layers of A x layers of B: .npz, .csv and a heat map.

    A and B are captures (scripts/capture.py), run directories, published weights, or .npy files of
    [examples, features]; without B, A with itself. Runs and weights are run on the spot, and
    nothing is written but the result.

    cka and rbf (CKA with a Gaussian kernel) stream over batches, with 95% intervals over them. cca,
    svcca, pwcca, procrustes, angle (of procrustes), rsa and knn (mutual nearest neighbours) hold
    all examples in memory.

    With --probe: the accuracy of k-NN, ridge and a linear probe at every layer, fitted on the train
    split and tested on another; of captures, fitted on A and tested on B.

    Args:
        a: what to compare.
        b: with what.
        out: where to write; `similarity` inside A where A is a directory.
        metrics: which.
        probe: read classes off every layer, instead.
        data: of runs and weights: digits, tfds:NAME, folder:PATH (with a folder for each class), or
            the path of a folder of images; a run has its own.
        split: of the data; a plain folder has one.
        examples: only so many, evenly spread over the split; all without it.
        train_examples: the same of what probes are fitted on.
        keep: regular expression over paths ('blocks|embed'); without it a capture's all, of runs
            and weights the blocks.
        tokens: of runs and weights: the class token, the mean over the patches, all patches, or all
            tokens; without it the class token where the model has one, else the mean.
        samples: whether the tokens of an image are one flat vector, or each is a sample.
        size: side in pixels of A's images and, where two are given, of B's; what each was made for
            without it. Positions are resampled.
        square: side in pixels that files of unequal sizes are cut and resized to beforehand.
        model: the model's name where weights do not say it, as in deit_small_patch16.
        bandwidth: of rbf, as a share of the median distance.
        k: nearest neighbours of knn (10) and of the k-NN probe (20).
        batch_size: examples at a time, and in a Gram matrix of cka and rbf.
    """
    from vitjax import activations

    def side(path: str, split: str, size: int | None) -> Any:
        if path.endswith('.npy'):
            return activations.from_array(path)
        if not activations.is_capture(path):
            return activations.of_path(
                path, data=data, split=split, size=size, square=square, keep=keep, model=model,
                tokens=tokens, batch_size=batch_size,
            )  # fmt: skip
        found = activations.read(path)
        if tokens not in (None, found.about['tokens']):
            raise ValueError(f'{path} has the tokens {found.about["tokens"]}, not {tokens}.')
        return activations.select(found, keep) if keep else found

    if len(size) > 2:
        raise ValueError(f'size is of A and of B, two at most: {size}.')
    directory = _directory(a, out)
    a_size, b_size = (*size, None, None)[:2]
    if probe:
        captured = activations.is_capture(a)
        if captured and b is None:
            raise ValueError('a probe of captures needs two: fitted on A, tested on B.')
        if not captured and b is not None:
            raise ValueError('a probe of a run or weights needs no B: it has the data of both.')
        fitted = activations.evenly(side(a, 'train', a_size), train_examples)
        tested = activations.evenly(side(b or a, split, a_size), examples)
        _probe(fitted, tested, directory, samples, 20 if k is None else k)
        return
    x = activations.evenly(side(a, split, a_size), examples)
    y = None if b is None else activations.evenly(side(b, split, b_size), examples)
    if y is not None and (activations.is_capture(a) or activations.is_capture(b or '')):
        activations.require_same_examples(x, y)
    compare = _measures(x, y, samples, bandwidth, 10 if k is None else k, batch_size)
    for metric in metrics:
        _write_matrix(metric, compare[metric](), x, y or x, directory, samples, batch_size)
    print(f'written to {directory}')


def _directory(a: str, out: str | None) -> pathlib.Path:
    if not a.startswith('hf-hub:') and not pathlib.Path(a).exists():
        raise ValueError(f'there is no {a}.')
    if out is None and not pathlib.Path(a).is_dir():
        raise ValueError(f'say where to write with --out: {a} is no directory.')
    return pathlib.Path(out) if out else pathlib.Path(a) / 'similarity'


def _measures(
    x: Any, y: Any, samples: str, bandwidth: float, k: int, batch_size: int
) -> dict[str, Callable[[], Any]]:
    """What computes each metric: a matrix, and its interval where it has one."""
    import functools

    import rich.progress

    from vitjax import activations
    from vitjax.analysis import similarity

    def streamed(kernel: str) -> Any:
        columns = rich.progress.Progress.get_default_columns()
        with rich.progress.Progress(
            *columns, rich.progress.MofNCompleteColumn(), disable=not sys.stdout.isatty()
        ) as bar:
            task = bar.add_task('examples', total=x.examples)
            return activations.cka(
                x, y, batch_size=batch_size, samples=samples, kernel=kernel, bandwidth=bandwidth,
                report=lambda done, _: bar.update(task, completed=done),
            )  # fmt: skip

    @functools.cache
    def stacks() -> tuple[Any, Any]:
        whole = activations.whole(x, samples)
        return whole, None if y is None else activations.whole(y, samples)

    def at_once(measure: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: (measure(*stacks()), None, None)

    return {
        'cka': lambda: streamed('linear'),
        'rbf': lambda: streamed('rbf'),
        'cca': at_once(similarity.cca),
        'svcca': at_once(similarity.svcca),
        'pwcca': at_once(similarity.pwcca),
        'procrustes': at_once(similarity.procrustes),
        'angle': at_once(similarity.procrustes_angle),
        'rsa': at_once(similarity.rsa),
        'knn': at_once(functools.partial(similarity.mutual_knn, k=k)),
    }


SCALES: dict[str, tuple[str, float]] = {  # what a metric is called, and where its colours end
    'cka': ('CKA', 1.0),
    'rbf': ('CKA, Gaussian kernel', 1.0),
    'cca': ('mean canonical correlation', 1.0),
    'svcca': ('SVCCA', 1.0),
    'pwcca': ('PWCCA', 1.0),
    'procrustes': ('Procrustes distance', 2**0.5),
    'angle': ('Procrustes angle (radians)', 1.5708),
    'rsa': ('RSA, Spearman', 1.0),
    'knn': ('mutual nearest neighbours', 1.0),
}


def _write_matrix(
    metric: str,
    result: tuple[Any, Any, Any],
    x: Any,
    y: Any,
    out: pathlib.Path,
    samples: str,
    batch_size: int,
) -> None:
    import numpy as np

    from vitjax.figures import similarity as figures

    matrix, low, high = result
    policy = _policy(x, y, samples)
    out.mkdir(parents=True, exist_ok=True)
    values = {metric: matrix, 'x': x.names, 'y': y.names, 'policy': policy}
    if low is not None:
        values |= {'low': low, 'high': high, 'batch_size': batch_size}
    np.savez(
        out / f'{metric}.npz', **values, about_x=json.dumps(x.about), about_y=json.dumps(y.about)
    )
    with (out / f'{metric}.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([f'{metric} ({policy})', *y.names])
        for name, row in zip(x.names, matrix, strict=True):
            writer.writerow([name, *(f'{value:.6f}' for value in row)])
    label, most = SCALES[metric]
    title = policy
    if low is not None and np.isfinite(low).all():
        title += f'\n95% interval over batches of {batch_size}: '
        title += f'±{np.abs(np.subtract(high, low)).max() / 2:.3f} at most'
    figure = figures.heat_map(
        matrix, x.names, y.names, measure=label, x_label=_label(x), y_label=_label(y), title=title,
        span=(min(0.0, float(matrix.min())), most),
    )  # fmt: skip
    figure.savefig(out / f'{metric}.png', dpi=150)
    print(f'{label}: {len(x.names)} x {len(y.names)} layers, {title.replace(chr(10), ", ")}')
    print(f'  {matrix.min():.4f} to {matrix.max():.4f}; last with last {matrix[-1, -1]:.4f}')


def _probe(fitted: Any, tested: Any, out: pathlib.Path, samples: str, k: int) -> None:
    import numpy as np

    from vitjax import activations
    from vitjax.analysis import probe
    from vitjax.figures import similarity as figures

    for found in (fitted, tested):
        if found.labels is None or found.labels.min() < 0:
            raise ValueError(f'a probe needs classes: {_label(found)} has none.')
    if samples != 'image':
        raise ValueError('a probe has one label for an image: samples must be image.')
    if fitted.names != tested.names or fitted.about['classes'] != tested.about['classes']:
        raise ValueError('a probe must be tested on the layers and classes that it was fitted on.')
    if fitted.about['weights'] != tested.about['weights']:
        raise ValueError('a probe must be tested on the model that it was fitted on: another.')
    k = min(k, fitted.examples)
    accuracy: dict[str, list[float]] = {f'k-NN (k = {k})': [], 'ridge': [], 'linear': []}
    measures = (lambda *x: probe.knn(*x, k=k), probe.ridge, probe.linear)
    train, test = (activations.whole(found, samples) for found in (fitted, tested))
    for one, other in zip(train, test, strict=True):
        for values, measure in zip(accuracy.values(), measures, strict=True):
            values += list(measure(one, fitted.labels, other, tested.labels))
    interval = {name: probe.wilson(values, tested.examples) for name, values in accuracy.items()}
    tokens = fitted.about['tokens']
    policy = f'tokens: {tokens}; {fitted.examples:,} images to fit, {tested.examples:,} to test'
    out.mkdir(parents=True, exist_ok=True)
    table = np.array(list(accuracy.values()))
    np.savez(
        out / 'probe.npz', accuracy=table, probes=list(accuracy), layers=fitted.names,
        low=[v[0] for v in interval.values()], high=[v[1] for v in interval.values()],
        policy=policy, about_fitted=json.dumps(fitted.about), about_tested=json.dumps(tested.about),
    )  # fmt: skip
    with (out / 'probe.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([f'accuracy ({policy})', *accuracy])
        for name, row in zip(fitted.names, table.T, strict=True):
            writer.writerow([name, *(f'{value:.4f}' for value in row)])
    curves = {name: np.array(values) for name, values in accuracy.items()}
    figure = figures.probe_accuracy(
        fitted.names, curves, interval, title=f'{_label(fitted)}, {policy}'
    )
    figure.savefig(out / 'probe.png', dpi=150)
    width = max(map(len, fitted.names))
    print(f'{policy}; 95% intervals in {out / "probe.npz"}')
    print(' ' * width, *(f'{name:>14}' for name in accuracy))
    for name, row in zip(fitted.names, table.T, strict=True):
        print(f'{name:<{width}}', *(f'{value:>14.2%}' for value in row))
    print(f'written to {out}')


def _label(found: Any) -> str:
    """What a representation is called in a figure."""
    about = found.about
    name = pathlib.Path(about.get('source') or about['file'])
    return name.stem if name.suffix else name.name


def _policy(x: Any, y: Any, samples: str) -> str:
    """What of the tokens was compared, on what: stands in every result."""
    tokens = list(dict.fromkeys(found.about['tokens'] for found in (x, y)))
    out = f'tokens: {" / ".join(tokens)}; '
    if samples == 'token':
        out += 'each a sample; '
    elif set(tokens) & {'patches', 'all'}:
        out += 'flattened; '
    return out + f'{x.examples:,} {"examples" if "as given" in tokens else "images"}'


if __name__ == '__main__':
    command.run(main)
