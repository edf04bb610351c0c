"""Contents of a file of published weights: its format, sizes and model."""

import math
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from vitjax import models
from vitjax.models.base import Model
from vitjax.pretrained import formats
from vitjax.pretrained.formats import Format, Weights

Held = dict[str, dict[str, np.ndarray]]  # by our path, then by name in the file
COLOUR = ('embed/patch/projection/kernel', 'embed/conv_1/kernel', 'conv_1/conv/kernel')


class Contents(NamedTuple):
    """Weights in a known format.

    Attributes:
        format: the format, one of `formats.FORMATS`.
        weights: tensors by the names of the format's table.
        held: tensors that the table knows, by our path and their name.
    """

    format: Format
    weights: dict[str, np.ndarray]
    held: Held

    def first(self, path: str) -> np.ndarray | None:
        """The first tensor of a parameter of ours; None if there is none."""
        return next(iter(self.held.get(path, {}).values()), None)

    def count(self, path: str) -> int:
        """Number of tensors that hold a parameter of ours."""
        return len(self.held.get(path, ()))

    @property
    def known(self) -> int:
        """Number of tensors that the format knows."""
        return sum(map(len, self.held.values()))

    @property
    def patch_size(self) -> int | None:
        """Side of the patches in pixels; None for a stem of convolutions."""
        path = 'embed/patch/projection/kernel'
        kernel = self.first(path)
        return None if kernel is None else self.format.table[path].length('h', kernel)

    @property
    def positions(self) -> int:
        """Number of rows of the position table that stand for patches; 0 without a table."""
        table = self.first('embed/position/table')
        if table is None or table.ndim != 3:
            return 0
        return max(0, table.shape[-2] - self.count('embed/class_token'))

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the position table's square images; None if they are not square."""
        side = math.isqrt(self.positions)
        return side * self.patch_size if self.patch_size and side**2 == self.positions > 0 else None

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 if there is none."""
        biases = self.held.get('head/output/bias', self.held.get('head/bias', {}))
        return sum(bias.size for bias in biases.values())


def contents(weights: Weights, kind: type[Model] | None = None) -> Contents:
    """Weights in the format that knows most of their names and has the smallest table.

    If a file has positions for the patches alone, the class token gets a row of zeros, which is
    equivalent. Such files have registers, or are DeiT III's, which have LayerScale. In other files
    the missing row is damage.

    Args:
        weights: tensors by name, as `read` returns them.
        kind: class of the model; None considers the formats of all classes.

    Raises:
        ValueError: if no format knows more than half of the names; if the images that the weights
            are for have other than three channels.
    """
    weights = {k: v for k, v in _unwrapped(weights).items() if not formats.IGNORED.fullmatch(k)}
    known = [each for each in formats.FORMATS if kind in (None, each.model)]
    if not known:
        raise ValueError(f'no published format has the parameters of {kind and kind.__name__}.')
    found = [Contents(each, weights, _by_parameter(weights, each)) for each in known]
    best = max(found, key=lambda each: (each.known, -len(each.format.table)))
    if 2 * best.known <= len(weights):
        some = ', '.join(list(weights)[:3]) or 'nothing'
        names = ', '.join(each.name for each in known)
        raise ValueError(f'the weights must have names of {names}: they have {some}, ...')
    held = best.held
    for path in COLOUR:
        for name, kernel in held.get(path, {}).items():
            if (channels := best.format.table[path].length('c', kernel)) not in (3, None):
                there = f'{name} {[*kernel.shape]} is for {channels}'
                raise ValueError(f'weights must be for images of 3 channels: {there}.')
    if 'embed/class_token' in held and {'embed/registers', 'blocks/scale_1/scale'} & held.keys():
        for name, table in held.get('embed/position/table', {}).items():
            if table.ndim == 3 and math.isqrt(table.shape[1]) ** 2 == table.shape[1]:
                weights[name] = np.pad(table, ((0, 0), (1, 0), (0, 0)))
                held['embed/position/table'] = {name: weights[name]}
    return best


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
    if found.format in (formats.TRANSFORMERS_VIT, formats.AUGREG):
        known = [name for name in known if not name.startswith('deit')]
    if not known:
        sizes = ', '.join(f'{field} {value}' for field, value in told if value) or 'none'
        rule = f'the weights have {found.format.name} names, but no published size'
        raise ValueError(f'{rule}: {sizes}.')
    for part in reversed(pathlib.Path(path).parts):
        family = [n for n in known if re.search(rf'(?<![a-z]){n.split("_")[0]}', part.lower())]
        if len(family) == 1:
            return family[0]
    if len(known) > 1:
        rule = 'the weights have the names and shapes of several models'
        raise ValueError(f'{rule}: {", ".join(known)}; name one with --model.')
    return known[0]


def fits(model: Model, found: Contents) -> bool:
    """Returns True for a model of the format's class and of the sizes that the file tells."""
    return isinstance(model, found.format.model) and facts(found).items() <= facts_of(model).items()


