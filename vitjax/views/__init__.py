"""The views that scripts/visualize.py draws: arrays of one pass through a model, to figures."""

import dataclasses
import difflib
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import capture, evaluate
from vitjax.analysis import attention, gradients, tokens
from vitjax.data import images, sources
from vitjax.experiment import Experiment
from vitjax.figures import attention as attention_figures
from vitjax.figures import gradients as gradient_figures
from vitjax.figures import tokens as token_figures
from vitjax.figures.panels import some
from vitjax.layers.embed import grid_of, patchify, sincos_positions, unpatchify

WEIGHTS = 'blocks/attention/weights'
MIXED = 'blocks/attention/mixed_weights'
CLASS_WEIGHTS = 'class_blocks/attention/weights'
MAPS = r'conv_\d+'
HIDDEN = 'blocks/mlp/hidden'

# A view yields the name of its files, a figure (a list of them is an animation), and the arrays.
Result = tuple[str, Any, dict[str, Any]]


class NoMeaning(Exception):
    """Why a view has no meaning for a model, in one line."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What views were asked for; the help of scripts/visualize.py says what each is."""

    layer: int | None = None
    query: tuple[int, int] | None = None
    target: str | None = None
    at: str | None = None
    channels: tuple[int, ...] = ()
    interpolation: str = 'bicubic'
    discard: float = 0.9
    steps: int = 30
    jitter: int | None = None
    blur: float | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one pass through a model gave, and what it was made from.

    Attributes:
        experiment: the model's, with preprocessing and class names.
        params: the model's parameters.
        names: of the photographs.
        pixels: what the model sees, uint8 [B, H, W, 3].
        images: the same, normalised.
        logits: [B, classes], or features.
        found: captured arrays by path.
        grads: the target's gradients at the same paths; empty if no view reads them.
        chosen: the class that gradients are of, for each image; None where there are not two.
        options: of the command.
        resized: whether position embeddings were interpolated.
    """

    experiment: Experiment
    params: Any
    names: tuple[str, ...]
    pixels: np.ndarray
    images: Any
    logits: Any
    found: dict[str, Any]
    grads: dict[str, Any]
    chosen: np.ndarray | None
    options: Options
    resized: bool = False

    @property
    def model(self) -> Any:
        """The module."""
        return self.experiment.model

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return grid_of(self.pixels.shape[1:3], self.model.patch_size)

    @property
    def centre(self) -> tuple[int, int]:
        """Row and column of the patch in the centre."""
        return self.grid[0] // 2, self.grid[1] // 2

    def title(self, index: int) -> str:
        """The name of a class."""
        classes = self.experiment.classes
        return classes[index].split(',')[0] if classes else f'class {index}'

    @property
    def titles(self) -> tuple[str, ...]:
        """For each image the class that gradients are of, or the photograph's name."""
        return self.names if self.chosen is None else tuple(map(self.title, self.chosen))

    @property
    def kind(self) -> str:
        """The architecture's name."""
        return type(self.model).__name__

    @property
    def pictures(self) -> Any:
        """What the model sees, 0 to 1."""
        return self.pixels / 255.0

    @property
    def preprocessing(self) -> Any:
        """What turned photographs into the model's input."""
        return self.experiment.preprocessing

    @property
    def prefix(self) -> int:
        """Tokens before the patches in the trunk."""
        return self.model.prefix_tokens

    @property
    def smooth(self) -> bool:
        """Whether maps are interpolated."""
        return self.options.interpolation == 'bicubic'

    def trunk_weights(self) -> Any:
        """The trunk's attention weights, or why there are none."""
        if WEIGHTS in self.found:
            return self.found[WEIGHTS]
        if hasattr(self.model, 'attention'):
            raise NoMeaning(f'the trunk of {self.kind} is convolutional; see class-attention')
        raise NoMeaning(f'{self.kind} has no attention')

    def class_weights(self) -> Any:
        """The class-attention weights, or why there are none."""
        if CLASS_WEIGHTS not in self.found:
            raise NoMeaning(f'{self.kind} has no class-attention layers')
        return self.found[CLASS_WEIGHTS]

    def tokens(self) -> Any:
        """Tokens leaving each block, [L, B, N, D], or why there are none."""
        if 'blocks' not in self.found:
            raise NoMeaning(f'{self.kind} has feature maps of unequal shapes, not tokens')
        return self.found['blocks']

    def feature_maps(self) -> dict[str, Any]:
        """A convolutional network's feature maps in order; empty for the others."""
        maps = {path: value for path, value in self.found.items() if re.fullmatch(MAPS, path)}
        return dict(sorted(maps.items(), key=lambda item: int(item[0].split('_')[1])))

    def layer(self, depth: int) -> int:
        """The layer that was asked for, from 0 on; the last without one."""
        layer = self.options.layer
        if layer is None:
            return depth - 1
        if not 1 <= layer <= depth:
            raise ValueError(f'--layer must be 1 to {depth} here: got {layer}.')
        return layer - 1


