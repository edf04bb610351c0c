"""Every figure function, by numbers of images, heads and layers and by a name."""

from typing import Any

import numpy as np

from vitjax.figures import (
    ablation,
    attention,
    forecast,
    gradients,
    interventions,
    overview,
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
    return [RNG.uniform(size=(24, 24, 3)) for _ in range(count)]


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
    modules = {each: (float(values()), 'compiler') for each in names(name, layers)}
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
    points = [
        {'model.depth': each, 'data.name': i % 3} for i, each in enumerate(names(name, count))
    ]
    accuracy = [*zip(*ends(count), strict=True)]
    x = np.geomspace(1e12, 1e14, count).tolist()
    return ablation.against_flops(x, accuracy, points, ['model.depth', 'data.name'], seeds=3)


def channels(count, layers, name):
    layers = min(layers, 3)
    maps: Any = {each: np.zeros((8, 8, 4 * count), np.uint8) for each in names(name, layers)}
    numbers = dict.fromkeys(maps, range(0, 400 * count, 100))
    return tokens.channels(maps, numbers, dict.fromkeys(maps, 384), title=name)


def film(layers):
    records = [watched(1.0, layers), watched(10.0, layers)]
    made: Any = watch.film(records)
    made._draw_was_started = True  # it warns otherwise
    made._draw_frame(1)
    return made._fig


def watched(epoch, layers):
    return {'epoch': epoch, 'cka': values(layers, layers), 'rank': 64 * values(layers),
            'tokens': 'class', 'images': 64}  # fmt: skip


# By name: functions of the numbers of images, heads and layers, and of a name.
FIGURES: dict[str, Any] = {
    'pair': lambda i, h, d, n: ablation.pair(
        np.sort(values(h, i, 3))[..., [1, 0, 2]], ('model.depth', names(n, i)),
        ('model.patch_size', names(n, h)), 3, seeds=3, each=n),
    'against_flops': lambda i, h, d, n: flops(i * h, n),
    'heads': lambda i, h, d, n: attention.heads(
        photographs(i), values(i, h, 4, 4), LOOK, title=n, names=names(n, i), query=(0, 1)),
    'heads_of_classes': lambda i, h, d, n: attention.heads(
        photographs(i), values(i, 4, 4, 4), LOOK, title=n, titles=[names(n, 4)] * i),
    'heads_by_layer': lambda i, h, d, n: attention.heads_by_layer(
        values(24, 24, 3), values(d, h, 4, 4), LOOK, title=n),
    'overlays': lambda i, h, d, n: attention.overlays(
        photographs(i), {n: values(i, 4, 4), 'smallest 90% discarded': 0 * values(i, 4, 4)},
        LOOK._replace(how='each'), titles=names(n + '\npredicted: dog, 80%', i), title=n),
    'over_depth': lambda i, h, d, n: attention.over_depth(
        photographs(i), values(d, i, 4, 4), LOOK, title=n, names=names(n, i))[-1],
    'distances': lambda i, h, d, n: attention.distances(values(d, h), values(d, h), largest=2.0),
    'features': lambda i, h, d, n: overview.features(
        photographs(i), values(i, 4, 4, 3), names=names(n, i), title=n),
    'overview': lambda i, h, d, n: overview.overview(
        photographs(i), {f'map {k}': (values(i, 4, 4), LOOK) for k in range(min(h, 3) - 1)},
        values(i, 4, 4, 3), names=names(n + '\ndog 80%\ncat 10%', i)),
    'forecast': lambda i, h, d, n: machines(i, d, n),
    'filters': lambda i, h, d, n: gradients.filters(
        values(9, 4, 4, 3), values(4, 4, 4, 3), title=n),
    'maximized': lambda i, h, d, n: gradients.maximised(
        values(i * h, 8, 8, 3), titles=names(n, i * h), title=n),
    'receptive_fields': lambda i, h, d, n: gradients.receptive_fields(
        values(d, 8, 8), 9 * values(d), titles=names(n, d)),
    'importance': lambda i, h, d, n: gradients.importance(
        values(d, h), np.linspace(0, 0.9, 10), values(10), range(d), values(d), ylabel=n),
    'effects': lambda i, h, d, n: interventions.heads(
        {'zero': values(d, h) - 0.5, 'mean': values(d, h)}, values(d, h), values(d, h), measure=n,
        title=n),
    'places': lambda i, h, d, n: interventions.places(
        values(d, 1 + 16), values(d, 1 + 16), 1, (4, 4), measure=n, title=n),
    'regions': lambda i, h, d, n: interventions.regions(
        ends(d, 16 + i), [f'{r},{c}' for r in range(4) for c in range(4)] + names(n, i), 4,
        measure=n, title=n),
    'lesions': lambda i, h, d, n: lesions(d, n),
    'steering': lambda i, h, d, n: interventions.steering(
        *ends(d, i), range(i), toward=n, title=n),
    'over_seeds': lambda i, h, d, n: interventions.over_seeds(
        {each: (np.arange(1, d + 1), values(d, h), *ends(d)) for each in names(n, i)}, measure=n,
        title=n),
    'curves': lambda i, h, d, n: groups(i * h, n),
    'scaling': lambda i, h, d, n: scaling.scaling(
        {each: {(n, f'{k}'): (2.0 ** np.arange(6, 8 + i), values(2 + i)) for k in range(h)}
         for each in names(n, 3)}, x_label=n),
    'heat_map': lambda i, h, d, n: similarity.heat_map(
        values(d, h), [f'blocks {k + 1}' for k in range(d)], names(n, h), measure=n, x_label=n,
        y_label=n, title=n),
    'probe_accuracy': lambda i, h, d, n: similarity.probe_accuracy(
        names(n, d), {each: values(d) for each in names(n, i)},
        {each: ends(d)[1:] for each in names(n, i)}, title=n),
    'positions': lambda i, h, d, n: tokens.positions(values(i * h, i * h), grid=(i, h), title=n),
    'quantities': lambda i, h, d, n: tokens.over_depth(
        {each: (n, values(d, i)) for each in names(n, 2)}, labels=names(n, i),
        layers=names(n, d) if h % 2 else ()),
    'lens': lambda i, h, d, n: tokens.lens(
        values(d, i), [names(n, i)] * d, labels=names(n, i), decided=np.arange(i) % d),
    'norms': lambda i, h, d, n: tokens.norms(
        photographs(i), 90 * values(min(d, 3), i, 4, 4), layers=range(min(d, 3))),
    'patches': lambda i, h, d, n: tokens.patches(
        values(8, 8, 3), values(16, 2, 2, 3), values(8, 8, 3), columns=4, name=n),
    'channels': lambda i, h, d, n: channels(i * h, d, n),
    'large_channels': lambda i, h, d, n: tokens.large_channels(
        values(8, 8, 3), {each: values(4, 4, min(h, 6)) for each in names(n, min(d, 4))},
        channels=range(380, 380 + min(h, 6)), title=n),
    'learning_curves': lambda i, h, d, n: training.learning_curves(
        [{'epoch': epoch, 'split': split} | dict.fromkeys(report.TITLES, float(values()))
         for epoch in range(1, d + 1) for split in ('train', 'validation')]),
    'attention_strip': lambda i, h, d, n: training.attention_strip(
        np.stack(photographs(i)), values(d, i, 4, 4), LOOK, epochs=range(d), true=names(n, i),
        predicted=[names(n, i)] * d, title=n),
    'confusion': lambda i, h, d, n: training.confusion(
        RNG.integers(0, 9, size=(i * h, i * h)), names(n, i * h), normalised=bool(d % 3)),
    'strip': lambda i, h, d, n: watch.strip([watched(float(e), d) for e in range(1, i * h + 1)]),
    'film': lambda i, h, d, n: film(d),
}  # fmt: skip
