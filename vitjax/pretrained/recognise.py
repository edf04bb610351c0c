"""Contents of a file of published weights: its format, sizes and model."""

import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vitjax import models
from vitjax.layers.embed import square_grid
from vitjax.models.base import Model
from vitjax.pretrained.entries import Entry, Format, Weights
from vitjax.pretrained.formats import AUGREG, FORMATS, IGNORED, RENAMED, TRANSFORMERS_VIT

Held = dict[str, dict[str, np.ndarray]]  # by our path, then by name in the file
COLOUR = ('embed/patch/projection/kernel', 'embed/conv_1/kernel', 'conv_1/conv/kernel')


class Contents(NamedTuple):
    """Weights in a known format.

    Attributes:
        format: the format, one of `FORMATS`.
        weights: tensors by the names of the format's table.
        held: tensors that the format knows, by our path and their name.
        table: the entry of each parameter of the format that the file has names of.
    """

    format: Format
    weights: dict[str, np.ndarray]
    held: Held
    table: Mapping[str, Entry]

    def first(self, path: str) -> np.ndarray | None:
        """The first tensor of a parameter of ours; None if there is none."""
        return next(iter(self.held.get(path, {}).values()), None)

    def length(self, path: str, axis: str) -> int:
        """Length of a named axis of a parameter's first tensor; 0 if it is absent or misshapen."""
        tensor = self.first(path)
        return 0 if tensor is None else self.table[path].length(axis, tensor) or 0

    @property
    def patch_size(self) -> int | None:
        """Side of the patches in pixels; None for a stem of convolutions."""
        return self.length('embed/patch/projection/kernel', 'h') or None

    @property
    def class_tokens(self) -> int:
        """Number of class tokens in the trunk."""
        return len(self.held.get('embed/class_token', ()))

    @property
    def registers(self) -> int:
        """Number of registers."""
        return sum(each.shape[-2] for each in self.held.get('embed/registers', {}).values())

    @property
    def prefix_positions(self) -> tuple[str, int]:
        """Tokens before the patches that have positions, as `ViT` names them, and their number."""
        rows = self.length('embed/position/table', 'n')
        counts = {'class': self.class_tokens, 'none': 0, 'all': self.class_tokens + self.registers}
        fitting = [(kind, n) for kind, n in counts.items() if rows > n and square_grid(rows - n)]
        return fitting[0] if fitting else ('class', self.class_tokens)

    @property
    def positions(self) -> int:
        """Number of rows of the position table that stand for patches; 0 without a table."""
        return max(0, self.length('embed/position/table', 'n') - self.prefix_positions[1])

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the position table's square images; None if they are not square."""
        side = math.isqrt(self.positions)
        return side * self.patch_size if self.patch_size and side**2 == self.positions > 0 else None

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 if there is none."""
        for path in ('head/output/bias', 'head/bias'):
            if path in self.held:
                return sum(bias.size for bias in self.held[path].values())
        return self.length('head/output/kernel', 'o')


def contents(weights: Weights, kind: type[Model] | None = None) -> Contents:
    """Weights in the first format that knows most of their names.

    Prefixes that wrappers put before names are taken off: the one that leaves most names known.

    Args:
        weights: tensors by name, as `read` returns them.
        kind: class of the model; None considers the formats of all classes.

    Raises:
        ValueError: if no format knows more than half of the names; if the images that the weights
            are for have other than three channels.
    """
    formats = [each for each in FORMATS if kind in (None, each.model)]
    if not formats:
        raise ValueError(f'no published format has the parameters of {kind and kind.__name__}.')
    named = [_named(weights, prefix) for prefix in _prefixes(weights)]
    found = [_read(names, each) for names in named if names for each in formats]
    best = max(found or [_read({}, formats[0])], key=_known)
    if 2 * _known(best) <= len(best.weights):
        some = ', '.join(list(best.weights)[:3]) or 'nothing'
        names = ', '.join(each.name for each in formats)
        raise ValueError(f'the weights must have names of {names}: they have {some}, ...')
    _require_colour(best)
    return best


def _known(found: Contents) -> int:
    return len({name for tensors in found.held.values() for name in tensors})


def _prefixes(weights: Weights) -> list[str]:
    """Beginnings of names up to a dot or slash, without numbers; the empty one comes first."""
    found = {''}
    for name in weights:
        ends = (match.end() for match in re.finditer(r'[./]', name))
        found |= {name[:end] for end in ends if not re.search(r'(^|[./_])\d+[./]', name[:end])}
    return sorted(found, key=len)


def _named(weights: Weights, prefix: str) -> dict[str, np.ndarray]:
    """Weights by the names of the tables, without a prefix; none if two had the same name."""
    short: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        own = name.removeprefix(prefix)
        for pattern, replacement in RENAMED:
            own = re.sub(f'^{pattern}$', replacement, own)
        if IGNORED.fullmatch(own):
            continue
        if own in short:
            return {}
        short[own] = value
    return short


def _read(short: dict[str, np.ndarray], format: Format) -> Contents:
    """Weights in a format, and the parameters that they belong to."""
    # Any number in a name may be what {i} counts.
    spelled: dict[str, list[str]] = {}
    for name in short:
        numbers = [found.span() for found in re.finditer(r'\d+', name)]
        for spelling in [name, *(f'{name[:a]}{{i}}{name[b:]}' for a, b in numbers)]:
            spelled.setdefault(spelling, []).append(name)
    held: Held = {}
    table: dict[str, Entry] = {}
    for path, entries in format.paths.items():
        held_names = [[n for n in entry.names if n in spelled] for entry in entries]
        best = max(range(len(entries)), key=lambda i: (len(held_names[i]), -len(entries[i].names)))
        table[path] = entries[best]
        if held_names[best]:
            held[path] = {name: short[name] for n in held_names[best] for name in spelled[n]}
    return Contents(format, short, held, table)


def _require_colour(found: Contents) -> None:
    for path in COLOUR:
        for name, kernel in found.held.get(path, {}).items():
            if (channels := found.table[path].length('c', kernel)) not in (3, None):
                raise ValueError(
                    f'weights must be for images of 3 channels: {name} {[*kernel.shape]} is for '
                    f'{channels}.'
                )


def recognise(weights: Weights, path: str | pathlib.Path = '') -> str:
    """The published model that weights belong to, from their names and shapes.

    DeiT and ViT of one size have the same names and shapes, and different preprocessing. There the
    file's or a folder's name decides, if it has `deit` or `vit` in it.

    Raises:
        ValueError: if no published model fits, or more than one, with the candidates.

    Example:
        >>> block = ('norm1.weight', 'gamma_1', 'attn.proj_l.weight')
        >>> names = ['norm.weight', *(f'blocks.{i}.{name}' for i in range(24) for name in block)]
        >>> names += [f'blocks_token_only.{i}.norm1.weight' for i in range(2)]
        >>> recognise({name: np.zeros(192) for name in names})
        'cait_xxs24'
    """
    found = contents(weights)
    told = facts(found).items()
    known = [name for name in models.NAMES if fits(models.named(name), found)]
    if found.format in (TRANSFORMERS_VIT, AUGREG):
        known = [name for name in known if not name.startswith('deit')]
    if not known:
        sizes = ', '.join(f'{field} {value}' for field, value in told if value) or 'none'
        raise ValueError(
            f'the weights have {found.format.name} names, but no published size: {sizes}.'
        )
    for part in reversed(pathlib.Path(path).parts):
        family = [n for n in known if re.search(rf'(?<![a-z]){n.split("_")[0]}', part.lower())]
        if len(family) == 1:
            return family[0]
    if len(known) > 1:
        raise ValueError(
            f'the weights have the names and shapes of several models: {", ".join(known)}; '
            'name one with --model.'
        )
    return known[0]


def fits(model: Model, found: Contents) -> bool:
    """Returns True for a model of the format's class and of the sizes that the file tells."""
    return isinstance(model, found.format.model) and facts(found).items() <= facts_of(model).items()