# ---- Attention ---------------------------------------------------------------------------------


def heads(seen: Seen) -> Iterator[Result]:
    """Where the class token, or a patch, looks: each head, each layer, over the image."""
    weights = seen.trunk_weights()
    patch, query = seen.options.query, 0
    if patch is None and getattr(seen.model, 'pool', '') != 'class':
        patch = seen.centre
    if patch is not None:
        if not (0 <= patch[0] < seen.grid[0] and 0 <= patch[1] < seen.grid[1]):
            raise ValueError(
                f'--query must be a row and column of {seen.grid[0]}x{seen.grid[1]} patches, '
                f'from 0 on: got {patch[0]} {patch[1]}.'
            )
        query = seen.prefix + patch[0] * seen.grid[1] + patch[1]
    options: Any = {'grid': seen.grid, 'prefix': seen.prefix, 'query': query}
    maps = np.asarray(attention.head_maps(weights, **options))
    layer = seen.layer(len(maps))
    pictures = seen.pictures
    mark: Any = {'query': patch}
    yield 'heads', attention_figures.heads(pictures, maps[layer], **mark), {'maps': maps[layer]}
    by_layer = attention_figures.heads_by_layer(pictures[0], maps[:, 0], **mark)
    yield 'heads_by_layer', by_layer, {'maps': maps[:, 0]}
    mean = maps.mean(2)
    frames = [
        attention_figures.frame(pictures, m, f'layer {i + 1} of {len(mean)}', smooth=seen.smooth)
        for i, m in enumerate(mean)
    ]
    yield 'heads_over_depth', frames, {'maps': mean}
    if MIXED in seen.found:
        mixed = np.asarray(attention.head_maps(seen.found[MIXED][layer], **options))
        figure = attention_figures.heads(pictures, mixed, signed=True, **mark)
        yield 'heads_mixed', figure, {'maps': mixed}


def class_attention(seen: Seen) -> Iterator[Result]:
    """What the class-attention layers read, per head, and the saliency of the first."""
    weights = seen.class_weights()
    layers, _, count, classes, _ = weights.shape
    if classes > 1:  # one class token per class: draw those of the likeliest
        top = np.argsort(-np.asarray(seen.logits), axis=1)[:, :4]
        rows = np.take_along_axis(np.asarray(weights[-1]).mean(1), top[..., None], 1)
        maps = np.asarray(attention.to_grid(jnp.asarray(rows), grid=seen.grid))
        titles = [f'{rank} class' for rank in ('1st', '2nd', '3rd', '4th')]
        figure = attention_figures.heads(seen.pictures, maps, titles=titles)
        yield 'class_attention', figure, {'maps': maps, 'classes': top}
        each = [attention.saliency(weights, grid=seen.grid, token=int(k)) for k in top[:, 0]]
        saliency = np.stack([maps[image] for image, maps in enumerate(each)])
    else:
        maps = np.asarray(attention.head_maps(weights, grid=seen.grid, prefix=1, query=0))
        titles = [f'head {h + 1}' for h in range(count)]
        if layers > 1:
            titles = [f'layer {i + 1}\n{title}' for i in range(layers) for title in titles]
        flat = np.moveaxis(maps, 0, 1).reshape(len(seen.pixels), -1, *seen.grid)
        figure = attention_figures.heads(seen.pictures, flat, titles=titles)
        yield 'class_attention', figure, {'maps': maps}
        saliency = np.asarray(attention.saliency(weights, grid=seen.grid))
    figure = attention_figures.overlays(
        seen.pictures, [saliency], labels=['saliency'], titles=seen.titles, smooth=seen.smooth
    )
    yield 'saliency', figure, {'maps': saliency}


