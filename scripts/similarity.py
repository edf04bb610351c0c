"""Compare representations: every layer with every layer, runs with runs, or probes of layers."""

import functools
import glob
import pathlib
from typing import Annotated, Any, Literal

import command
import numpy as np
from command import arguments as args
from tyro.conf import Positional, arg

from vitjax.analysis.similarity import METRICS, find
from vitjax.base.ranges import Count, Formats, Pattern, Positive, Range, Side
from vitjax.pretrained import UNSTATED, Stated

METAVAR = f'{{{",".join(METRICS)},MODULE:FUNCTION}} [...]'


def main(
    sides: Annotated[Positional[tuple[str, ...]], arg(metavar='A [B ...]'), Range(1)], *,
    out: str | None = None,
    metrics: Annotated[tuple[str, ...], Range(1), arg(metavar=METAVAR)] = ('cka',),
    probe: bool = False, data: str | None = None, split: args.Split = 'test',
    examples: Count | None = None, train_examples: Count | None = None,
    keep: Pattern | None = None, tokens: args.Tokens = None, layers: args.Layers = None,
    samples: Literal['image', 'token'] = 'image', size: tuple[Side, ...] = (), square: Side = 256,
    model: str | None = None, bandwidth: Positive = 1.0, k: Count | None = None,
    batch_size: Count = 64, unchecked: bool = False, format: Formats = ('png',),
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Write each metric's matrix: .npz, .csv and a heat map.

    One or two sides: layers of A x layers of B; without B, A is compared with itself. Three or
    more, as in 'cells/*/seed_0': runs x runs at each layer. Layers of models of unequal depth are
    matched by relative depth. Arrays and table have all layers, METRIC.png the last one and
    METRIC_mean.png their mean.

    A side is a capture (scripts/capture.py), a run directory, published weights, or an .npy, .npz
    or .h5 file of features: floats of [examples, features], [layers, examples, features] or
    [layers, examples, tokens, features], under any keys; the keys labels, classes and names (of the
    layers) are optional. Runs and weights are captured in memory. --data, --keep, --tokens,
    --layers and --size apply to these alone.

    cka and rbf (CKA with a Gaussian kernel) stream over batches, with 95% intervals over them. cca,
    svcca, pwcca, procrustes, angle (of procrustes), rsa and knn (mutual nearest neighbors) hold all
    examples in memory.

    With --probe: the accuracy of k-NN, ridge and a linear probe at every layer, fitted on the train
    split and tested on another; of captures and files with labels, fitted on A and tested on B.

    Args:
        sides: captures, runs, weights or files of features. (required)
        out: folder to write; by default similarity inside A, if A is a folder and there are no
            more than two sides.
        metrics: metrics to compute; a user's own is a function MODULE:FUNCTION.
        data: digits, tfds:NAME, folder:PATH (a folder for each class) or the path of a folder of
            images, which is one split; by default the run's own.
        probe: probe every layer for the classes, in place of metrics.
        train_examples: number of examples that probes are fitted on; all by default.
        samples: one sample per image, its tokens flattened, or one per token.
        size: side in pixels of A's images, of B's and so on; by default each model's own.
            Positions are resampled.
        bandwidth: bandwidth of rbf, as a fraction of the median distance.
        k: number of nearest neighbors of knn (10 by default) and of the k-NN probe (20).
        batch_size: examples per batch, and per Gram matrix of cka and rbf.
        unchecked: skip the digests of captures.
    """
    from vitjax import activations
    from vitjax.base.console import Console

    paths = [path for side in sides for path in expanded(side)]
    if out is None and (len(paths) > 2 or not pathlib.Path(paths[0]).is_dir()):
        reason = f'{paths[0]} is not a folder itself' if len(paths) < 3 else f'{len(paths)} sides'
        raise ValueError(f'--out must name a folder to write: {reason}.')
    if len(size) > len(paths):
        raise ValueError(f'--size has a value for each side: {len(size)} for {len(paths)}.')
    for metric in metrics:
        find(metric)  # raises before anything is computed
    directory, console = pathlib.Path(out or f'{paths[0]}/similarity'), Console()
    sizes = [*size, *[None] * len(paths)]
    open_side = functools.partial(
        activations.open_side, data=data, square=square, keep=keep, model=model, tokens=tokens,
        layers=layers, batch_size=batch_size, checked=not unchecked, stated=stated,
    )  # fmt: skip
    if probe:
        if activations.is_stored(paths[0]) != (len(paths) == 2):
            rule = 'a probe has two captures or files, fitted on A and tested on B, or one model'
            raise ValueError(f'{rule}: got {", ".join(paths)}.')
        fitted = activations.subset(
            open_side(paths[0], split='train', size=sizes[0]), train_examples
        )
        tested = activations.subset(open_side(paths[-1], split=split, size=sizes[0]), examples)
        say(console, fitted, tested)
        with console.progress('images', fitted.examples, now='compiling') as report:
            nearest = 20 if k is None else k
            found = activations.probes(fitted, tested, samples=samples, k=nearest, report=report)
        activations.write_probes(found, fitted, tested, directory, format)
        print_probes(found, directory)
        return
    opened = [
        activations.subset(open_side(path, split=split, size=side), examples)
        for path, side in zip(paths, sizes, strict=False)
    ]
    say(console, *opened)
    with console.progress('examples', opened[0].examples, now='compiling') as report:
        matrices = activations.matrices(
            metrics, *opened, samples=samples, bandwidth=bandwidth, k=10 if k is None else k,
            batch_size=batch_size, report=report,
        )  # fmt: skip
    for matrix in matrices:
        activations.write_matrix(matrix, opened, directory, format)
        print_matrix(matrix)
    print(f'written to {directory}')


def expanded(side: str) -> list[str]:
    """Paths of a side: itself, or those that a pattern matches.

    Raises:
        ValueError: if there is none.
    """
    if side.startswith('hf-hub:') or pathlib.Path(side).exists():
        return [side]
    if not (found := sorted(glob.glob(side))):
        raise ValueError(f'there is no {side}.')
    return found


def print_matrix(found: Any) -> None:
    """Prints the range of a metric."""
    shown = found.at(-1) if found.layers else found
    title = shown.title.replace('\n', ', ')
    kind = 'runs' if found.layers else 'layers'
    print(f'{found.metric.title}: {len(found.x)} x {len(found.y)} {kind}, {title}')
    if not found.layers:
        low, high, last = found.values.min(), found.values.max(), found.values[-1, -1]
        print(f'  {low:.4f} to {high:.4f}; last with last {last:.4f}')
        return
    others = ~np.eye(len(found.x), dtype=bool)
    pairs, layers = shown.values[others], found.values[:, others]
    print(f'  {pairs.min():.4f} to {pairs.max():.4f} between runs, mean {pairs.mean():.4f}')
    print(f'  mean of {len(layers)} layers: {layers.mean():.4f}')


def print_probes(found: Any, directory: pathlib.Path) -> None:
    """Prints the accuracies of probes as a table."""
    width = max(map(len, found.layers))
    print(f'{found.policy}; 95% intervals in {directory / "probe.npz"}')
    print(' ' * width, *(f'{name:>14}' for name in found.accuracy))
    for name, *row in zip(found.layers, *found.accuracy.values(), strict=True):
        print(f'{name:<{width}}', *(f'{value:>14.2%}' for value in row))
    print(f'written to {directory}')


def say(console: Any, *sides: Any) -> None:
    """Prints the sides of a comparison."""
    from vitjax.base.labels import labels

    for name, side in zip(labels([side.source for side in sides]), sides, strict=True):
        data = ', '.join(str(side.about[key]) for key in ('data', 'split') if key in side.about)
        examples = f'{side.examples:,} examples' + (f' of {data}' if data else '')
        console.say(f'{name}: {len(side.names)} layers, {examples}')


if __name__ == '__main__':
    command.run(main)
