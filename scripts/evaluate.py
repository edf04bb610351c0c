"""Evaluate a trained model: accuracy, precision, recall and F1, per class and overall."""

import csv
import json
import pathlib
from typing import Annotated, Literal

import command
from command import arguments as args
from tyro.conf import arg

from vitjax.base.ranges import Formats, Side
from vitjax.pretrained import UNSTATED, Stated


def main(
    weights: args.Loaded, data: str | None = None, split: args.Split = 'test',
    which: Literal['best', 'latest'] = 'best', out: str | None = None, model: str | None = None,
    size: Side | None = None, format: Formats = ('png',),
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Print accuracy, top-5, mean precision, recall and F1 of a trained model; write them.

    Means are over the classes that have an image or a prediction, with equal weights. The data must
    have the classes of the model.

    Writes evaluation.json, evaluation.csv (per class) and the figure figures/confusion.

    Args:
        out: folder to write, by default the run itself; of weights nothing is written without it.
    """
    import sklearn.metrics

    from vitjax import evaluate, pretrained, runs
    from vitjax.base import files
    from vitjax.base.console import Console
    from vitjax.data import kinds
    from vitjax.figures import training as figures
    from vitjax.runs import provenance

    loaded = runs.load(weights, which=which, model=model, image_size=size, stated=stated)
    experiment, params, _ = loaded
    own = pathlib.Path(weights).is_dir() and not pretrained.is_folder(weights)
    source = kinds.Source(data) if data else experiment.data if own else None
    if source is None:
        raise ValueError(f'--data must name images: {weights} was not trained here and has none.')
    if not experiment.classes:
        raise ValueError(f'the model must have classes to be evaluated on: {weights} has none.')
    held = kinds.load(source, split, experiment.preprocessing)
    evaluate.require_same_classes(held, experiment.classes)
    if held.classes != experiment.classes:
        print(f'classes are taken in order: {held.classes[0]} is {experiment.classes[0]}, ...')
    batch, prepared, console = experiment.batch_size, experiment.preprocessing, Console()
    console.say(command.described(experiment.model, prepared.size))
    images = f'{split} ({held.part})' if held.part else split
    console.say(f'{source.name}, {images}: {len(held):,} images, {len(held.classes)} classes')
    if more := evaluate.unnamed_outputs(experiment.model, experiment.classes):
        console.say(more)
    if own and source == experiment.data:
        if changed := provenance.remark(weights, provenance.with_others(source, {split: held})):
            console.say(changed)
    elif own and provenance.remark(weights, {split: held}):
        console.say(f'{source.name} has other {split} images than {weights} was trained with')
    with console.progress('images', len(held), now='compiling') as report:
        logits = evaluate.predict(experiment.model, params, held, prepared, batch, report=report)
    evaluate.require_finite(logits)
    predicted, outputs = logits.argmax(1), range(logits.shape[1])
    scored = evaluate.class_scores(held.labels, predicted, len(outputs))
    matrix = sklearn.metrics.confusion_matrix(held.labels, predicted, labels=outputs)
    matrix = matrix[: len(held.classes), : len(held.classes)]
    values = {
        **evaluate.scores(logits, held.labels), **scored.means(), 'examples': len(held),
        'data': source.name, 'split': split, 'checkpoint': which,
    }  # fmt: skip
    print(f'{weights}, {images} of {source.name}')
    for name in ('accuracy', 'top5', 'precision', 'recall', 'f1'):
        if name != 'top5' or len(held.classes) > 5:  # else it is always 100%
            print(f'  {name:<9} {values[name]:.2%}')
    print(f'  {"loss":<9} {values["loss"]:.4f}')
    if out is None and not own:
        return print('nothing is written without --out')
    folder = pathlib.Path(weights if out is None else out)
    files.inside(folder, 'figures').mkdir(parents=True, exist_ok=True)
    files.replace(files.inside(folder, 'evaluation.json'), json.dumps(values, indent=1) + '\n')
    with files.writing(files.inside(folder, 'evaluation.csv'), 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['split', 'class', 'precision', 'recall', 'f1', 'examples'])
        columns = (scored.precision, scored.recall, scored.f1, scored.support)
        for name, *scores, count in zip(held.classes, *columns, strict=False):  # spare outputs last
            writer.writerow([split, name, *(f'{v:.4f}' for v in scores), count])
    names = [f'confusion.{kind}' for kind in format]
    for name in names:
        runs.records.save_figure(figures.confusion(matrix, held.classes), folder, name)
    figured = ', '.join(f'figures/{name}' for name in names)
    print(f'written: evaluation.json, evaluation.csv and {figured} in {folder}')


if __name__ == '__main__':
    command.run(main)