def rollout(seen: Seen) -> Iterator[Result]:
    """Which patches the answer is made of, through all layers."""
    kinds = {}
    for discard in (0.0, seen.options.discard):
        rolled = None
        if WEIGHTS in seen.found:
            rolled = attention.rollout(seen.found[WEIGHTS], discard=discard)[-1]
        if CLASS_WEIGHTS in seen.found:
            rows = _own_rows(seen, attention.class_rollout(seen.found[CLASS_WEIGHTS], rolled)[-1])
            prefix = 1
        elif rolled is None:
            raise NoMeaning(f'{seen.kind} has no attention')
        else:
            rows, prefix = _answer_rows(seen, rolled), seen.prefix
        label = f'smallest {discard:.0%} discarded' if discard else 'rollout'
        kinds[label] = np.asarray(attention.to_grid(rows, grid=seen.grid, prefix=prefix))
        if rolled is None:
            break  # a convolutional trunk has nothing to discard
    figure = attention_figures.overlays(
        seen.pictures, list(kinds.values()), labels=list(kinds), titles=seen.titles,
        smooth=seen.smooth,
    )  # fmt: skip
    names = ('rollout', 'discarded')
    yield 'rollout', figure, dict(zip(names, kinds.values(), strict=False))


def distance(seen: Seen) -> Iterator[Result]:
    """How far heads look, and how evenly."""
    weights = seen.trunk_weights()
    options: Any = {
        'grid': seen.grid, 'prefix': seen.prefix, 'patch_size': seen.model.patch_size
    }  # fmt: skip
    far = attention.mean_distance(weights, **options).mean(1)
    scaled = attention.mean_distance(weights, renormalize=True, **options).mean(1)
    entropy = attention.entropy(weights).mean(1)
    figure = attention_figures.distances(
        np.asarray(far), np.asarray(entropy), largest=float(np.log(weights.shape[-1]))
    )
    yield 'distance', figure, {'distance': far, 'renormalized': scaled, 'entropy': entropy}


def relevance(seen: Seen) -> Iterator[Result]:
    """Which patches speak for the class: attention weighted by its gradient."""
    trunk = None
    if WEIGHTS in seen.found:
        trunk = attention.relevance(seen.found[WEIGHTS], seen.grads[WEIGHTS])
    if CLASS_WEIGHTS in seen.found:
        weights, grads = seen.found[CLASS_WEIGHTS], seen.grads[CLASS_WEIGHTS]
        rows, prefix = _own_rows(seen, attention.class_relevance(weights, grads, trunk)), 1
    elif trunk is None:
        raise NoMeaning(f'{seen.kind} has no attention; see grad-cam')
    else:
        rows, prefix = _answer_rows(seen, trunk), seen.prefix
    maps = np.asarray(attention.to_grid(rows, grid=seen.grid, prefix=prefix))
    figure = attention_figures.overlays(
        seen.pictures, [maps], labels=['relevance'], titles=seen.titles,
        smooth=seen.smooth,
    )  # fmt: skip
    yield 'relevance', figure, {'maps': maps}


def _answer_rows(seen: Seen, matrix: Any) -> Any:
    """Of [B, N, N], the row that the head reads: the class token's, or the mean of all."""
    return matrix[:, 0] if getattr(seen.model, 'pool', '') == 'class' else matrix.mean(1)


def _own_rows(seen: Seen, rows: Any) -> Any:
    """Of class-attention rows [B, K, 1 + N], the one of the class that is asked about."""
    if rows.shape[1] == 1:
        return rows[:, 0]

    return rows[np.arange(len(rows)), seen.chosen]


# ---- Tokens ------------------------------------------------------------------------------------


def positions(seen: Seen) -> Iterator[Result]:
    """How alike position embeddings are."""
    embed = seen.params.get('embed', {})
    if 'position' in embed:
        table = embed['position']['table']
        prefix = len(table) - seen.grid[0] * seen.grid[1]
        kind = 'learned, interpolated' if seen.resized else 'learned'
    elif getattr(seen.model, 'position', None) == 'sincos':
        table, prefix, kind = sincos_positions(seen.grid, seen.model.width), 0, 'sine-cosine'
    else:
        raise NoMeaning(f'{seen.kind} has no position embeddings')
    similar = np.asarray(tokens.position_similarity(table, prefix=prefix))
    rows, columns = seen.grid
    title = f'position embeddings ({kind}), {rows}x{columns} patches'
    yield 'positions', token_figures.positions(similar, grid=seen.grid, title=title), {
        'similarity': similar
    }  # fmt: skip


