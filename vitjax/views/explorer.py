"""explorer: a page for the browser that shows the attention of the patch under the pointer."""

import base64
import functools
import html
import importlib.resources
import io
import json
import math
import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from PIL import Image

from vitjax.analysis import tokens
from vitjax.base.types import Params
from vitjax.evaluate import require_finite
from vitjax.models.base import Model
from vitjax.runs import Loaded
from vitjax.views.forward import CLASS_WEIGHTS, MIXED, WEIGHTS, Results, kept_paths
from vitjax.views.view import Drawing, Drawn, NotApplicable, Page, View

POWER = 0.8  # power of a weight over its row's largest, which is then rounded
_PATHS = (WEIGHTS, MIXED, CLASS_WEIGHTS)
LIMIT = 64  # MB of weights before compression, which a browser still opens at once
TOP = 10  # class tokens that are shown if each class has its own: those of the likeliest


def draw(results: Results) -> Drawn:
    """One HTML file that needs nothing else: photographs, attention, norms, lens, predictions.

    Args:
        results: results with attention weights and the trunk's tokens.
            Options: `beside`, `labels`.
    """
    beside: Any = results.options.beside
    both, labels = [results] if beside is None else [results, beside], results.options.labels
    for one in both:
        if not _maps(one):
            raise NotApplicable(f'{one.kind} has no attention; see grad-cam')
    size = sum(one.found[path].size for one in both for path in _maps(one)) / 1e6
    if size > LIMIT:
        rule = f'the page would hold {size:.0f} MB of attention weights, {LIMIT} at most'
        raise NotApplicable(f'{rule}; use a smaller --size or fewer --images')
    names = [*labels, *[one.kind for one in both][len(labels) :]]
    pairs = zip(both, names, strict=True)
    yield Drawing('explorer', Page(page([contents(one, name) for one, name in pairs])), {})


def megabytes(loaded: Loaded, count: int) -> float:
    """Megabytes of attention weights of `count` images on a page, before compression."""
    shapes = kept_paths(loaded, count, keep=_PATHS, at=None)
    return sum(math.prod(shape) for path, shape in shapes.items() if path in _PATHS) / 1e6


def page(models: Sequence[dict[str, Any]]) -> str:
    """HTML page of the `contents` of each model. Names in it are data, never markup."""
    folder = importlib.resources.files('vitjax.views')
    files = ('explorer.html', 'explorer.css', 'explorer_maps.js', 'explorer.js')
    frame, css, *js = (folder.joinpath(name).read_text('utf-8') for name in files)
    data = json.dumps({'power': POWER, 'models': models}, allow_nan=False)
    title = html.escape(' and '.join(model['name'] for model in models))
    parts = {'title': title, 'css': css, 'js': ''.join(js), 'data': data.replace('<', '\\u003c')}
    return re.sub(r'\{\{(\w+)\}\}', lambda found: parts[found[1]], frame)


def contents(results: Results, name: str) -> dict[str, Any]:
    """Contents of the page for one model as JSON values; arrays are `_packed`."""
    require_finite(results.logits)
    blocks = results.tokens()
    lens = np.asarray(_lens(results.model, results.params, blocks))
    norms = np.asarray(tokens.norms(blocks))
    images = [
        {
            'name': results.names[i],
            'picture': _picture(results.pixels[i]),
            'answer': _answers(results, results.logits[i : i + 1], 5)[0],
            'lens': _answers(results, lens[:, i], 3),
            'norms': _packed(norms[:, i].astype('<f4')),
            'maps': [_map(results, path, i) for path in _maps(results)],
        }
        for i in range(len(results.pixels))
    ]
    return {
        'name': name,
        'kind': results.kind,
        'grid': [*results.grid],
        'layers': len(blocks),
        'tokens': _prefix(results),
        'answers': {0: 'cosine', 1: 'logit'}.get(results.model.num_classes, 'probability'),
        'images': images,
    }


@functools.partial(jax.jit, static_argnums=0)
def _lens(model: Model, params: Params, blocks: jax.Array) -> jax.Array:
    def read(layer: jax.Array) -> Any:
        return model.apply({'params': params}, layer, method='readout')

    return tokens.lens(read, blocks)


def _maps(results: Results) -> list[str]:
    return [path for path in _PATHS if path in results.found]


def _prefix(results: Results) -> list[str]:
    """Names of the trunk's tokens before the patches."""
    count = results.trunk.prefix
    named = ['class token', 'distillation token'][: getattr(results.model, 'class_tokens', 0)]
    named = named[:count]
    return named + [f'register {i + 1}' for i in range(count - len(named))]


