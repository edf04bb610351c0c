"""The models and `named`, the one table of published sizes."""

import difflib
from typing import Any

import flax.linen as nn

from vitjax.models.cait import CaiT
from vitjax.models.convnet import VGG16, ConvNet
from vitjax.models.patchconvnet import PatchConvNet
from vitjax.models.vit import ViT

__all__ = ['NAMES', 'VGG16', 'CaiT', 'ConvNet', 'PatchConvNet', 'ViT', 'named']

_VIT = {  # width, depth, heads: Dosovitskiy et al. 2021, table 1; tiny and small from DeiT
    'tiny': (192, 12, 3),
    'small': (384, 12, 6),
    'base': (768, 12, 12),
    'large': (1024, 24, 16),
    'huge': (1280, 32, 16),
}
_DEIT3 = {  # width, depth, heads, patch: Touvron et al. 2022, and their code for medium
    'small': (384, 12, 6, 16),
    'medium': (512, 12, 8, 16),
    'base': (768, 12, 12, 16),
    'large': (1024, 24, 16, 16),
    'huge': (1280, 32, 16, 14),
}
_CAIT = {  # width, depth, LayerScale, stochastic depth: Touvron et al. 2021, tables 3, 8 and code
    'xxs24': (192, 24, 1e-5, 0.05),
    'xxs36': (192, 36, 1e-5, 0.1),
    'xs24': (288, 24, 1e-5, 0.05),
    's24': (384, 24, 1e-5, 0.1),
    's36': (384, 36, 1e-6, 0.2),
    'm36': (768, 36, 1e-6, 0.3),
    'm48': (768, 48, 1e-6, 0.4),
}
_PATCHCONVNET = {  # width, depth: Touvron et al. 2021b, table 3
    's60': (384, 60),
    's120': (384, 120),
    'b60': (768, 60),
    'b120': (768, 120),
    'l60': (1024, 60),
    'l120': (1024, 120),
}


def _table() -> dict[str, nn.Module]:
    table: dict[str, nn.Module] = {}
    for size, (width, depth, heads) in _VIT.items():
        shape: dict[str, Any] = {'width': width, 'depth': depth, 'num_heads': heads}
        for patch in (8, 14, 16, 32):
            table[f'vit_{size}_patch{patch}'] = ViT(patch_size=patch, **shape)
        if size in ('tiny', 'small', 'base'):
            deit = ViT(patch_size=16, drop_path=0.1, **shape)
            table[f'deit_{size}_patch16'] = deit
            table[f'deit_{size}_distilled_patch16'] = deit.clone(pool='distilled')
        if size in ('small', 'base', 'large'):
            shape |= {'patch_size': 14, 'layer_scale': 1.0, 'num_classes': 0}
            table[f'vit_{size}_patch14_dinov2'] = ViT(**shape)
            table[f'vit_{size}_patch14_reg4_dinov2'] = ViT(registers=4, **shape)
    for size, (width, depth, heads, patch) in _DEIT3.items():
        shape = {'patch_size': patch, 'width': width, 'depth': depth, 'num_heads': heads}
        table[f'deit3_{size}_patch{patch}'] = ViT(layer_scale=1e-4, **shape)
    for size, (width, depth, scale, drop) in _CAIT.items():
        table[f'cait_{size}'] = CaiT(
            width=width, depth=depth, num_heads=width // 48, layer_scale=scale, drop_path=drop
        )
    for size, (width, depth) in _PATCHCONVNET.items():
        # The reference starts S60's LayerScale at 1e-4 and every other's at 1e-6.
        scale = 1e-4 if size == 's60' else 1e-6
        table[f'patchconvnet_{size}'] = PatchConvNet(width=width, depth=depth, layer_scale=scale)
    table['patchconvnet_s60_multi'] = PatchConvNet(
        width=384, depth=60, layer_scale=1e-4, class_tokens_per_class=True
    )
    table['convnet'] = ConvNet()
    table['vgg16'] = VGG16()
    return table


_TABLE = _table()
NAMES = tuple(_TABLE)


def named(name: str, **overrides: Any) -> Any:
    """A published model by name, with fields replaced: `named('cait_xxs24', num_classes=10)`.

    Stochastic depth is the published training rate of CaiT and DeiT, else 0 (DeiT III drops every
    block at one rate, ViT here does not). DINOv2 has no head of its own: `num_classes` is 0 there
    unless given. The lecture's `convnet` has one output.

    Raises:
        ValueError: for an unknown name, with the close ones, and for an unknown field.
    """
    if name not in _TABLE:
        close = difflib.get_close_matches(name, NAMES, n=4, cutoff=0.5) or NAMES
        raise ValueError(f'no model is named {name!r}; close: {", ".join(close)}.')
    model = _TABLE[name]
    fields = [f for f in model.__dataclass_fields__ if f not in ('parent', 'name')]
    for field in overrides:
        if field not in fields:
            close = difflib.get_close_matches(field, fields, n=3) or fields
            raise ValueError(
                f'{type(model).__name__} has no field {field!r}; close: {", ".join(close)}.'
            )
    return model.clone(**overrides)
