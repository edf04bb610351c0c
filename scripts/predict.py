"""Classify image files with published weights or a run of our own."""

import functools
import pathlib
import sys
from typing import Annotated, Literal

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Count, Range, Side
from vitjax.pretrained import UNSTATED, Stated


def main(
    weights: Annotated[Positional[str], arg(metavar='RUN_OR_WEIGHTS')],
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
        weights: a run directory, a .safetensors or .npz file, a folder with model.safetensors and
            config.json, or hf-hub:owner/name.
        images: image files.
        top: how many classes to print.
        model: the model's name where weights do not say it, as in deit_tiny_patch16.
        image_size: side of the input in pixels; the weights' own without it.
        which: of a run's checkpoints, best or latest.
        stated: facts about weights that override the files beside them.
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
        except evaluate.Unreadable as error:  # the others are predicted
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
