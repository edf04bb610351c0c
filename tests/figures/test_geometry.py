"""Every figure function over numbers of images, heads and layers: all texts apart and inside."""

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from vitjax.figures import (
    ablation,
    attention,
    forecast,
    gradients,
    interventions,
    report,
    scaling,
    similarity,
    tokens,
    training,
    watch,
)
from vitjax.figures.panels import Scale

RNG = np.random.default_rng(0)
LOOK = Scale('attention / uniform')


def values(*shape):
    return RNG.uniform(0.1, 0.9, size=shape)


def names(name, count):
    return [f'{name}{i}' for i in range(count)]


def photographs(count):
    return [values(24, 24, 3) for _ in range(count)]


def ends(*shape):
    mean = values(*shape)
    return mean, mean - 0.1, mean + 0.1


def lesions(layers, name):
    what: list[dict[str, Any]] = [{'kind': 'none'}]
    what += [
        {'kind': kind, 'layer': layer}
        for kind in ('skipped', 'swapped', 'repeated')
        for layer in range(1, layers + 1)
    ]
    what += [{'kind': 'random', 'removed': n} for n in range(1, layers)]
    means = [
        {
            'removed': n, 'accuracy': 0.4, 'accuracy_low': 0.2, 'accuracy_high': 0.6,
            'drawn': 24, 'of': 10**n,
        }
        for n in range(1, layers)
    ]  # fmt: skip
    return interventions.lesions(what, *ends(len(what)), means, measure='accuracy', title=name)


def machines(count, layers, name):
    modules = {each: (RNG.uniform(), 'compiler') for each in names(name, layers)}
    memory = dict.fromkeys([name, 'arguments', 'temporaries', 'outputs'], 3e9)
    share = forecast.Share(memory, 80e9, modules)
    return forecast.forecast(dict.fromkeys(names(name, count), share))


def groups(count, name):
    epochs = np.arange(20)
    one = {
        (split, metric): report.Curve(epochs, *ends(20))
        for split in ('train', 'validation')
        for metric in report.TITLES
    }
    return report.curves(dict.fromkeys(names(name, count), one))


def flops(count, name):
    points = [{'model.depth': each, 'data.name': i % 3} for i, each in enumerate(names(name, count))]
    accuracy = [*zip(*ends(count), strict=True)]
    x = np.geomspace(1e12, 1e14, count)
    return ablation.against_flops(x, accuracy, points, ['model.depth', 'data.name'], seeds=3)


def channels(count, layers, name):
    layers = min(layers, 3)
    maps: Any = {each: np.zeros((8, 8, 4 * count), np.uint8) for each in names(name, layers)}
    numbers = dict.fromkeys(maps, range(0, 400 * count, 100))
    return tokens.channels(maps, numbers, dict.fromkeys(maps, 384), title=name)


def film(layers):
    records = [watched(1.0, layers), watched(10.0, layers)]
    made = watch.film(records)
    made._draw_was_started = True  # it warns otherwise
    made._draw_frame(1)
    return made._fig


def watched(epoch, layers):
    return {'epoch': epoch, 'cka': values(layers, layers), 'rank': 64 * values(layers),
            'tokens': 'class', 'images': 64}  # fmt: skip


