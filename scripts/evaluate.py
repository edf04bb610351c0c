"""Evaluate a run: accuracy, precision and recall, per class and in all."""

import csv
import json
import pathlib
from typing import Annotated, Any, Literal

import command
from tyro.conf import Positional, arg


def main(
    run: Annotated[Positional[str], arg(metavar='RUN')],
    data: str | None = None,
    split: Literal['train', 'validation', 'test'] = 'test',
    which: Literal['best', 'latest'] = 'best',
) -> None:
    """Print accuracy, top-5, mean precision and recall of a run; write them into it.

    Writes evaluation.json, evaluation.csv (per class) and figures/confusion.png.

    Args:
        run: the run directory, of a training or of converted weights.
        data: digits, tfds:NAME or folder:PATH, of the classes that the run knows; without it, what
            the run was trained on.
        split: of the data.
        which: of the checkpoints.
    """
    import numpy as np
    import sklearn.metrics

    from vitjax import evaluate, files, runs
    from vitjax.data import sources
    from vitjax.figures import training as figures

    if pathlib.Path(run).is_file():
        raise ValueError(f'a run is a directory: {run}; scripts/convert.py makes one of weights.')
    experiment, params, _ = runs.load(run, which=which)
    source = sources.Source(data) if data else experiment.data
    if source is None:
        raise ValueError(f'{run} was not trained here: say which images with --data.')
    assert experiment.preprocessing is not None
    held = sources.load(source, split, experiment.preprocessing)
    evaluate.require_same_classes(held, experiment.classes)
    if held.classes != experiment.classes:
        print(f'classes are taken in order: {held.classes[0]} is {experiment.classes[0]}, ...')
    batch = experiment.batch_size
    logits = evaluate.predict(experiment.model, params, held, experiment.preprocessing, batch)
    evaluate.require_finite(logits)
    predicted = logits.argmax(1)
    classes = range(len(held.classes))
    zero: Any = 0  # the precision of a class that is never predicted
    score = sklearn.metrics.precision_recall_fscore_support
    per_class = np.array(score(held.labels, predicted, labels=classes, zero_division=zero))
    matrix = sklearn.metrics.confusion_matrix(held.labels, predicted, labels=classes)
    values = {
        **evaluate.scores(logits, held.labels), 'precision': float(per_class[0].mean()),
        'recall': float(per_class[1].mean()), 'examples': len(held), 'data': source.name,
        'split': split, 'checkpoint': which,
    }  # fmt: skip
    out = pathlib.Path(run)
    files.inside(out, 'figures').mkdir(exist_ok=True)
    files.replace(files.inside(out, 'evaluation.json'), json.dumps(values, indent=1) + '\n')
    with files.inside(out, 'evaluation.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['class', 'precision', 'recall', 'f1', 'examples'])
        for name, row in zip(held.classes, per_class.T, strict=True):
            writer.writerow([name, *(f'{v:.4f}' for v in row[:3]), int(row[3])])
    runs.save_figure(figures.confusion(matrix, held.classes), out, 'confusion.png')
    print(f'{run}, {source.name}, {split}, {len(held):,} images')
    for name in ('accuracy', 'top5', 'precision', 'recall'):
        print(f'  {name:<9} {values[name]:.2%}')
    print(f'  {"loss":<9} {values["loss"]:.4f}')
    print(f'written: evaluation.json, evaluation.csv and figures/confusion.png in {run}')


if __name__ == '__main__':
    command.run(main)