def facts(found: Contents) -> dict[str, Any]:
    """Sizes of the model by names and shapes, except those that a damaged file does not tell."""

    def count(path: str) -> int:
        return len(found.held.get(path, {}))

    out: dict[str, Any] = {
        'depth': count('blocks/norm_1/scale') or count('blocks/norm/scale'),
        'class_depth': count('class_blocks/norm_1/scale'),
        'registers': found.registers,
        'layer_scale': bool(count('blocks/scale_1/scale') or count('blocks/scale/scale')),
        'class_tokens_per_class': count('head/kernel') > 1,
        'distilled': count('embed/class_token') > 1,
    }
    if (norm := found.first('norm/scale')) is not None:
        out['width'] = norm.size
    if found.patch_size:
        out['patch_size'] = found.patch_size
    return out


def vit_fields(found: Contents) -> dict[str, Any]:
    """Fields of a ViT by the names and shapes of its weights.

    They leave out the number of heads, the nonlinearity if it is no SwiGLU, fixed rotary
    embeddings, and whether the head reads the class token or the mean if there are both and nothing
    that belongs to one.
    """
    has, known = found.held.__contains__, facts(found)
    clip = has('embed/norm/scale')
    hidden, ratio = _mlp(found)
    parts = len(found.table['blocks/mlp/hidden/kernel'].names)
    gated = parts * found.length('blocks/mlp/hidden/kernel', 'o') == 2 * hidden
    width = known.get('width') or 1
    out: dict[str, Any] = {
        'qkv_bias': has('blocks/attention/qkv/bias'),
        'key_bias': len(found.table['blocks/attention/qkv/bias'].names) != 2,
        'qk_norm': has('blocks/attention/query_norm/scale'),
        'mlp_norm': has('blocks/mlp/norm/scale'),
        'mlp_ratio': ratio,
        'pre_norm': clip,
        'patch_norm': has('embed/patch_norm/scale'),
        'prefix_positions': found.prefix_positions[0],
    }
    if gated:
        out['mlp'] = 'swiglu'
    if has('blocks/norm_1/scale') and not has('blocks/norm_1/bias'):
        out |= {'norm': 'rms', 'bias': has('blocks/attention/projection/bias')}
    if clip:  # others always have these biases, and a file without them is damaged
        out['patch_bias'] = has('embed/patch/projection/bias')
        out['head_bias'] = has('head/output/bias') or not has('head/output/kernel')
    if has('blocks/attention/frequencies'):
        out['rope'] = 'mixed'
    return out | _pooling(found, width)


