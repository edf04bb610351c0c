"""Damaged weights are refused whole, with all that is wrong."""

import pathlib
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_vit import TINY, tiny

from vitjax import models, pretrained

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'


def test_all_that_is_wrong_is_named_at_once():
    weights = tiny()
    del weights['blocks.1.norm2.bias'], weights['patch_embed.proj.weight']
    weights['blocks.2.norm1.weight'] = np.ones(12, np.float32)
    weights['dist_token'] = np.ones((1, 1, 12), np.float32)
    weights['pos_embed'] = weights['pos_embed'][:, 1:-1]
    weights['blocks.0.attn.qkv.weight'] = weights['blocks.0.attn.qkv.weight'].T
    weights['norm.weight'] = np.full(12, np.nan, np.float32)
    weights['norm.bias'] = np.full(12, np.inf, np.float32)
    weights['blocks.0.norm1.bias'] = np.ones(12, np.int8)
    with pytest.raises(ValueError) as error:
        pretrained.convert(weights, TINY, 12)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("the weights (timm's ViT names) do not fit the model")
    assert sorted(lines[1:]) == sorted(
        [
            '- blocks.1.norm2.bias [12]',
            '- patch_embed.proj.weight [12, 3, 4, 4]',
            '+ blocks.2.norm1.weight [12]',
            '+ dist_token [1, 1, 12]',
            '  pos_embed: is [1, 8, 12], must be [1, 10, 12]',
            '  blocks.0.attn.qkv.weight: is [12, 36], must be [36, 12]',
            '  norm.weight: holds NaN or infinity',
            '  norm.bias: holds NaN or infinity',
            '  blocks.0.norm1.bias: is int8, must be floating point',
        ]
    )


@pytest.mark.parametrize('kind', ['vit', 'cait', 'patchconvnet'])
def test_any_one_missing_tensor_is_named(kind):
    weights = load_file(GOLDEN / f'{kind}.safetensors')
    small: Any = {'width': 32, 'depth': 3, 'num_classes': 7}
    model = {
        'vit': models.ViT(patch_size=8, num_heads=4, **small),
        'cait': models.CaiT(patch_size=8, num_heads=4, **small),
        'patchconvnet': models.PatchConvNet(**small),
    }[kind]
    size = 64 if kind == 'patchconvnet' else 48
    for name in [n for n in weights if not n.startswith(('blocks.1', 'blocks.2'))]:
        rest = {n: value for n, value in weights.items() if n != name}
        with pytest.raises(ValueError, match=f'\n- {name} '):
            pretrained.match(rest, model, size)


def test_a_missing_position_is_not_a_class_token_without_one():
    weights = tiny()
    weights['pos_embed'] = weights['pos_embed'][:, 1:]  # a square of patches is left
    with pytest.raises(ValueError, match=r'pos_embed: is \[1, 9, 12\], must be \[1, 10, 12\]'):
        pretrained.convert(weights, TINY, 12)


def test_a_damaged_head_is_not_an_absent_one():
    for name in ('head.weight', 'head.bias'):
        weights = tiny()
        del weights[name]
        with pytest.raises(ValueError, match=f'- {name} '):
            pretrained.convert(weights, TINY, 12)


def test_a_tensor_under_two_prefixes_is_an_error():
    weights = tiny()
    with pytest.raises(ValueError, match=r'\+ module.cls_token '):
        pretrained.convert(weights | {'module.cls_token': weights['cls_token']}, TINY, 12)


def test_impossible_sizes():
    with pytest.raises(ValueError, match='patch_size=4, image is 14x14 pixels'):
        pretrained.convert(tiny(), TINY, 14)
    with pytest.raises(ValueError, match='num_heads=5, width=12'):
        pretrained.convert(tiny(), TINY.clone(num_heads=5), 12)
    with pytest.raises(ValueError, match='published weights have no head/hidden_1'):
        pretrained.convert(tiny(), TINY.clone(head=(8,)), 12)
