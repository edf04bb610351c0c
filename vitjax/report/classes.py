"""Sections of a report about classes: confusion matrix, most confused pairs, scores."""

import csv
import io

import numpy as np

from vitjax import evaluate
from vitjax.figures import report as figures
from vitjax.figures.training import confusion
from vitjax.report import page
from vitjax.report.page import Html, join, tag
from vitjax.report.predictions import Predictions

CLASSES = 120  # limit up to which all are shown, with their confusion matrix
WORST, PAIRS = 40, 12  # shown classes, of more than CLASSES, and pairs of classes


def section(found: Predictions) -> Html:
    """Confusion matrix, most confused pairs, and scores of each class.

    With more than `CLASSES` classes, the pairs and the classes with the worst F1 alone; `table` has
    all of them. Outputs without an image or a prediction are left out.
    """
    scores = found.scores()
    present = np.flatnonzero(scores.present)
    lists = page.beside(_scores(found, scores, present), _confused(found, scores.support))
    if len(present) > CLASSES:
        return lists
    matrix, names = found.confusion(), [found.classes[i] for i in present]
    kind = 'narrow' if len(names) <= 10 else 'full'

    def drawn(alt: str, *, normalised: bool) -> Html:
        content = figures.svg(confusion(matrix, names, normalised=normalised))
        return page.figure(page.picture(content, 'svg+xml', alt), kind=kind)

    fractions = drawn('normalised confusion matrix', normalised=True)
    return join(
        tag('h3', f'Confusion matrix, {found.split} images'),
        drawn('confusion matrix', normalised=False),
        page.folded('normalised: percent of each true class', fractions),
        lists,
    )


def table(found: Predictions) -> str | None:
    """Scores and support of all classes as CSV; None if the page has room for them."""
    scores = found.scores()
    if scores.present.sum() <= CLASSES:
        return None
    out = io.StringIO(newline='')
    writer = csv.writer(out)
    writer.writerow(['class', 'precision', 'recall', 'f1', 'images', 'most_often_confused_with'])
    # Of equal keys a dict keeps the last: the most frequent pair.
    other = {true: found.classes[predicted] for true, predicted, _ in found.confused()[::-1]}
    for i in np.flatnonzero(scores.present):
        values = (f'{each[i]:.6g}' for each in (scores.precision, scores.recall, scores.f1))
        writer.writerow([found.classes[i], *values, scores.support[i], other.get(int(i), '')])
    return out.getvalue()


def _confused(found: Predictions, support: np.ndarray) -> Html | None:
    pairs = found.confused()[:PAIRS]
    if len(found.classes) < 3 or not pairs:
        return None
    rows = [
        (found.classes[i], found.classes[j], count, f'{count / support[i]:.0%}')
        for i, j, count in pairs
    ]
    head = ('true', 'predicted', 'images', 'of the true class')
    title = tag('h3', f'Most often confused, {found.split} images')
    return tag('div', title, page.table(head, rows))


def _scores(found: Predictions, scores: evaluate.ClassScores, present: np.ndarray) -> Html:
    shown, title = present, 'Classes'
    if len(present) > CLASSES:
        shown = present[np.argsort(scores.f1[present], kind='stable')[:WORST]]
        title = f'The {WORST} classes of {len(present):,} with the lowest F1'
    rows = [
        (found.classes[i], *(f'{each[i]:.3f}' for each in scores[:3]), int(scores.support[i]))
        for i in shown
    ]
    means = (f'{value:.3f}' for value in scores.means().values())
    total = (f'mean of {len(present):,} classes', *means, int(scores.support.sum()))
    head = ('class', 'precision', 'recall', 'F1', 'support')
    rest = len(found.classes) - len(present)
    remark = f'{rest:,} outputs without an image or a prediction are left out.'
    return tag(
        'div', tag('h3', f'{title}, {found.split} images'),
        page.columns(head, rows, most=50, total=total), tag('p', remark) if rest else None,
    )  # fmt: skip