def cait_fields(found: Contents) -> dict[str, Any]:
    """Fields of a CaiT by the names and shapes of its weights; talking heads tell their number."""
    sizes = facts(found)
    names = ('patch_size', 'width', 'depth', 'class_depth')
    return {name: sizes[name] for name in names if name in sizes} | {
        'num_heads': found.length('blocks/attention/mix_logits/kernel', 'o') or 1,
        'mlp_ratio': _mlp(found)[1],
        'qkv_bias': 'blocks/attention/qkv/bias' in found.held,
        'layer_scale': 1.0 if sizes['layer_scale'] else None,
    }


def _mlp(found: Contents) -> tuple[int, float]:
    """Hidden width of the MLP, and the ratio that gives it."""
    hidden, width = found.length('blocks/mlp/output/kernel', 'i'), facts(found).get('width') or 1
    ratio = hidden / width
    return hidden, ratio if int(width * ratio) == hidden else ratio + 0.5 / width


def _pooling(found: Contents, width: int) -> dict[str, Any]:
    after = found.table['norm/scale'].names[0].startswith('fc_norm')
    if 'class_token' in found.held:
        pool = 'map'
    elif found.class_tokens > 1:
        pool = 'distilled'
    elif found.length('head/output/kernel', 'i') == 2 * width:
        pool = 'class_and_mean'
    else:
        pool = 'class' if found.class_tokens and not after else 'mean'
    return {'pool': pool, 'fc_norm': after} if pool == 'mean' else {'pool': pool}


def facts_of(model: Model) -> dict[str, Any]:
    """The `facts` of a model's weights."""
    fields = vars(model)
    same = ('depth', 'class_depth', 'registers', 'class_tokens_per_class', 'width', 'patch_size')
    return {name: fields.get(name, 0) for name in same} | {
        'layer_scale': fields.get('layer_scale') is not None,
        'distilled': fields.get('pool') == 'distilled',
    }