# By name: functions of the numbers of images, heads and layers, and of a name.
FIGURES: dict[str, Any] = {
    'pair': lambda i, h, l, n: ablation.pair(
        np.sort(values(h, i, 3))[..., [1, 0, 2]], ('model.depth', names(n, i)),
        ('model.patch_size', names(n, h)), 3, seeds=3, each=n),
    'against_flops': lambda i, h, l, n: flops(i * h, n),
    'heads': lambda i, h, l, n: attention.heads(
        photographs(i), values(i, h, 4, 4), LOOK, title=n, names=names(n, i), query=(0, 1)),
    'heads_of_classes': lambda i, h, l, n: attention.heads(
        photographs(i), values(i, 4, 4, 4), LOOK, title=n, titles=[names(n, 4)] * i),
    'heads_by_layer': lambda i, h, l, n: attention.heads_by_layer(
        values(24, 24, 3), values(l, h, 4, 4), LOOK, title=n),
    'overlays': lambda i, h, l, n: attention.overlays(
        photographs(i), {n: values(i, 4, 4), 'smallest 90% discarded': np.zeros((i, 4, 4))},
        LOOK._replace(how='each'), titles=names(n + '\npredicted: dog, 80%', i), title=n),
    'over_depth': lambda i, h, l, n: attention.over_depth(
        photographs(i), values(l, i, 4, 4), LOOK, title=n, names=names(n, i))[-1],
    'distances': lambda i, h, l, n: attention.distances(values(l, h), values(l, h), largest=2.0),
    'forecast': lambda i, h, l, n: machines(i, l, n),
    'filters': lambda i, h, l, n: gradients.filters(values(9, 4, 4, 3), values(4, 4, 4, 3), title=n),
    'maximized': lambda i, h, l, n: gradients.maximised(
        values(i * h, 8, 8, 3), titles=names(n, i * h), title=n),
    'receptive_fields': lambda i, h, l, n: gradients.receptive_fields(
        values(l, 8, 8), 9 * values(l), titles=names(n, l)),
    'importance': lambda i, h, l, n: gradients.importance(
        values(l, h), np.linspace(0, 0.9, 10), values(10), range(l), values(l), ylabel=n),
    'effects': lambda i, h, l, n: interventions.heads(
        {'zero': values(l, h) - 0.5, 'mean': values(l, h)}, values(l, h), values(l, h), measure=n,
        title=n),
    'places': lambda i, h, l, n: interventions.places(
        values(l, 1 + 16), values(l, 1 + 16), 1, (4, 4), measure=n, title=n),
    'regions': lambda i, h, l, n: interventions.regions(
        ends(l, 16 + i), [f'{r},{c}' for r in range(4) for c in range(4)] + names(n, i), 4,
        measure=n, title=n),
    'lesions': lambda i, h, l, n: lesions(l, n),
    'steering': lambda i, h, l, n: interventions.steering(
        *ends(l, i), range(i), toward=n, title=n),
    'over_seeds': lambda i, h, l, n: interventions.over_seeds(
        {each: (range(1, l + 1), values(l, h), *ends(l)) for each in names(n, i)}, measure=n,
        title=n),
    'curves': lambda i, h, l, n: groups(i * h, n),
    'scaling': lambda i, h, l, n: scaling.scaling(
        {each: {(n, f'{k}'): (2.0 ** np.arange(6, 8 + i), values(2 + i)) for k in range(h)}
         for each in names(n, 3)}, x_label=n),
    'heat_map': lambda i, h, l, n: similarity.heat_map(
        values(l, h), [f'blocks {k + 1}' for k in range(l)], names(n, h), measure=n, x_label=n,
        y_label=n, title=n),
    'probe_accuracy': lambda i, h, l, n: similarity.probe_accuracy(
        names(n, l), {each: values(l) for each in names(n, i)},
        {each: ends(l)[1:] for each in names(n, i)}, title=n),
    'positions': lambda i, h, l, n: tokens.positions(values(i * h, i * h), grid=(i, h), title=n),
    'quantities': lambda i, h, l, n: tokens.over_depth(
        {each: (n, values(l, i)) for each in names(n, 2)}, labels=names(n, i),
        layers=names(n, l) if h % 2 else ()),
    'lens': lambda i, h, l, n: tokens.lens(
        values(l, i), [names(n, i)] * l, labels=names(n, i), decided=np.arange(i) % l),
    'norms': lambda i, h, l, n: tokens.norms(
        photographs(i), 90 * values(min(l, 3), i, 4, 4), layers=range(min(l, 3))),
    'patches': lambda i, h, l, n: tokens.patches(
        values(8, 8, 3), values(16, 2, 2, 3), values(8, 8, 3), columns=4, name=n),
    'channels': lambda i, h, l, n: channels(i * h, l, n),
    'large_channels': lambda i, h, l, n: tokens.large_channels(
        values(8, 8, 3), {each: values(4, 4, min(h, 6)) for each in names(n, min(l, 4))},
        channels=range(380, 380 + min(h, 6)), title=n),
    'learning_curves': lambda i, h, l, n: training.learning_curves(
        [{'epoch': epoch, 'split': split, 'accuracy': 0.5, 'top5': 0.9, 'loss': 1.0}
         for epoch in range(1, l + 1) for split in ('train', 'validation')]),
    'attention_strip': lambda i, h, l, n: training.attention_strip(
        np.stack(photographs(i)), values(l, i, 4, 4), LOOK, epochs=range(l), true=names(n, i),
        predicted=[names(n, i)] * l, title=n),
    'confusion': lambda i, h, l, n: training.confusion(
        RNG.integers(0, 9, size=(i * h, i * h)), names(n, i * h), normalised=bool(l % 3)),
    'strip': lambda i, h, l, n: watch.strip([watched(float(e), l) for e in range(1, i * h + 1)]),
    'film': lambda i, h, l, n: film(l),
}  # fmt: skip
LONG = 'a_name_of_fifty_characters_or a few more of words, '
FEW = [(2, 3, 4, LONG)]
GRID = [*itertools.product((1, 2, 3, 5, 8), (1, 2, 3, 6, 12, 16), (2, 24), ('a', LONG))]


def faults(figure):
    """Texts outside a figure, two that cover each other, and panels of under half an inch."""
    texts, ours = [], Text.draw

    def draw(self, renderer):
        if self.get_text().strip() and self.get_visible():
            texts.append((self.get_text(), self.get_window_extent(renderer)))
        ours(self, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, 'draw', draw)
        figure.draw_without_rendering()
    width, height = figure.bbox.size
    for text, box in texts:
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            yield f'outside: {text!r}'
    boxes = np.array([box.extents for _, box in texts]) + (0.5, 0.5, -0.5, -0.5)  # half a pixel
    low, high = boxes[:, None, :2], boxes[None, :, 2:]
    meet = (low < high).all(-1)
    for i, j in np.argwhere(np.triu(meet & meet.T, 1)):
        yield f'{texts[i][0]!r} covers {texts[j][0]!r}'
    for axis in figure.axes:
        sides = axis.get_window_extent().size / figure.dpi
        if axis.get_label() != '<colorbar>' and sides.min() < 0.5:
            yield f'a panel of {sides} inches: {axis.get_title()!r}'


def check(kind, *numbers):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        figure = FIGURES[kind](*numbers)
        assert not [*faults(figure)], (kind, *numbers)
    assert figure.get_figwidth() < 7.25, (kind, *numbers)


@pytest.mark.parametrize('kind', FIGURES)
def test_texts_lie_apart_and_inside_and_panels_are_large_enough(kind):
    for numbers in FEW:
        check(kind, *numbers)


@pytest.mark.slow
@pytest.mark.parametrize('kind', FIGURES)
def test_any_number_of_images_heads_and_layers_is_drawn(kind):
    for numbers in GRID[[*FIGURES].index(kind) % 4 :: 4]:
        check(kind, *numbers)
