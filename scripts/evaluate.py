"""Evaluate a trained model: accuracy, precision, recall and F1, per class and in all."""

import csv
import json
import pathlib
from typing import Annotated, Literal

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Formats, Side
from vitjax.pretrained import UNSTATED, Stated


def main(
    run: Annotated[Positional[str], arg(metavar='RUN_OR_WEIGHTS')], data: str | None = None,
    split: Literal['train', 'validation', 'test'] = 'test',
    which: Literal['best', 'latest'] = 'best', out: str | None = None, model: str | None = None,
    size: Side | None = None, format: Formats = ('png',),
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Print accuracy, top-5, mean precision, recall and F1 of a trained model; write them.

    Means are over the classes that have an image or a prediction, each with the same weight.

    Writes evaluation.json, evaluation.csv (per class) and a figure, figures/confusion.

    Args:
        run: a run directory, or published weights (.safetensors, .npz or hf-hub:owner/name).
        data: digits, tfds:NAME or folder:PATH, of the classes that the model knows; by default what
            the run was trained on.
        split: of the data.
        which: of a run's checkpoints.
        out: directory to write to; the run itself without it, and of weights nothing is written.
        model: the model's name where weights do not say it, as in deit_tiny_patch16.
        size: side in pixels of what the model sees; its own without it.
        format: of the figure.
        stated: facts about weights that override the files beside them.
    """
    import sklearn.metrics

    from vitjax import evaluate, pretrained, runs
    from vitjax.base import files
    from vitjax.base.console import Console
    from vitjax.data import kinds
    from vitjax.figures import training as figures
    from vitjax.runs import provenance

    loaded = runs.load(run, which=which, model=model, image_size=size, stated=stated)
    experiment, params, _ = loaded
    own = pathlib.Path(run).is_dir() and not pretrained.is_folder(run)
    source = kinds.Source(data) if data else experiment.data if own else None
    if source is None:
        raise ValueError(f'{run} was not trained here: say which images with --data.')
    if not experiment.classes:
        raise ValueError(f'{run} knows no classes to be evaluated on.')
    held = kinds.load(source, split, experiment.preprocessing)
    evaluate.require_same_classes(held, experiment.classes)
    if held.classes != experiment.classes:
        print(f'classes are taken in order: {held.classes[0]} is {experiment.classes[0]}, ...')
    batch, prepared, console = experiment.batch_size, experiment.preprocessing, Console()
    console.say(command.described(experiment.model, prepared.size))
    images = f'{split} ({held.part})' if held.part else split
    console.say(f'{source.name}, {images}: {len(held):,} images, {len(held.classes)} classes')
    if more := evaluate.surplus(experiment.model, experiment.classes):
        console.say(more)
    if own and source == experiment.data:
        if changed := provenance.remark(run, provenance.with_others(source, {split: held})):
            console.say(changed)
    elif own and provenance.remark(run, {split: held}):
        console.say(f'{source.name} has other {split} images than {run} was trained with')
    with console.progress('images', len(held), now='compiling') as report:
        logits = evaluate.predict(experiment.model, params, held, prepared, batch, report=report)
    evaluate.require_finite(logits)
    predicted = logits.argmax(1)
    outputs = range(logits.shape[1])
    scored = evaluate.by_class(held.labels, predicted, len(outputs))
    matrix = sklearn.metrics.confusion_matrix(held.labels, predicted, labels=outputs)
    matrix = matrix[: len(held.classes), : len(held.classes)]
    values = {
        **evaluate.scores(logits, held.labels), **scored.means(), 'examples': len(held),
        'data': source.name, 'split': split, 'checkpoint': which,
    }  # fmt: skip
    print(f'{run}, {images} of {source.name}')
    for name in ('accuracy', 'top5', 'precision', 'recall', 'f1'):
        if name != 'top5' or len(held.classes) > 5:  # else it is all of them
            print(f'  {name:<9} {values[name]:.2%}')
    print(f'  {"loss":<9} {values["loss"]:.4f}')
    if out is None and not own:
        return print('nothing is written without --out')
    folder = pathlib.Path(run if out is None else out)
    folder.mkdir(parents=True, exist_ok=True)
    files.inside(folder, 'figures').mkdir(exist_ok=True)
    files.replace(files.inside(folder, 'evaluation.json'), json.dumps(values, indent=1) + '\n')
    path = files.inside(folder, 'evaluation.csv')
    with files.writing(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['split', 'class', 'precision', 'recall', 'f1', 'examples'])
        for i, name in enumerate(held.classes):
            shares = scored.precision[i], scored.recall[i], scored.f1[i]
            writer.writerow([split, name, *(f'{v:.4f}' for v in shares), scored.support[i]])
    names = [f'confusion.{kind}' for kind in format]
    for name in names:
        runs.save_figure(figures.confusion(matrix, held.classes), folder, name)
    figured = ', '.join(f'figures/{name}' for name in names)
    print(f'written: evaluation.json, evaluation.csv and {figured} in {folder}')


if __name__ == '__main__':
    command.run(main)
