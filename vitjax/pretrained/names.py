"""Facts about a ViT that timm's name of its architecture states, and shapes do not."""

import pathlib
import re
from typing import Any

from vitjax.data.preprocess import IMAGENET, Colour

HALF: tuple[Colour, Colour] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # mean, deviation
CLIP: tuple[Colour, Colour] = (
    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)  # fmt: skip

_NAME = re.compile(r'(?<![a-z0-9])((vit|deit3?|eva(02)?|aimv2|flexivit)_[a-z0-9_]*\d)')
_ROPE = r'rope_(ape_)?\d'
# Later entries override earlier ones.
_FIELDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ('dinov3|lingbot', {'rope': 'dinov3', 'norm_epsilon': 1e-5, 'pool': 'mean', 'fc_norm': False}),
    ('lingbot', {'pool': 'class'}),
    (r'^eva02|rope_reg\d_gap', {'rope': 'eva02'}),
    (_ROPE, {'rope': 'axial'}),
    ('rope_mixed', {'rope': 'mixed'}),
    ('clip|^aimv2', {'norm_epsilon': 1e-5}),
    ('quickgelu', {'mlp': 'quick_gelu'}),
    (
        r'(base_patch32_siglip|large_patch16_siglip(_gap)?_512|so400m_patch16_siglip|giantopt)',
        {'mlp': 'gelu_tanh'},
    ),
)
_OTHERS = r'_pe_|sapiens2|radio|beit3|_xp_|_rpn_|18x2|enormous|eva02\w*clip'  # computed otherwise
_HEADS = (  # of other widths than 64
    (r'dinov2|tips|dinov3_|lingbot', None),
    ('_7b_', 32),
    ('huge_plus', 20),
    (r'huge|giant|gigantic|so400m|base_patch16_gap', 16),
)
_MEANS = (
    (r'siglip', HALF),
    (r'clip|^eva|^aimv2', CLIP),
    (r'dino|lingbot|deit|mae|msn|ibot|moco|rope_(ape|mixed|\d)', IMAGENET),
    (r'^(vit|flexivit)', HALF),
)


def architecture(path: str | pathlib.Path, stated: str = '') -> str:
    """Timm's name of an architecture: the stated one, or in the name of a file or folder; or ''."""
    for text in (stated, *reversed(pathlib.Path(path).parts)):
        if found := _NAME.search(text.lower()):
            return found[1]
    return ''


def fields(name: str, width: int) -> dict[str, Any]:
    """Fields of the ViT of timm's name; empty without a name.

    Args:
        name: as `architecture` returns it.
        width: channels of a token, by the weights.

    Raises:
        ValueError: for an architecture whose computation vitjax does not have.
    """
    if not name:
        return {}
    if re.search(_OTHERS, name):
        raise ValueError(f'{name} is computed in a way that vitjax does not have.')
    out: dict[str, Any] = {}
    for pattern, stated in _FIELDS:
        if re.search(pattern, name):
            out |= stated
    rules = (heads for pattern, heads in _HEADS if re.search(pattern, name))
    heads = width // 128 if name.startswith('aimv2') else next(rules, None)
    return out | {'num_heads': heads or max(1, width // 64)}


def mean_and_deviation(name: str) -> tuple[Colour, Colour] | None:
    """Mean and deviation of the pixels that models of timm's name expect; None if it is silent."""
    return next((both for pattern, both in _MEANS if re.search(pattern, name)), None)