def evolution(seen: Seen) -> Iterator[Result]:
    """How the class token comes to be what it ends as."""
    blocks = seen.tokens()
    if getattr(seen.model, 'pool', '') != 'class':
        raise NoMeaning(f'the trunk of this {seen.kind} has no class token; see lens')
    norm, cosine = map(np.asarray, tokens.evolution(blocks[:, :, 0]))
    figure = token_figures.over_depth(
        [norm, cosine],
        titles=['norm of the class token', 'cosine to the final class token'],
        ylabels=['norm', 'cosine'],
        labels=seen.names,
    )
    yield 'evolution', figure, {'norm': norm, 'cosine': cosine}


def lens(seen: Seen) -> Iterator[Result]:
    """What each layer would answer."""
    blocks = seen.tokens()
    read = jax.jit(lambda p, t: seen.model.apply({'params': p}, t, method='readout'))
    logits = tokens.lens(lambda t: read(seen.params, t), blocks)
    if seen.model.num_classes > 1:
        probability = np.asarray(jax.nn.softmax(logits).max(-1))
        names = [[seen.title(k) for k in row] for row in np.asarray(logits.argmax(-1))]
        decided = np.asarray(tokens.decided(logits))
        figure = token_figures.lens(probability, names, labels=seen.names, decided=decided)
        yield 'lens', figure, {'logits': logits, 'decided': decided}
        return
    if seen.model.num_classes == 1:
        values, title, unit = logits[..., 0], 'the logit that each layer would give', 'logit'
    else:  # no classes: how close each layer's features already are to the last one's
        values = tokens.evolution(logits)[1]
        title, unit = "each layer's features against the final ones", 'cosine'
    values = np.asarray(values)
    figure = token_figures.over_depth([values], titles=[title], ylabels=[unit], labels=seen.names)
    yield 'lens', figure, {'values': values, 'logits': logits}


def rank(seen: Seen) -> Iterator[Result]:
    """How many directions tokens use, and how alike they become."""
    maps = seen.feature_maps()
    if maps:
        layers = [m.reshape(m.shape[0], -1, m.shape[-1]) for m in maps.values()]
    else:
        layers = list(seen.tokens()[:, :, seen.prefix :])
    of_rank, of_cosine = jax.jit(tokens.effective_rank), jax.jit(tokens.patch_cosine)
    ranks = np.stack([of_rank(t) for t in layers])
    cosines = np.stack([of_cosine(t) for t in layers])
    figure = token_figures.over_depth(
        [ranks, cosines],
        titles=['effective rank of the patches', 'mean cosine between patches'],
        ylabels=['rank', 'cosine'],
        labels=seen.names,
        layers=tuple(maps),
    )
    yield 'rank', figure, {'effective_rank': ranks, 'patch_cosine': cosines}


def norms(seen: Seen) -> Iterator[Result]:
    """Lengths of patch tokens, where outliers show."""
    blocks = seen.tokens()[:, :, seen.prefix :]
    length = np.asarray(tokens.norms(blocks))
    layers = some(len(blocks), 3)
    maps = length[layers].reshape(len(layers), -1, *seen.grid)
    yield 'norms', token_figures.norms(seen.pictures, maps, layers=layers), {'norms': length}


def patches(seen: Seen) -> Iterator[Result]:
    """What the model is given: the patches of an image, and the image rebuilt from them."""
    if seen.kind not in ('ViT', 'CaiT'):
        raise NoMeaning(f'{seen.kind} reads pixels through convolutions, not patches')
    size = seen.model.patch_size
    cut = patchify(seen.pictures[:1], size)
    rebuilt = np.asarray(unpatchify(cut, seen.grid))
    pieces = np.asarray(cut[0]).reshape(-1, size, size, 3)
    figure = token_figures.patches(seen.pictures[0], pieces, rebuilt[0], columns=seen.grid[1])
    yield 'patches', figure, {'patches': pieces, 'rebuilt': rebuilt}


