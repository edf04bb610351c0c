"""Contents of a file of published weights: its format, its sizes, and its model."""

import math
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from vitjax import models
from vitjax.models.base import Model
from vitjax.pretrained.formats import AUGREG, FORMATS, IGNORED, PREFIXES, RENAMED, Table, Weights

Held = dict[str, dict[str, np.ndarray]]  # by parameter of ours, then by name in the file


class Contents(NamedTuple):
    """Weights in a known format.

    Attributes:
        label: the format, one of `FORMATS`.
        weights: tensors under the names that the format's table has.
        held: those that the table knows, by the parameter of ours that they belong to.
    """

    label: str
    weights: dict[str, np.ndarray]
    held: Held

    @property
    def patch_size(self) -> int | None:
        """Side of the patches in pixels; None for a stem of convolutions."""
        for kernel in self.held.get('embed/patch/projection/kernel', {}).values():
            if kernel.ndim == 4:
                return kernel.shape[0 if self.label == AUGREG else 2]
        return None

    @property
    def positions(self) -> int:
        """Rows of the position table that stand for patches; 0 without one."""
        for table in self.held.get('embed/position/table', {}).values():
            tokens = len(self.held.get('embed/class_token', ()))
            return max(0, table.shape[-2] - tokens) if table.ndim == 3 else 0
        return 0

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the square images of the position table; None if it is not of one."""
        side = math.isqrt(self.positions)
        return side * self.patch_size if self.patch_size and side**2 == self.positions > 0 else None

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 if there is none."""
        biases = self.held.get('head/output/bias', self.held.get('head/bias', {}))
        return sum(bias.size for bias in biases.values())


def contents(weights: Weights, kind: type[Model] | None = None) -> Contents:
    """Weights in the format that knows most of their names, and has fewest of its own.

    Where a file has positions for the patches alone, the class token's is a row of zeros here,
    which is the same: files with registers, and DeiT III's, whose sign is LayerScale. Elsewhere a
    table without that row is damaged.

    Args:
        weights: tensors by name, as `read` returns them.
        kind: whose formats to consider; None is all of them.

    Raises:
        ValueError: if no format knows more than half of the names; if the images that the weights
            are for have other than three channels.
    """
    weights = {k: v for k, v in _unwrapped(weights).items() if not IGNORED.fullmatch(k)}
    tables = {label: table for label, (own, table) in FORMATS.items() if kind in (None, own)}
    if not tables:
        raise ValueError(f'no published format has the parameters of {kind and kind.__name__}.')
    every = {label: _by_parameter(weights, table) for label, table in tables.items()}
    known = {label: sum(map(len, held.values())) for label, held in every.items()}
    best = max(tables, key=lambda label: (known[label], -len(tables[label])))
    if 2 * known[best] <= len(weights):
        some = ', '.join(list(weights)[:3]) or 'nothing'
        labels = ', '.join(tables)
        raise ValueError(f'the weights must have names of {labels}: they have {some}, ...')
    held = every[best]
    _require_colour(held, best)
    if 'embed/class_token' in held and {'embed/registers', 'blocks/scale_1/scale'} & held.keys():
        for name, table in held.get('embed/position/table', {}).items():
            if table.ndim == 3 and math.isqrt(table.shape[1]) ** 2 == table.shape[1]:
                weights[name] = np.pad(table, ((0, 0), (1, 0), (0, 0)))
                held['embed/position/table'] = {name: weights[name]}
    return Contents(best, weights, held)


