"""overview: classes, attention, relevance and features of each photograph in one figure."""

import numpy as np

from vitjax.figures import overview as figures
from vitjax.figures.attention import UNIFORM
from vitjax.figures.panels import Scale
from vitjax.figures.text import named, short
from vitjax.views import pca, relevance
from vitjax.views.forward import CLASS_WEIGHTS, MAPS, WEIGHTS, Results
from vitjax.views.view import Drawing, Drawn, View

TOP = 3  # classes in the label of a row


def draw(results: Results) -> Drawn:
    """A row for each photograph, labelled with its likeliest classes.

    Attention is that of the tokens which the head reads: the class token's, in the first
    class-attention layer or the last layer of the trunk, or the mean over patches. A model
    without attention has neither that column nor the relevance.

    Args:
        results: results with attention weights and their gradients, and tokens or feature maps.
            Options: `layer` of the features, `enlarge`.
    """
    components, variance, _ = pca.of_layer(results)
    arrays = {'components': components, 'variance': variance, 'logits': results.logits}
    maps, found = {}, results.found
    if WEIGHTS in found or CLASS_WEIGHTS in found:
        matrix = found[WEIGHTS][-1].mean(1) if WEIGHTS in found else None
        rows = found[CLASS_WEIGHTS][0].mean(1) if CLASS_WEIGHTS in found else None
        keys = (matrix if rows is None else rows).shape[-1]  # type: ignore[union-attr]
        arrays['attention'] = results.answer_map(matrix, rows)
        arrays['relevance'] = relevance.scores(results)
        reads = rows is not None or results.trunk.class_token
        who = f"{results.trunk.reader}'s" if reads else "patches'"
        maps = {
            f'{who} attention,\nmean of heads': (keys * arrays['attention'], UNIFORM),
            'relevance for the class': (arrays['relevance'], Scale('relevance', 'each')),
        }
    labels = zip(results.names, _top(results), strict=True)
    names = ['\n'.join([named(name, 28), *top]) for name, top in labels]
    figure = figures.overview(
        results.photographs, maps, components, names=names, smooth=results.options.smooth
    )
    yield Drawing('overview', figure, arrays)


def _top(results: Results) -> list[list[str]]:
    """The likeliest classes of each image with their probabilities; none of a model without."""
    if results.chosen is None:
        return [[] for _ in results.names]
    best = np.argsort(-results.logits, 1)[:, :TOP]
    return [
        [f'{short(results.title(c), 18)} {results.probability[i, c]:.0%}' for c in classes]
        for i, classes in enumerate(best)
    ]


VIEW = View('attention', draw, f'{WEIGHTS}|{CLASS_WEIGHTS}|blocks|{MAPS}', gradients=True)
