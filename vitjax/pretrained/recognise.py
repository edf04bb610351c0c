"""What a file of published weights holds: its format, its sizes, and whose they are."""

import math
import pathlib
import re
from typing import Any

import flax.linen as nn
import numpy as np

from vitjax import models
from vitjax.pretrained.formats import FORMATS, PREFIXES, RENAMED, Table, Weights

Held = dict[str, dict[str, np.ndarray]]


def recognise(weights: Weights, path: str | pathlib.Path = '') -> str:
    """The published model that weights belong to, from their names and shapes.

    DeiT and ViT of one size have the same names and shapes, and different preprocessing. There the
    file's or a folder's name decides, if it says `deit` or `vit`.

    Raises:
        ValueError: if no published model fits, or more than one, with the candidates.
    """
    weights = strip(weights)
    label = format_of(weights)
    kind, table = FORMATS[label]
    facts = _facts(tensors_of(weights, table))
    found = [
        name
        for name in models.NAMES
        if isinstance(model := models.named(name), kind) and facts.items() <= _fields(model).items()
    ]
    if label in ("transformers' ViT", "AugReg's"):
        found = [name for name in found if not name.startswith('deit')]
    if not found:
        sizes = ', '.join(f'{field} {value}' for field, value in facts.items() if value)
        raise ValueError(f'the weights have {label} names, but no published size: {sizes}.')
    for part in reversed(pathlib.Path(path).parts):
        named = [
            name for name in found if re.search(rf'(?<![a-z]){name.split("_")[0]}', part.lower())
        ]
        if len(named) == 1:
            return named[0]
    if len(found) > 1:
        raise ValueError(
            f'the weights have the names and shapes of several models: {", ".join(found)}; '
            'name one with --model.'
        )
    return found[0]


def strip(weights: Weights) -> dict[str, np.ndarray]:
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


def format_of(weights: Weights, kind: type[nn.Module] | None = None) -> str:
    """The format that knows most of the names, and has fewest of its own."""

    def fit(label: str) -> tuple[int, int]:
        table = FORMATS[label][1]
        return sum(map(len, tensors_of(weights, table).values())), -len(table)

    fits = {n: fit(n) for n, (model, _) in FORMATS.items() if kind in (None, model)}
    best = max(fits, key=fits.__getitem__, default=None)
    if best is None or 2 * fits[best][0] <= len(weights):
        known = ', '.join(fits) or f'a published format, and {kind} has none'
        some = ', '.join(list(weights)[:3]) or 'nothing'
        raise ValueError(f'the weights must have names of {known}: they have {some}, ...')
    return best


def tensors_of(weights: Weights, table: Table) -> Held:
    """The tensors whose names a table knows, by the parameter of ours that they belong to."""
    paths = {entry if isinstance(entry, str) else entry[0]: path for path, entry in table.items()}
    held: Held = {}
    for name, value in weights.items():
        general = re.sub(r'(?<=[./])(query|key|value)(?=[./])', '{qkv}', name)
        numbers = [m.span() for m in re.finditer(r'\d+', general)]
        for spelling in [general, *(f'{general[:a]}{{i}}{general[b:]}' for a, b in numbers)]:
            end = max(spelling.rfind('.'), spelling.rfind('/')) + 1
            module, leaf = spelling[:end], spelling[end:]
            if spelling in paths:
                held.setdefault(paths[spelling], {})[name] = value
            elif module in paths:
                leaf = ('scale' if value.ndim == 1 else 'kernel') if leaf == 'weight' else leaf
                held.setdefault(f'{paths[module]}/{leaf}', {})[name] = value
    return held


def _facts(held: Held) -> dict[str, Any]:
    """What names and shapes say of the model; what a damaged file does not say is left out."""

    def count(path: str) -> int:
        return len(held.get(path, {}))

    facts: dict[str, Any] = {
        'depth': count('blocks/norm_1/scale') or count('blocks/norm/scale'),
        'class_depth': count('class_blocks/norm_1/scale'),
        'registers': sum(token.shape[-2] for token in held.get('embed/registers', {}).values()),
        'layer_scale': bool(count('blocks/scale_1/scale') or count('blocks/scale/scale')),
        'class_tokens_per_class': count('head/kernel') > 1,
    }
    for norm in held.get('norm/scale', {}).values():
        facts['width'] = norm.size
    if patch := patch_size_of(held):
        facts['patch_size'] = patch
    return facts


def _fields(model: nn.Module) -> dict[str, Any]:
    """What `_facts` must say of a model's weights."""
    names = ('depth', 'class_depth', 'registers', 'class_tokens_per_class', 'width', 'patch_size')
    layer_scale = getattr(model, 'layer_scale', None) is not None
    return {name: getattr(model, name, 0) for name in names} | {'layer_scale': layer_scale}


def patch_size_of(held: Held) -> int | None:
    """Side of the patches in pixels; None for a stem of convolutions."""
    for kernel in held.get('embed/patch/projection/kernel', {}).values():
        if kernel.ndim == 4:  # PyTorch's order has the three channels second, flax's third
            return kernel.shape[2] if kernel.shape[1] == 3 else kernel.shape[0]
    return None


def image_size_of(held: Held) -> int | None:
    """The side in pixels that the position embeddings were made for; None without them."""
    patch = patch_size_of(held)
    for positions in held.get('embed/position/table', {}).values():
        rows = positions.shape[-2] if positions.ndim == 3 else 0
        side = math.isqrt(rows)
        if patch and side**2 in (rows, rows - 1):  # a class token may have a row
            return side * patch or None
    return None


def classes_of(held: Held) -> int:
    """Outputs of the head; 0 if there is none."""
    biases = held.get('head/output/bias', held.get('head/bias', {}))
    return sum(bias.size for bias in biases.values())