def _require_colour(held: Held, label: str) -> None:
    for path in ('embed/patch/projection/kernel', 'embed/conv_1/kernel', 'conv_1/conv/kernel'):
        for name, kernel in held.get(path, {}).items():
            channels = kernel.shape[2 if label == AUGREG else 1] if kernel.ndim == 4 else 3
            if channels != 3:
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
    holds = contents(weights)
    told, kind = facts(holds).items(), FORMATS[holds.label][0]
    known = {name: models.named(name) for name in models.NAMES}
    known = {name: model for name, model in known.items() if isinstance(model, kind)}
    found = [name for name, model in known.items() if told <= facts_of(model).items()]
    if holds.label in ("transformers' ViT", AUGREG):
        found = [name for name in found if not name.startswith('deit')]
    if not found:
        sizes = ', '.join(f'{field} {value}' for field, value in told if value) or 'none'
        raise ValueError(f'the weights have {holds.label} names, but no published size: {sizes}.')
    for part in reversed(pathlib.Path(path).parts):
        family = [n for n in found if re.search(rf'(?<![a-z]){n.split("_")[0]}', part.lower())]
        if len(family) == 1:
            return family[0]
    if len(found) > 1:
        raise ValueError(
            f'the weights have the names and shapes of several models: {", ".join(found)}; '
            'name one with --model.'
        )
    return found[0]


def facts(holds: Contents) -> dict[str, Any]:
    """Sizes of the model by names and shapes; without those that a damaged file does not tell."""
    held = holds.held

    def count(path: str) -> int:
        return len(held.get(path, {}))

    out: dict[str, Any] = {
        'depth': count('blocks/norm_1/scale') or count('blocks/norm/scale'),
        'class_depth': count('class_blocks/norm_1/scale'),
        'registers': sum(token.shape[-2] for token in held.get('embed/registers', {}).values()),
        'layer_scale': bool(count('blocks/scale_1/scale') or count('blocks/scale/scale')),
        'class_tokens_per_class': count('head/kernel') > 1,
        'distilled': count('embed/class_token') > 1,
    }
    for norm in held.get('norm/scale', {}).values():
        out['width'] = norm.size
    if holds.patch_size:
        out['patch_size'] = holds.patch_size
    return out


def shapes(holds: Contents) -> dict[str, Any]:
    """Other fields of a ViT by its weights' shapes: `mlp_ratio` and `qkv_bias`."""
    out: dict[str, Any] = {'qkv_bias': 'blocks/attention/qkv/bias' in holds.held}
    for hidden in holds.held.get('blocks/mlp/hidden/bias', {}).values():
        if width := facts(holds).get('width'):
            ratio = hidden.size / width
            out['mlp_ratio'] = ratio if int(width * ratio) == hidden.size else ratio + 0.5 / width
    return out


def facts_of(model: Model) -> dict[str, Any]:
    """The `facts` that a model's weights must have."""
    fields = vars(model)
    same = ('depth', 'class_depth', 'registers', 'class_tokens_per_class', 'width', 'patch_size')
    return {name: fields.get(name, 0) for name in same} | {
        'layer_scale': fields.get('layer_scale') is not None,
        'distilled': fields.get('pool') == 'distilled',
    }


def _unwrapped(weights: Weights) -> dict[str, np.ndarray]:
    """Weights under the names that the tables have: without wrappers' prefixes."""
    out: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        short = name
        while prefix := next((p for p in PREFIXES if short.startswith(p)), None):
            short = short.removeprefix(prefix)
        for pattern, replacement in RENAMED:
            short = re.sub(f'^{pattern}$', replacement, short)
        if short in out:
            raise ValueError(f'the weights hold {short} twice, once as {name}.')
        out[short] = value
    return out


def _by_parameter(weights: Weights, table: Table) -> Held:
    """The tensors whose names a table knows, by the parameter of ours that they belong to."""
    paths = {
        name: path
        for path, entry in table.items()
        for name in (entry if isinstance(entry, str) else entry[0]).split()
    }
    held: Held = {}
    for name, value in weights.items():
        # Any number in a name may be what {i} counts.
        numbers = [m.span() for m in re.finditer(r'\d+', name)]
        for spelling in [name, *(f'{name[:a]}{{i}}{name[b:]}' for a, b in numbers)]:
            end = max(spelling.rfind('.'), spelling.rfind('/')) + 1
            module, leaf = spelling[:end], spelling[end:]
            if spelling in paths:
                held.setdefault(paths[spelling], {})[name] = value
            elif module in paths:
                leaf = ('scale' if value.ndim == 1 else 'kernel') if leaf == 'weight' else leaf
                held.setdefault(f'{paths[module]}/{leaf}', {})[name] = value
    return held