def _answers(results: Results, logits: np.ndarray, most: int) -> list[list[tuple[str, float]]]:
    """Likeliest classes and their probabilities, for every row of logits.

    With one class it is its logit; with none, the cosine of the features to the model's.
    """
    if results.model.num_classes == 1:
        return [[('', float(value))] for value in logits[:, 0]]
    if results.model.num_classes == 0:
        near = tokens.cosines(jnp.asarray(logits), jnp.asarray(logits[-1:]))
        return [[('', float(value))] for value in near]
    odds = scipy.special.softmax(logits, 1)
    order = np.argsort(-odds, 1, kind='stable')[:, :most]
    rows = zip(odds, order, strict=True)
    return [[(results.title(int(k)), round(float(row[k]), 5)) for k in best] for row, best in rows]


def _map(results: Results, path: str, image: int) -> dict[str, Any]:
    """Attention weights of an image at a path, and names of the queries and keys before patches."""
    weights = np.asarray(results.found[path][:, image])
    layers, heads, queries, keys = weights.shape
    if path == CLASS_WEIGHTS:
        title = 'class attention' if WEIGHTS in results.found else 'pooling attention'
        named = first = [results.trunk.reader]
        if results.trunk.latent:
            first = _prefix(results)
        if queries > 1:  # one class token for each class
            likeliest = np.argsort(-results.logits[image], kind='stable')[:TOP]
            weights = weights[:, :, likeliest]
            named, first = [f'token of {results.title(int(k))}' for k in likeliest], []
    else:
        mixed = {MIXED: 'after head mixing', WEIGHTS: 'before head mixing'}
        title = f'attention, {mixed[path]}' if MIXED in results.found else 'attention'
        named = first = _prefix(results)
    stored = quantise(weights)
    return {
        'title': title,
        'trunk': path != CLASS_WEIGHTS,
        'signed': stored.codes.dtype == np.int8,
        'layers': layers,
        'heads': heads,
        'queries': named,
        'keys': first,
        'codes': _packed(stored.codes),
        'tops': _packed(stored.tops),
        'unit': stored.unit,
        'error': stored.error,
        'sums': None if path == MIXED else stored.sums,
    }


class Quantised(NamedTuple):
    """Attention weights in 8 bits each.

    Attributes:
        codes: [..., queries, keys], uint8; int8 for signed weights.
        tops: each row's largest magnitude in units, rounded up, uint16 [..., queries].
        unit: unit of `tops`.
        error: largest difference of a decoded weight from the original.
        sums: largest difference of a decoded row's sum from the original's.
    """

    codes: np.ndarray
    tops: np.ndarray
    unit: float
    error: float
    sums: float

    def decoded(self) -> np.ndarray:
        """Weights, float64: sign(c) |c / most|^(1 / POWER) top; most is 255, or 127 if signed."""
        most = np.iinfo(self.codes.dtype).max
        levels = np.sign(self.codes) * np.abs(self.codes / most) ** (1 / POWER)
        return levels * (self.tops[..., None] * self.unit)


def quantise(weights: np.ndarray) -> Quantised:
    """Rounds attention weights [..., queries, keys] to 8 bits.

    Each row has its own scale: in a pretrained ViT-S most rows' largest weight is far below the
    largest of all, so that one scale would leave those rows a few steps. A power below 1 keeps a
    row's many small weights, which equal steps drop. Sums of rows are then off by at most 0.034
    (equal steps: 0.15), and weights by 0.0014 (0.0019). The square root is better for sums (0.005)
    and worse for size: a page of 18 MB instead of 14.
    """
    signed = bool(weights.min() < 0)
    kind = np.dtype(np.int8 if signed else np.uint8)
    size = np.abs(weights.astype(np.float64))
    rows = size.max(-1)
    unit = float(rows.max()) / 65535 or 1.0
    tops = np.clip(np.ceil(rows / unit), 1, 65535).astype('<u2')
    level = np.minimum(size / (tops[..., None] * unit), 1)
    codes = (np.sign(weights) * np.rint(level**POWER * np.iinfo(kind).max)).astype(kind)
    stored = Quantised(codes, tops, unit, 0.0, 0.0)
    off = stored.decoded() - weights
    return stored._replace(error=float(np.abs(off).max()), sums=float(np.abs(off.sum(-1)).max()))


def _packed(array: np.ndarray) -> str:
    """An array's bytes, deflated, in base64."""
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _picture(pixels: np.ndarray) -> str:
    """Pixels [H, W, 3] as a data URL of a PNG, which is lossless."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG', optimize=True)
    return f'data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'


VIEW = View('page', draw, '|'.join((*_PATHS, 'blocks')))