def activations(seen: Seen) -> Iterator[Result]:
    """Activations of some layers, patch by patch or channel by channel."""
    maps = seen.feature_maps()
    if maps:
        paths = [list(maps)[i] for i in some(len(maps), 4)]
        grey = [np.asarray(tokens.channels(maps[path][0])) for path in paths]
        titles = [
            f'{path}: {m.shape[2]} channels of {m.shape[0]}x{m.shape[1]}'
            + (', the first 64' if m.shape[2] > 64 else '')
            for path, m in zip(paths, grey, strict=True)
        ]
        arrays = dict(zip(paths, grey, strict=True))
        yield 'activations', token_figures.channels(grey, titles=titles), arrays
        return
    blocks = seen.tokens()[:, 0, seen.prefix :]
    layers = some(len(blocks), 3)
    blocks = blocks[jnp.array(layers)]
    spread = jnp.maximum(blocks.std(1, keepdims=True), tokens.TINY)
    alike = (
        blocks - blocks.mean(1, keepdims=True)
    ) / spread  # what is in all patches hides the rest
    tiles = np.asarray(tokens.tiles(alike, grid=seen.grid))
    titles = [f'layer {i + 1}, each channel standardised over patches' for i in layers]
    figure = token_figures.activations(seen.pictures[0], tiles, grid=seen.grid, titles=titles)
    yield 'activations', figure, {'tiles': tiles}


# ---- Gradients ---------------------------------------------------------------------------------


def grad_cam(seen: Seen) -> Iterator[Result]:
    """Where a layer speaks for the class."""
    path = seen.options.at or (
        'blocks' if 'blocks' in seen.found else list(seen.feature_maps())[-1]
    )
    if path not in seen.found:
        raise ValueError(f'--at must be one captured path: {path!r} is none.')
    values, grads = seen.found[path], seen.grads[path]
    label = path
    if path.startswith('blocks'):
        depth = len(values)
        # The last patches that a class token reads are those entering the last block.
        last = depth - 2 if getattr(seen.model, 'pool', '') == 'class' and depth > 1 else depth - 1
        layer = last if seen.options.layer is None else seen.layer(depth)
        values, grads, label = values[layer], grads[layer], f'{path}, layer {layer + 1}'
    if values.ndim == 3 and values.shape[1] == seen.prefix + seen.grid[0] * seen.grid[1]:
        values, grads = (
            x[:, seen.prefix :].reshape(len(x), *seen.grid, -1) for x in (values, grads)
        )
    if values.ndim != 4:
        raise ValueError(f'--at must have tokens or feature maps: {path} is {list(values.shape)}.')
    maps = gradients.grad_cam(values, grads)
    figure = attention_figures.overlays(
        seen.pictures, [np.asarray(maps)], labels=[f'Grad-CAM\n{label}'],
        titles=seen.titles, smooth=seen.smooth,
    )  # fmt: skip
    yield 'grad_cam', figure, {'maps': maps}


def filters(seen: Seen) -> Iterator[Result]:
    """What the first layer looks for."""
    embed = seen.params.get('embed', {})
    if 'patch' in embed:
        kernel = embed['patch']['projection']['kernel']
        size = seen.model.patch_size
        kernel, name = kernel.reshape(size, size, 3, -1), 'patch embedding'
    elif 'conv_1' in embed:
        kernel, name = embed['conv_1']['kernel'], "the stem's first convolution"
    else:
        name = f'conv_{seen.layer(len(seen.feature_maps())) + 1 if seen.options.layer else 1}'
        kernel = seen.params[name]['conv']['kernel']
    pictures = gradients.filters(kernel)
    components = None
    if kernel.shape[2] == 3:
        side = min(6, math.isqrt(min(kernel.shape[3], kernel[..., 0].size)))
        components = gradients.filter_components(kernel, side**2)
    title = f'{name}: {kernel.shape[3]} filters of {kernel.shape[0]}x{kernel.shape[1]}'
    if kernel.shape[2] == 3 and kernel.shape[3] > 64:
        title += ', the first 64'
    elif kernel.shape[2] != 3:
        title += '\n(one a row, input channels across, the first 16 of each)'
    figure = gradient_figures.filters(
        np.asarray(pictures), None if components is None else np.asarray(components), title=title
    )
    arrays = {'filters': pictures} | ({} if components is None else {'components': components})
    yield 'filters', figure, arrays


