"""The parts of a report about one run's predictions: classes, mistakes, attention."""

import csv
import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

from vitjax import evaluate, runs, views
from vitjax.figures import report as figures
from vitjax.figures.training import confusion
from vitjax.report import page
from vitjax.report.answers import Answers, images
from vitjax.report.found import Run
from vitjax.report.page import Html, join, tag
from vitjax.views.seen import look

MISTAKES = 18
EXAMPLES = 4  # of images that are right, and of mistakes
CLASSES = 120  # up to which all are shown, with their confusion matrix
WORST, PAIRS = 40, 12  # classes of more than CLASSES, and pairs of classes, that are shown
GIGABYTES = 1.0  # that captured arrays may take
SIDE = 160  # pixels of a mistake's picture at most

# What is drawn on examples, by what the answer is read from: a view, and which of its figures.
_VIEWS = {'attention': ('class-attention', 'saliency'), 'maps': ('grad-cam', 'grad_cam')}
_ROLLOUT = ('rollout', 'rollout')
_SAID = {
    'saliency': 'Class attention: how much the class token reads of each patch.',
    'grad_cam': 'Grad-CAM: which places of the last feature maps are evidence for the class.',
    'rollout': 'Attention rollout: which patches attention through all layers leads back to.',
}


def classes(given: Answers) -> Html:
    """The confusion matrix, the pairs most often confused, and scores of each class.

    Of more than `CLASSES` classes, the pairs and the classes with the worst F1 alone; `table` has
    all of them. Outputs of the model that no image has and none is predicted as are left out.
    """
    scores = given.scores()
    counted = np.flatnonzero(scores.counted)
    parts = _per_class(given, scores, counted), _confused(given, scores.support)
    if len(counted) > CLASSES:
        return page.aside(*parts)
    matrix, names = given.confusion(counted), [given.classes[i] for i in counted]
    kind = 'narrow' if len(names) <= 10 else 'full'
    counts, shares = (
        page.figure(
            page.picture(figures.svg(confusion(matrix, names, normalised=share)), 'svg+xml', alt),
            kind=kind,
        )
        for share, alt in ((False, 'confusion matrix'), (True, 'normalised confusion matrix'))
    )
    return join(
        tag('h3', f'Confusion matrix, {given.split} images'), counts,
        page.folded('normalised: percent of each true class', shares),
        page.aside(*parts),
    )  # fmt: skip


def table(given: Answers) -> str | None:
    """All classes as CSV if there are too many for the page: name, scores and support."""
    scores = given.scores()
    if scores.counted.sum() <= CLASSES:
        return None
    out = io.StringIO(newline='')
    writer = csv.writer(out)
    writer.writerow(['class', 'precision', 'recall', 'f1', 'images', 'most_often_confused_with'])
    most: dict[int, int] = {}
    for true, predicted, _ in given.confused():
        most.setdefault(true, predicted)
    for i in np.flatnonzero(scores.counted):
        values = (f'{each[i]:.6g}' for each in (scores.precision, scores.recall, scores.f1))
        other = given.classes[most[int(i)]] if int(i) in most else ''
        writer.writerow([given.classes[i], *values, scores.support[i], other])
    return out.getvalue()


def _confused(given: Answers, support: np.ndarray) -> Html | None:
    pairs = given.confused()[:PAIRS]
    if len(given.classes) < 3 or not pairs:
        return None
    rows = [
        (given.classes[i], given.classes[j], count, f'{count / support[i]:.0%}')
        for i, j, count in pairs
    ]
    head = ('true', 'predicted', 'images', 'of the true class')
    title = tag('h3', f'Most often confused, {given.split} images')
    return tag('div', title, page.table(head, rows))


