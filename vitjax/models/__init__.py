"""Models, and `named`, which makes one of a published size.

Each file has an architecture and `PUBLISHED`, the table of its published sizes. To add one, write
`models/x.py` and add it here.
"""

import difflib
from typing import Any

from vitjax.base import fields
from vitjax.models import cait, convnet, patchconvnet, vit
from vitjax.models.cait import CaiT
from vitjax.models.convnet import VGG16, ConvNet
from vitjax.models.patchconvnet import PatchConvNet
from vitjax.models.vit import ViT

__all__ = ['KINDS', 'NAMES', 'VGG16', 'CaiT', 'ConvNet', 'PatchConvNet', 'ViT', 'named']

_PUBLISHED = vit.PUBLISHED | cait.PUBLISHED | patchconvnet.PUBLISHED | convnet.PUBLISHED
NAMES = tuple(_PUBLISHED)
KINDS = {type(model).__name__: type(model) for model in _PUBLISHED.values()}  # by class name


def named(name: str, **overrides: Any) -> Any:
    """Published model of a name, with fields replaced.

    Stochastic depth is the published training rate of CaiT and DeiT, else 0: DeiT III drops every
    block at one rate, which ViT here does not. DINOv2 has no head of its own, so its `num_classes`
    is 0 by default. The lecture's `convnet` has one output.

    Args:
        name: one of `NAMES`.
        **overrides: fields of the model and their values.

    Raises:
        ValueError: if the name is unknown, with close ones, if a field is, or if a field does not
            take its value.

    Example:
        >>> model = named('cait_xxs24', num_classes=10)
        >>> model.width, model.depth, model.num_classes
        (192, 24, 10)
    """
    if name not in _PUBLISHED:
        close = difflib.get_close_matches(name, NAMES, n=4, cutoff=0.5) or NAMES
        raise ValueError(f'no model is named {name!r}; close: {", ".join(close)}.')
    model = _PUBLISHED[name]
    for field, value in overrides.items():
        model = fields.replace(model, field, value)
    fields.require(model, 'model')
    return model
