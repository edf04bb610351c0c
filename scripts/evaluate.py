"""Evaluate a run: accuracy, precision and recall, per class and in all."""

import csv
import json
import pathlib
from typing import Any

import command
from tyro.conf import Positional


def main(run: Positional[str], split: str = 'test', which: str = 'best') -> None:
    """Print accuracy, top-5, mean precision and recall of a run; write them into it.

    Writes evaluation.json, evaluation.csv (per class) and figures/confusion.png.

    Args:
        run: the run directory.
        split: test, validation or train.
        which: of the checkpoints, best or latest.
    """
    import numpy as np
    import sklearn.metrics

    from vitjax import checkpoint, evaluate
    from vitjax.data import sources
    from vitjax.figures import training as figures

    experiment, params = checkpoint.load(run, which)
    data = sources.load(experiment.data, split)
    batch = experiment.batch_size
    logits = evaluate.predict(experiment.model, params, data, experiment.preprocessing, batch)
    predicted = logits.argmax(1)
    classes = range(len(data.classes))
    zero: Any = 0  # the precision of a class that is never predicted
    per_class = np.array(
        sklearn.metrics.precision_recall_fscore_support(
            data.labels, predicted, labels=classes, zero_division=zero
        )
    )
    matrix = sklearn.metrics.confusion_matrix(data.labels, predicted, labels=classes)
    values = {
        **evaluate.scores(logits, data.labels),
        'precision': float(per_class[0].mean()),
        'recall': float(per_class[1].mean()),
        'examples': len(data),
        'split': split,
        'checkpoint': which,
    }
    out = pathlib.Path(run)
    (out / 'figures').mkdir(exist_ok=True)
    (out / 'evaluation.json').write_text(json.dumps(values, indent=1) + '\n')
    with (out / 'evaluation.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['class', 'precision', 'recall', 'f1', 'examples'])
        for name, row in zip(data.classes, per_class.T, strict=True):
            writer.writerow([name, *(f'{v:.4f}' for v in row[:3]), int(row[3])])
    figures.confusion(matrix, data.classes).savefig(out / 'figures' / 'confusion.png', dpi=120)
    print(f'{run}, {split}, {len(data):,} images')
    for name in ('accuracy', 'top5', 'precision', 'recall'):
        print(f'  {name:<9} {values[name]:.2%}')
    print(f'  {"loss":<9} {values["loss"]:.4f}')
    print(f'written: evaluation.json, evaluation.csv and figures/confusion.png in {run}')


if __name__ == '__main__':
    command.run(main)
