"""Compare representations: every layer with every layer, or read classes off every layer."""

import functools
import pathlib
from typing import Annotated, Any, Literal

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Count, Formats, Pattern, Positive, Range, Side
from vitjax.pretrained import UNSTATED, Stated

Metric = Literal['cka', 'rbf', 'cca', 'svcca', 'pwcca', 'procrustes', 'angle', 'rsa', 'knn']


def main(
    a: Annotated[Positional[str], arg(metavar='A')],
    b: Annotated[Positional[str | None], arg(metavar='[B]')] = None, *, out: str | None = None,
    metrics: Annotated[tuple[Metric, ...], Range(1)] = ('cka',), probe: bool = False,
    data: str | None = None, split: Literal['train', 'validation', 'test'] = 'test',
    examples: Count | None = None, train_examples: Count | None = None, keep: Pattern | None = None,
    tokens: Literal['class', 'mean', 'patches', 'all'] | None = None,
    layers: tuple[Count, Count] | None = None, samples: Literal['image', 'token'] = 'image',
    size: Annotated[tuple[Side, ...], Range(0, 2)] = (), square: Side = 256,
    model: str | None = None, bandwidth: Positive = 1.0, k: Count | None = None,
    batch_size: Count = 64, unchecked: bool = False,
    format: Formats = ('png',),
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
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
        a: a capture, a run, weights or a .npy file.
        b: the same; A itself without it.
        out: where to write; `similarity` inside A where A is a directory.
        metrics: which to compute.
        probe: read classes off every layer, instead.
        data: of runs and weights: digits, tfds:NAME, folder:PATH (with a folder for each class), or
            the path of a folder of images; a run has its own.
        split: which split of the data; a plain folder has one.
        examples: only so many, evenly spread over the split; all without it.
        train_examples: the same of what probes are fitted on.
        keep: regular expression over paths ('blocks|embed'), which `capture.py A --paths` lists;
            without it a capture's all, of runs and weights the blocks.
        tokens: of runs and weights: the class token, the mean over the patches, all patches, or all
            tokens; without it the class token where the model has one, else the mean.
        layers: of runs and weights: first and last of each stack, from 1, which alone are captured;
            all without it.
        samples: whether the tokens of an image are one flat vector, or each is a sample.
        size: side in pixels of A's images and, where two are given, of B's; what each was made for
            without it. Positions are resampled.
        square: side in pixels of the squares by which captures recognise image files; the model's
            input is made from the file itself.
        model: the model's name where weights do not say it, as in deit_small_patch16.
        bandwidth: of rbf, as a share of the median distance.
        k: nearest neighbours of knn (10) and of the k-NN probe (20).
        batch_size: examples at a time, and in a Gram matrix of cka and rbf.
        unchecked: read captures without holding what is read against its digests.
        format: of figures.
        stated: facts about weights that override the files beside them.
    """
    from vitjax import activations
    from vitjax.base.console import Console

    if not a.startswith('hf-hub:') and not pathlib.Path(a).exists():
        raise ValueError(f'there is no {a}.')
    if out is None and not pathlib.Path(a).is_dir():
        raise ValueError(f'say where to write with --out: {a} is no directory.')
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
            values, (label, _) = matrix.values, activations.METRICS[matrix.metric]
            title = matrix.title.replace('\n', ', ')
            console.say(f'{label}: {len(matrix.x)} x {len(matrix.y)} layers, {title}')
            low, high, last = values.min(), values.max(), values[-1, -1]
            console.say(f'  {low:.4f} to {high:.4f}; last with last {last:.4f}')
    print(f'written to {directory}')


def say(console: Any, *sides: Any) -> None:
    """Says what is compared."""
    from vitjax.base.labels import labels

    for name, side in zip(labels([side.source for side in sides]), sides, strict=True):
        of = ', '.join(str(side.about[key]) for key in ('data', 'split') if key in side.about)
        where = f' of {of}' if of else ''
        console.say(f'{name}: {len(side.names)} layers, {side.examples:,} examples{where}')


if __name__ == '__main__':
    command.run(main)
