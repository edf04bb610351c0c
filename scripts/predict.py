"""Classify image files with published weights or a run of our own."""

import functools
import sys
from typing import Annotated, Literal

import command
from tyro.conf import Positional, arg

from vitjax.ranges import Count, Range, Side


def main(
    weights: Annotated[Positional[str], arg(metavar='RUN_OR_WEIGHTS')],
    images: Annotated[
        Positional[tuple[str, ...]], arg(metavar='PHOTO...', help_behavior_hint='(required)'),
        Range(1),
    ],
    top: Count = 5, model: str | None = None, image_size: Side | None = None,
    which: Literal['best', 'latest'] = 'best',
) -> None:  # fmt: skip
    """Print the likeliest classes of each image, with the preprocessing of the weights.

    Args:
        weights: a run directory, a .safetensors or .npz file, or hf-hub:owner/name.
        images: image files.
        top: how many classes to print.
        model: the model's name where weights do not say it, as in deit_tiny_patch16.
        image_size: side of the input in pixels; the weights' own without it.
        which: of a run's checkpoints, best or latest.
    """
    from vitjax import evaluate, runs
    from vitjax.data import preprocess
    from vitjax.experiment import preprocessing

    report = functools.partial(print, file=sys.stderr)
    loaded = runs.load(weights, model=model, image_size=image_size, which=which, report=report)
    if not vars(loaded.experiment.model)['num_classes']:
        raise ValueError(f'{weights} has no head, so there are no classes to predict.')
    for path in images:
        (likeliest,) = evaluate.classify(loaded, [path], top=top)
        if remark := preprocess.remark(path, preprocessing(loaded.experiment)):
            report(f'{path}: {remark}')
        print(path)
        for name, probability in likeliest:
            print(f'  {probability:7.2%}  {name}')
    if more := evaluate.surplus(loaded.experiment.model, loaded.experiment.classes):
        report(more)


if __name__ == '__main__':
    command.run(main)