def maximize(seen: Seen) -> Iterator[Result]:
    """Inputs that units prefer: channels of a layer in the middle, and classes."""
    path = seen.options.at or _unit_path(seen)
    values = seen.found[path]
    model, params, layer = seen.model, seen.params, None
    label = path
    if path.startswith('blocks'):
        depth = len(values)
        layer = seen.layer(depth) if seen.options.layer else depth // 2
        model = model.clone(depth=layer + 1)  # what comes after has no say
        params = gradients.keep_layers(params, range(layer + 1))
        values, label = values[layer], f'layer {layer + 1}'
    means = np.asarray(values, np.float32).reshape(-1, values.shape[-1]).mean(0)
    channels = np.asarray(seen.options.channels or np.argsort(-means)[:4])
    if channels.min() < 0 or channels.max() >= len(means):
        raise ValueError(f'--channels must be 0 to {len(means) - 1} at {path}: got {channels}.')
    mean, deviation = (
        jnp.asarray(v) for v in (seen.preprocessing.mean, seen.preprocessing.deviation)
    )

    def of_channel(pixels: Any) -> Any:
        found = capture.capture(model, params, (pixels - mean) / deviation, keep=path)[1][path]
        found = found if layer is None else found[layer]
        if found.ndim == 3:
            found = found[:, -seen.grid[0] * seen.grid[1] :]
            found = found.reshape(len(found), *seen.grid, -1)
        return gradients.border_left_out(found)[jnp.arange(len(channels)), channels]

    def of_class(pixels: Any) -> Any:
        logits = seen.model.apply({'params': seen.params}, (pixels - mean) / deviation)
        return logits[jnp.arange(len(classes)), classes]

    key = jax.random.key(seen.options.seed)
    patch = getattr(seen.model, 'patch_size', 0)  # whose edges a transformer's gradients would show
    jitter = patch if seen.options.jitter is None else seen.options.jitter
    blur = patch / 14 if seen.options.blur is None else seen.options.blur
    unit = 'neuron' if path == HIDDEN else 'channel'
    goals = [(of_channel, channels, [f'{label}, {unit} {c}' for c in channels])]
    if seen.chosen is not None:
        classes = np.unique(seen.chosen)[:4]
        goals.append((of_class, classes, [seen.title(k) for k in classes]))
    pictures, titles = [], []
    for score, units, names in goals:
        start = gradients.grey_noise(key, (len(units), *seen.pixels.shape[1:]))
        options: Any = {
            'steps': seen.options.steps, 'jitter': jitter, 'blur': blur, 'key': key
        }  # fmt: skip
        ascend = jax.jit(
            lambda start, score=score, o=options: gradients.maximize(score, start, **o)
        )
        pictures.append(ascend(start))
        titles += names
    pixels = jnp.concatenate(pictures)
    shown = tokens.channels(pixels)
    yield (
        'maximize',
        gradient_figures.maximised(np.asarray(shown), titles=titles),
        {'pixels': pixels},
    )


def field(seen: Seen) -> Iterator[Result]:
    """The pixels that the centre of each layer sees."""
    images, maps = seen.images, seen.feature_maps()
    if maps:
        fields, titles = [], []
        for path in [list(maps)[i] for i in some(len(maps), 6)]:
            height, width = maps[path].shape[1:3]
            centre = height // 2 * width + width // 2

            def flat(x: Any, path: str = path) -> Any:
                found = capture.capture(seen.model, seen.params, x, keep=path)[1][path]
                return found.reshape(1, len(x), -1, found.shape[-1])

            fields.append(gradients.receptive_field(flat, images, token=centre, layers=(0,))[0])
            titles.append(path)
        fields = jnp.stack(fields)
    else:
        layers = some(len(seen.tokens()), 6)
        centre = seen.prefix + seen.centre[0] * seen.grid[1] + seen.centre[1]

        def forward(x: Any) -> Any:
            return capture.capture(seen.model, seen.params, x, keep='blocks')[1]['blocks']

        see = jax.jit(lambda x: gradients.receptive_field(forward, x, token=centre, layers=layers))
        fields = see(images)
        titles = [f'layer {i + 1}' for i in layers]
    sizes = np.asarray(gradients.field_size(fields))
    figure = gradient_figures.receptive_fields(np.asarray(fields), sizes, titles=titles)
    yield 'field', figure, {'fields': fields, 'sizes': sizes}