def _per_class(given: Answers, scores: evaluate.ByClass, counted: np.ndarray) -> Html:
    shown, said = counted, f'Classes, {given.split} images'
    if len(counted) > CLASSES:
        shown = counted[np.argsort(scores.f1[counted], kind='stable')[:WORST]]
        said = f'The {WORST} classes of {len(counted):,} with the lowest F1, {given.split} images'
    each = np.stack([scores.precision, scores.recall, scores.f1], 1)
    rows = [
        (given.classes[i], *(f'{value:.3f}' for value in each[i]), int(scores.support[i]))
        for i in shown
    ]
    means = (f'{value:.3f}' for value in scores.means().values())
    mean = f'mean of {len(counted):,} classes'
    total = (mean, *means, int(scores.support.sum()))
    head = ('class', 'precision', 'recall', 'F1', 'support')
    rest = len(given.classes) - len(counted)
    none = f'{rest:,} outputs without an image or a prediction are left out.' if rest else None
    return tag(
        'div', tag('h3', said), page.beside(head, rows, most=50, total=total),
        None if none is None else tag('p', none),
    )  # fmt: skip


def mistakes(run: Run, given: Answers) -> Html:
    """The mistakes made with the highest probability, as pictures."""
    count = int((given.labels != given.predicted).sum())
    title = tag('h3', f'Worst mistakes, {given.split} images')
    if not count:
        return join(title, tag('p', f'There are none: all {len(given.labels):,} are right.'))
    assert run.experiment is not None
    data, rows = images(run.experiment, given.split), given.worst(MISTAKES)
    if len(data) != len(given.labels):
        rule = f'{run.path} was asked about {len(given.labels):,} images'
        raise ValueError(f'{rule}, its {given.split} split has {len(data):,}')
    shown = [
        tag(
            'figure', _picture(pixels, f'{given.split} image {row}'),
            tag('figcaption', tag('b', given.classes[given.predicted[row]]),
                f' {given.probability[row]:.1%}', tag('small', Html('<br>true: '),
                given.classes[given.labels[row]])),
        )
        for row, pixels in zip(rows, np.asarray(data.images[rows]), strict=True)
    ]  # fmt: skip
    said = f'{count:,} of {len(given.labels):,} are wrong. These with the highest probability: the '
    said += 'predicted class, its probability, and the true class.'
    return join(title, tag('p', said, kind='lead'), tag('div', *shown, kind='pictures'))


def _picture(pixels: np.ndarray, alt: str) -> Html:
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    content, small = io.BytesIO(), max(pixels.shape[:2]) <= 64
    image.save(content, 'PNG' if small else 'JPEG', quality=88)
    form = 'png' if small else 'jpeg'
    return page.picture(content.getvalue(), form, alt, kind='pixels' if small else '')


def attention(run: Run, given: Answers) -> Html:
    """Where the model looks, on images that it gets right and on its worst mistakes."""
    assert run.experiment is not None
    reads = run.experiment.model.trunk.reads
    view, name = _VIEWS.get(reads, _ROLLOUT)
    loaded = runs.load(run.path, report=lambda change: None)
    experiment, data = loaded.experiment, images(run.experiment, given.split)
    if data.prepared is not None:  # cut already
        own = dataclasses.replace(experiment.preprocessing, crop=1.0)
        loaded = loaded._replace(experiment=dataclasses.replace(experiment, preprocessing=own))
    fits = int(GIGABYTES // views.gigabytes(loaded, 1, view))
    if not fits:
        raise ValueError(f'what {view} reads of an image takes more than {GIGABYTES:g} GB')
    shown = []
    for rows, what in ((given.right(EXAMPLES), 'right'), (given.worst(EXAMPLES), 'wrong')):
        if len(rows := rows[:fits]):
            seen = look(
                loaded, [*np.asarray(data.images[rows])], keep=[views.VIEWS[view].keep],
                gradients=views.VIEWS[view].gradients,
            )  # fmt: skip
            names = tuple(f'true: {given.classes[given.labels[row]]}' for row in rows)
            drawings = views.VIEWS[view].draw(dataclasses.replace(seen, names=names))
            figure: Any = next(drawing.figure for drawing in drawings if drawing.name == name)
            said = 'Images that it gets right.' if what == 'right' else 'Its worst mistakes.'
            drawn = page.picture(figures.png(figure), 'png', f'{name}, {what}')
            shown.append(page.figure(drawn, said, kind='half'))
    title = 'Where it looks' if reads == 'maps' else 'Attention'
    head = tag('h3', f'{title}, {given.split} images')
    return join(head, tag('p', _SAID[name], kind='lead'), *shown)
