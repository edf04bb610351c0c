"""Classify image files with published weights or a trained run."""

import functools
import pathlib
import sys
from typing import Annotated, Literal

import command
from command import arguments as args
from tyro.conf import Positional, arg

from vitjax.base.ranges import Count, Range, Side
from vitjax.pretrained import UNSTATED, Stated


def main(
    weights: args.Loaded,
    images: Annotated[
        Positional[tuple[str, ...]], arg(metavar='PHOTO...', help_behavior_hint='(required)'),
        Range(1),
    ],
    top: Count = 5, model: str | None = None, image_size: Side | None = None,
    which: Literal['best', 'latest'] = 'best',
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> int:  # fmt: skip
    """Print the likeliest classes of each image, with the preprocessing of the weights.

    Args:
        images: image files.
        top: number of classes to print.
    """
    from vitjax import evaluate, runs
    from vitjax.data import preprocess
    from vitjax.experiment import preprocessing

    report = functools.partial(print, file=sys.stderr)
    loaded = runs.load(
        weights, model=model, image_size=image_size, stated=stated, which=which, report=report
    )
    if not loaded.experiment.model.num_classes:
        raise ValueError(f'{weights} has no head, so there are no classes to predict.')
    unread = 0
    for path in images:
        try:
            if pathlib.Path(path).is_dir():
                rule = 'is a folder: give its image files, as in'
                raise evaluate.Unreadable(f'{path} {rule} {pathlib.Path(path, "*.jpg")}.')
            (likeliest,) = evaluate.classify(loaded, [path], top=top)
        except evaluate.Unreadable as error:  # the other images are predicted
            unread += 1
            report(f'error: {error}')
            continue
        if remark := preprocess.remark(path, preprocessing(loaded.experiment)):
            report(f'{path}: {remark}')
        print(path)
        for name, probability in likeliest:
            print(f'  {probability:7.2%}  {name}')
    if more := evaluate.unnamed_outputs(loaded.experiment.model, loaded.experiment.classes):
        report(more)
    return 1 if unread else 0


if __name__ == '__main__':
    command.run(main)