def importance(seen: Seen) -> Iterator[Result]:
    """What hangs on each head, and what is left without heads or layers."""
    depth = len(seen.tokens())
    measure, ylabel = _measure(seen)
    arrays: dict[str, Any] = {}
    heads = left = shares = None
    path = MIXED if MIXED in seen.found else WEIGHTS
    if path in seen.found:
        heads = np.asarray(gradients.head_importance(seen.found[path], seen.grads[path]))
        order = np.argsort(heads, axis=None)
        shares = np.linspace(0, 0.9, 10)
        left = []
        for share in shares:
            removed = np.zeros(heads.size, bool)
            removed[order[: round(share * heads.size)]] = True
            gone = jnp.asarray(removed.reshape(heads.shape))
            edited = gradients.remove_heads(seen.params, gone)
            left.append(measure(seen.model, edited))
        left = np.array(left)
        arrays = {'importance': heads, 'shares': shares, 'left': left}
    layers, without = some(depth, 24) if depth > 1 else [], []
    for layer in layers:
        kept = [i for i in range(depth) if i != layer]
        short = seen.model.clone(depth=depth - 1)
        without.append(measure(short, gradients.keep_layers(seen.params, kept)))
    arrays |= {'layers': np.array(layers), 'without': np.array(without)}
    figure = gradient_figures.importance(
        heads, shares, left, layers, np.array(without), ylabel=ylabel
    )
    yield 'importance', figure, arrays


def _measure(seen: Seen) -> tuple[Callable[[Any, Any], float], str]:
    """How well a model does: accuracy on labelled images, else likeness to the whole model."""
    data = _labelled(seen.experiment)
    if data is not None:

        def accuracy(model: Any, params: Any) -> float:
            logits = evaluate.predict(model, params, data, seen.preprocessing, 128)
            return evaluate.scores(logits, data.labels)['accuracy']

        return accuracy, f'accuracy, {len(data)} test images'

    apply = jax.jit(lambda m, p, x: m.apply({'params': p}, x), static_argnums=0)

    def likeness(model: Any, params: Any) -> float:
        return float(np.mean(tokens.cosines(apply(model, params, seen.images), seen.logits)))

    return likeness, 'cosine to the whole output'


def _labelled(experiment: Experiment, most: int = 256) -> sources.Data | None:
    """Some test images of a run, the same each time; None where its data are not its classes'."""
    try:
        data = sources.load(experiment.data, 'test')
    except ValueError:
        return None
    if data.classes != experiment.classes:
        return None
    some = np.random.default_rng(0).permutation(len(data))[:most]
    return sources.Data(data.images[some], data.labels[some], data.classes)


def _unit_path(seen: Seen) -> str:
    """Whose channels are maximised: neurons of the MLP, or feature maps."""
    maps = seen.feature_maps()
    return list(maps)[-1] if maps else HIDDEN if HIDDEN in seen.found else 'blocks'


# ---- The table ---------------------------------------------------------------------------------


class View(NamedTuple):
    """A view: its group, its function, which paths it reads, whether it reads gradients."""

    group: str
    draw: Callable[[Seen], Iterator[Result]]
    keep: str = ''
    gradients: bool = False


VIEWS = {
    'heads': View('attention', heads, f'{WEIGHTS}|{MIXED}'),
    'class-attention': View('attention', class_attention, CLASS_WEIGHTS),
    'rollout': View('attention', rollout, f'{WEIGHTS}|{CLASS_WEIGHTS}'),
    'distance': View('attention', distance, WEIGHTS),
    'relevance': View('attention', relevance, f'{WEIGHTS}|{CLASS_WEIGHTS}', True),
    'positions': View('tokens', positions),
    'evolution': View('tokens', evolution, 'blocks'),
    'lens': View('tokens', lens, 'blocks'),
    'rank': View('tokens', rank, f'blocks|{MAPS}'),
    'norms': View('tokens', norms, 'blocks'),
    'patches': View('tokens', patches),
    'activations': View('tokens', activations, f'blocks|{MAPS}'),
    'grad-cam': View('gradients', grad_cam, f'blocks|{MAPS}', True),
    'filters': View('gradients', filters, MAPS),
    'maximize': View('gradients', maximize, f'blocks|{HIDDEN}|{MAPS}'),
    'field': View('gradients', field, f'blocks|{MAPS}'),
    'importance': View('gradients', importance, f'blocks|{WEIGHTS}|{MIXED}', True),
}
GROUPS = ('attention', 'tokens', 'gradients')