def facts(found: Contents) -> dict[str, Any]:
    """Sizes of the model by names and shapes, except those that a damaged file does not tell."""
    count = found.count
    out: dict[str, Any] = {
        'depth': count('blocks/norm_1/scale') or count('blocks/norm/scale'),
        'class_depth': count('class_blocks/norm_1/scale'),
        'registers': sum(each.shape[-2] for each in found.held.get('embed/registers', {}).values()),
        'layer_scale': bool(count('blocks/scale_1/scale') or count('blocks/scale/scale')),
        'class_tokens_per_class': count('head/kernel') > 1,
        'distilled': count('embed/class_token') > 1,
    }
    if (norm := found.first('norm/scale')) is not None:
        out['width'] = norm.size
    if found.patch_size:
        out['patch_size'] = found.patch_size
    return out


def shapes(found: Contents) -> dict[str, Any]:
    """More fields of a ViT by its weights' shapes: `mlp_ratio` and `qkv_bias`."""
    out: dict[str, Any] = {'qkv_bias': 'blocks/attention/qkv/bias' in found.held}
    hidden, width = found.first('blocks/mlp/hidden/bias'), facts(found).get('width')
    if hidden is not None and width:
        ratio = hidden.size / width
        out['mlp_ratio'] = ratio if int(width * ratio) == hidden.size else ratio + 0.5 / width
    return out


def facts_of(model: Model) -> dict[str, Any]:
    """The `facts` of a model's weights."""
    fields = vars(model)
    same = ('depth', 'class_depth', 'registers', 'class_tokens_per_class', 'width', 'patch_size')
    return {name: fields.get(name, 0) for name in same} | {
        'layer_scale': fields.get('layer_scale') is not None,
        'distilled': fields.get('pool') == 'distilled',
    }


def _unwrapped(weights: Weights) -> dict[str, np.ndarray]:
    """Weights by the names of the tables: without wrappers' prefixes."""
    out: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        short = name
        while prefix := next((p for p in formats.PREFIXES if short.startswith(p)), None):
            short = short.removeprefix(prefix)
        for pattern, replacement in formats.RENAMED:
            short = re.sub(f'^{pattern}$', replacement, short)
        if short in out:
            raise ValueError(f'the weights hold {short} twice, once as {name}.')
        out[short] = value
    return out


def _by_parameter(weights: Weights, format: Format) -> Held:
    """The tensors that a format knows, by our path and their name."""
    paths = {name: entry.path for entry in format.entries for name in entry.names}
    held: Held = {}
    for name, value in weights.items():
        # Any number in a name may be what {i} counts.
        numbers = [found.span() for found in re.finditer(r'\d+', name)]
        for spelling in [name, *(f'{name[:a]}{{i}}{name[b:]}' for a, b in numbers)]:
            if spelling in paths:
                held.setdefault(paths[spelling], {})[name] = value
    return held
