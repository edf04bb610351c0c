"""Sections of a report about single images: worst mistakes, attention."""

import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

from vitjax import runs, views
from vitjax.report import page
from vitjax.report.page import Html, join, tag
from vitjax.report.predictions import Predictions, images
from vitjax.report.run import Run
from vitjax.views.forward import forward_pass

MISTAKES = 18
EXAMPLES = 4  # of correct images, and of mistakes
GIGABYTES = 1.0  # limit of captured arrays
SIDE = 160  # pixels of a mistake's picture, at most

# View, its figure and a caption, by what a trunk's logits are read from.
_VIEWS = {
    'attention': (
        'class-attention', 'saliency',
        'Class attention: attention of the class token to each patch.',
    ),
    'maps': (
        'grad-cam', 'grad_cam',
        'Grad-CAM: evidence for the class in the last feature maps.',
    ),
}  # fmt: skip
_ROLLOUT = (
    'rollout', 'rollout',
    'Attention rollout: attention to patches, traced through all layers.',
)  # fmt: skip


def mistakes(run: Run, found: Predictions) -> Html:
    """Pictures of the mistakes made with the highest probability."""
    count = int((found.labels != found.predicted).sum())
    title = tag('h3', f'Worst mistakes, {found.split} images')
    if not count:
        return join(title, tag('p', f'None: all {len(found.labels):,} are correct.'))
    assert run.experiment is not None
    data, rows = images(run.experiment, found.split), found.worst(MISTAKES)
    if len(data) != len(found.labels):
        rule = f'{run.path} has predictions for {len(found.labels):,} images'
        raise ValueError(f'{rule}, its {found.split} split has {len(data):,}')
    shown = [
        tag(
            'figure', _picture(pixels, f'{found.split} image {row}'),
            tag('figcaption', tag('b', found.classes[found.predicted[row]]),
                f' {found.probability[row]:.1%}', tag('small', Html('<br>true: '),
                found.classes[found.labels[row]])),
        )
        for row, pixels in zip(rows, np.asarray(data.images[rows]), strict=True)
    ]  # fmt: skip
    lead = (
        f'{count:,} of {len(found.labels):,} are wrong. Shown are those with the highest '
        'probability: the predicted class, its probability and the true class.'
    )
    return join(title, tag('p', lead, kind='lead'), tag('div', *shown, kind='pictures'))


def _picture(pixels: np.ndarray, alt: str) -> Html:
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    content, small = io.BytesIO(), max(pixels.shape[:2]) <= 64
    form = 'png' if small else 'jpeg'
    image.save(content, form, quality=88)
    return page.picture(content.getvalue(), form, alt, kind='pixels' if small else '')


def attention(run: Run, found: Predictions) -> Html:
    """Attention, or evidence for the class, on correct images and on the worst mistakes."""
    assert run.experiment is not None
    reads = run.experiment.model.trunk.reads
    name, figure, caption = _VIEWS.get(reads, _ROLLOUT)
    view = views.VIEWS[name]
    loaded = runs.load(run.path, report=lambda change: None)
    experiment, data = loaded.experiment, images(run.experiment, found.split)
    assert experiment.preprocessing is not None
    if data.prepared is not None:  # cropped already
        own = dataclasses.replace(experiment.preprocessing, crop=1.0)
        loaded = loaded._replace(experiment=dataclasses.replace(experiment, preprocessing=own))
    fits = int(GIGABYTES // views.gigabytes(loaded, 1, name))
    if not fits:
        raise ValueError(f'what {name} reads of an image takes more than {GIGABYTES:g} GB')
    shown = []
    for rows, kind, said in (
        (found.correct(EXAMPLES), 'correct', 'Correct predictions.'),
        (found.worst(EXAMPLES), 'wrong', 'Worst mistakes.'),
    ):
        if len(rows := rows[:fits]):
            pixels = [*np.asarray(data.images[rows])]
            results = forward_pass(loaded, pixels, keep=[view.keep], gradients=view.gradients)
            names = tuple(f'true: {found.classes[found.labels[row]]}' for row in rows)
            drawings = view.draw(dataclasses.replace(results, names=names))
            drawn: Any = next(each.figure for each in drawings if each.name == figure)
            picture = page.picture(drawn.png(), 'png', f'{figure}, {kind}')
            shown.append(page.figure(picture, said, kind='half'))
    title = 'Evidence' if reads == 'maps' else 'Attention'
    head = tag('h3', f'{title}, {found.split} images')
    return join(head, tag('p', caption, kind='lead'), *shown)