def choose(what: tuple[str, ...]) -> list[str]:
    """Names of views, of groups or `all`, as views in the table's order.

    Raises:
        ValueError: for a name that is none of them, with what there is.
    """
    known = ('all', *GROUPS, *VIEWS)
    if not what:
        raise ValueError(f'say what to draw: {", ".join(known)}.')
    for name in what:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f'close: {", ".join(close)}' if close else f'there are {", ".join(known)}'
            raise ValueError(f'no view is named {name!r}; {hint}.')
    return [n for n, view in VIEWS.items() if {n, view.group, 'all'} & set(what)]


def gigabytes(
    experiment: Experiment, params: Any, count: int, names: list[str], at: str | None
) -> float:
    """What the arrays that views read take, for `count` images, gradients included."""
    shapes = _paths(experiment, params, count)
    elements = sum(math.prod(shapes[path]) for path in _kept(list(shapes), names, at))
    return elements * 4e-9 * (1 + _backward(names))


def look(
    experiment: Experiment, params: Any, photographs: tuple[str, ...], names: list[str],
    options: Options, resized: bool = False,
) -> Seen:  # fmt: skip
    """One pass through the model for all views, and one back if any of them reads gradients.

    Raises:
        ValueError: for a photograph that cannot be read, and for a path, class or patch that the
            model does not have.
    """
    prepared: Any = experiment.preprocessing  # pretrained.load fills it in
    pixels = images.squares(photographs, prepared)
    normalised: Any = images.normalise(pixels, prepared)
    known = list(_paths(experiment, params, len(pixels)))
    keep = '|'.join(map(re.escape, _kept(known, names, options.at)))
    target = _class_index(experiment, options.target)
    model: Any = experiment.model
    grads: dict[str, Any] = {}
    if _backward(names):
        goal = _goal(model.num_classes, target)
        logits, found, grads = capture.gradients(model, params, normalised, goal, keep=keep)
    else:
        logits, found = capture.capture(model, params, normalised, keep=keep)
    found, grads = jax.tree.map(lambda x: x.astype(jnp.float32), (found, grads))
    logits = np.asarray(logits)
    chosen = None
    if model.num_classes > 1:
        chosen = logits.argmax(1) if target is None else np.full(len(logits), target)
    return Seen(
        experiment, params, tuple(pathlib.Path(p).stem for p in photographs), pixels, normalised,
        logits, found, grads, chosen, options, resized,
    )  # fmt: skip


def _paths(experiment: Experiment, params: Any, count: int) -> dict[str, tuple[int, ...]]:
    prepared: Any = experiment.preprocessing
    blank: Any = np.broadcast_to(np.float32(0), (count, prepared.size, prepared.size, 3))
    return capture.paths(experiment.model, params, blank)


def _backward(names: list[str]) -> bool:
    return any(VIEWS[name].gradients for name in names)


def _kept(known: list[str], names: list[str], at: str | None) -> list[str]:
    """The paths that views read; any one if they read none, for the sake of the logits."""
    if at is not None and at not in known:
        close = difflib.get_close_matches(at, known, n=4) or known
        raise ValueError(
            f'--at must be a captured path: {at!r} is none; close: {", ".join(close)}.'
        )
    pattern = re.compile('|'.join(VIEWS[name].keep for name in names if VIEWS[name].keep) or '-')
    return [path for path in known if path == at or pattern.fullmatch(path)] or known[-1:]


def _class_index(experiment: Experiment, target: str | None) -> int | None:
    """The number of a class, by number or name."""
    count = experiment.model.num_classes  # type: ignore[attr-defined]
    if target is None:
        return None
    if count < 2:
        raise ValueError(f'--target {target}: the model has no classes to choose from.')
    if target.isdecimal() and int(target) < count:
        return int(target)
    names = [name.lower() for name in experiment.classes]
    found = [i for i, n in enumerate(names) if target.lower() in (n, *re.split(r',\s*', n))]
    if not found:
        close = difflib.get_close_matches(target.lower(), names, n=3)
        hint = f'; close: {"; ".join(close)}' if close else ''
        raise ValueError(f'--target must be a class or 0 to {count - 1}: {target!r}{hint}.')
    return found[0]


def _goal(num_classes: int, target: int | None) -> Callable[[jax.Array], jax.Array]:
    """What gradients are of: a class's logit, each image's largest, or the only one.

    Without classes, half the squared length of the features, whose gradient is the features.
    """
    if num_classes == 0:
        return lambda features: (features**2).sum() / 2
    if num_classes == 1:
        return lambda logits: logits.sum()
    if target is None:
        return lambda logits: logits.max(1).sum()
    return lambda logits: logits[:, target].sum()
