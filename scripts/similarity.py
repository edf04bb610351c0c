"""Compare representations: every layer with every layer, or probes of every layer."""

import functools
import pathlib
from typing import Annotated, Any, Literal

import command
from command import arguments as args
from tyro.conf import Positional, arg

from vitjax.analysis.similarity import METRICS, find
from vitjax.base.ranges import Count, Formats, Pattern, Positive, Range, Side
from vitjax.pretrained import UNSTATED, Stated

METAVAR = f'{{{",".join(METRICS)},MODULE:FUNCTION}} [...]'


def main(
    a: Annotated[Positional[str], arg(metavar='A')],
    b: Annotated[Positional[str | None], arg(metavar='[B]')] = None, *, out: str | None = None,
    metrics: Annotated[tuple[str, ...], Range(1), arg(metavar=METAVAR)] = ('cka',),
    probe: bool = False, data: str | None = None, split: args.Split = 'test',
    examples: Count | None = None, train_examples: Count | None = None,
    keep: Pattern | None = None, tokens: args.Tokens = None, layers: args.Layers = None,
    samples: Literal['image', 'token'] = 'image',
    size: Annotated[tuple[Side, ...], Range(0, 2)] = (), square: Side = 256,
    model: str | None = None, bandwidth: Positive = 1.0, k: Count | None = None,
    batch_size: Count = 64, unchecked: bool = False, format: Formats = ('png',),
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Write each metric's matrix, layers of A x layers of B: .npz, .csv and a heat map.

    A and B are captures (scripts/capture.py), run directories, published weights, or .npy files
    of [examples, features]; without B, A is compared with itself. Runs and weights are captured in
    memory. --data, --tokens, --layers and --size apply to these alone.

    cka and rbf (CKA with a Gaussian kernel) stream over batches, with 95% intervals over them. cca,
    svcca, pwcca, procrustes, angle (of procrustes), rsa and knn (mutual nearest neighbors) hold all
    examples in memory.

    With --probe: the accuracy of k-NN, ridge and a linear probe at every layer, fitted on the train
    split and tested on another; of captures, fitted on A and tested on B.

    Args:
        a: capture, run, weights or .npy file.
        b: the same; by default A itself.
        out: folder to write, by default `similarity` inside A if A is a folder.
        metrics: metrics to compute; a user's own is a function MODULE:FUNCTION.
        data: digits, tfds:NAME, folder:PATH (a folder for each class) or the path of a folder of
            images, which is one split; by default the run's own.
        probe: probe every layer for the classes, in place of metrics.
        train_examples: number of examples that probes are fitted on; all by default.
        samples: one sample per image, its tokens flattened, or one per token.
        size: side in pixels of A's images and, as a second value, of B's; by default each model's
            own. Positions are resampled.
        bandwidth: bandwidth of rbf, as a fraction of the median distance.
        k: number of nearest neighbors of knn (10 by default) and of the k-NN probe (20).
        batch_size: examples per batch, and per Gram matrix of cka and rbf.
        unchecked: skip the digests of captures.
    """
    from vitjax import activations
    from vitjax.base.console import Console

    if not a.startswith('hf-hub:') and not pathlib.Path(a).exists():
        raise ValueError(f'there is no {a}.')
    if out is None and not pathlib.Path(a).is_dir():
        raise ValueError(f'--out must name a folder to write: {a} is not a folder itself.')
    for metric in metrics:
        find(metric)  # raises before anything is computed
    directory = pathlib.Path(out or f'{a}/similarity')
    a_size, b_size = (*size, None, None)[:2]
    open_side = functools.partial(
        activations.open_side, data=data, square=square, keep=keep, model=model, tokens=tokens,
        layers=layers, batch_size=batch_size, checked=not unchecked, stated=stated,
    )  # fmt: skip
    console = Console()
    if probe:
        captured = activations.is_capture(a)
        if captured and b is None:
            raise ValueError('a probe of captures needs two: fitted on A, tested on B.')
        if not captured and b is not None:
            raise ValueError('a probe of a run or weights needs no B: it has the data of both.')
        fitted = activations.subset(open_side(a, split='train', size=a_size), train_examples)
        tested = activations.subset(open_side(b or a, split=split, size=a_size), examples)
        say(console, fitted, tested)
        with console.progress('images', fitted.examples, now='compiling') as report:
            nearest = 20 if k is None else k
            found = activations.probes(fitted, tested, samples=samples, k=nearest, report=report)
        activations.write_probes(found, fitted, tested, directory, format)
        width = max(map(len, found.layers))
        print(f'{found.policy}; 95% intervals in {directory / "probe.npz"}')
        print(' ' * width, *(f'{name:>14}' for name in found.accuracy))
        for name, *row in zip(found.layers, *found.accuracy.values(), strict=True):
            print(f'{name:<{width}}', *(f'{value:>14.2%}' for value in row))
        print(f'written to {directory}')
        return
    x = activations.subset(open_side(a, split=split, size=a_size), examples)
    y = None if b is None else activations.subset(open_side(b, split=split, size=b_size), examples)
    if y is not None:
        activations.require_same_examples(x, y)
    say(console, *([x] if y is None else [x, y]))
    with console.progress('examples', x.examples, now='compiling') as report:
        found = activations.matrices(
            metrics, x, y, samples=samples, bandwidth=bandwidth, k=10 if k is None else k,
            batch_size=batch_size, report=report,
        )  # fmt: skip
        for matrix in found:
            activations.write_matrix(matrix, x, y or x, directory, format)
            values, title = matrix.values, matrix.title.replace('\n', ', ')
            console.say(f'{matrix.metric.title}: {len(matrix.x)} x {len(matrix.y)} layers, {title}')
            low, high, last = values.min(), values.max(), values[-1, -1]
            console.say(f'  {low:.4f} to {high:.4f}; last with last {last:.4f}')
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
