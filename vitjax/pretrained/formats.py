"""The formats of published weights: a table each, from our parameters to the names in a file.

Everything else follows from the tables: which format a file has, which sizes, what is missing,
surplus or misshapen. To add a format, write its table and a line in `FORMATS`.

Left, a parameter of ours or the module that holds it; right, the tensor or module in the file. A
module ends in '.' where its parameters are PyTorch's (`weight`, laid out [output, input, ...]) and
in '/' where they are flax's, laid out as ours. A tensor comes with an einops pattern from its
layout to ours, and so may a module, for its kernel. {i} counts the layers that we stack; names with
spaces between them stand for tensors that we concatenate: queries, keys and values, or class
tokens.
"""

import re
from collections.abc import Mapping

import numpy as np

from vitjax import models
from vitjax.models.base import Model

Weights = Mapping[str, np.ndarray]
Table = Mapping[str, str | tuple[str, str]]

VECTOR = 'd -> d'
TOKENS = '1 n d -> n d'
_PATCH = 'o c h w -> (h w c) o'
DENSE = 'o i -> i o'
CONVOLUTION = 'o i h w -> h w i o'
_ONE_BY_ONE = 'o i 1 1 -> i o'


def _nested(ours: str, theirs: str, table: Table) -> Table:
    def inside(names: str) -> str:
        return ' '.join(theirs + name for name in names.split())

    return {
        ours + path: inside(entry) if isinstance(entry, str) else (inside(entry[0]), entry[1])
        for path, entry in table.items()
    }


def _scales(name: str) -> Table:
    return {f'scale_{i}/scale': (name.format(i), VECTOR) for i in (1, 2)}


def _qkv(names: str) -> str:
    return ' '.join(names.format(part) for part in ('query', 'key', 'value'))


_HALVES = {
    'norm_1': 'norm1.', 'norm_2': 'norm2.', 'mlp/hidden': 'mlp.fc1.', 'mlp/output': 'mlp.fc2.',
}  # fmt: skip
_TIMM_BLOCK = {'attention/qkv': 'attn.qkv.', 'attention/projection': 'attn.proj.', **_HALVES}
_TIMM_STEM = {
    'embed/patch/projection': ('patch_embed.proj.', _PATCH),
    'embed/position/table': ('pos_embed', TOKENS),
    'norm': 'norm.',
    'head/output': 'head.',
}
_TIMM_VIT = {
    **_TIMM_STEM,
    'embed/class_token': ('cls_token dist_token', TOKENS),  # the second is distilled DeiT's
    'embed/registers': ('reg_token', TOKENS),
    **_nested('blocks/', 'blocks.{i}.', {**_TIMM_BLOCK, **_scales('ls{}.gamma')}),
    'head_distilled/output': 'head_dist.',
}
_DEIT3 = {**_TIMM_VIT, **_nested('blocks/', 'blocks.{i}.', _scales('gamma_{}'))}  # its authors'
_CLASS_BLOCK = {
    'attention/query': 'attn.q.',
    'attention/key': 'attn.k.',
    'attention/value': 'attn.v.',
    'attention/projection': 'attn.proj.',
    **_HALVES,
    **_scales('gamma_{}'),
}
_CLASS_ATTENTION = {
    'class_token': ('cls_token', TOKENS),
    **_nested('class_blocks/', 'blocks_token_only.{i}.', _CLASS_BLOCK),
}
_TALKING = {'attention/mix_logits': 'attn.proj_l.', 'attention/mix_weights': 'attn.proj_w.'}
_TIMM_CAIT = {
    **_TIMM_STEM,
    **_nested('blocks/', 'blocks.{i}.', {**_TIMM_BLOCK, **_TALKING, **_scales('gamma_{}')}),
    **_CLASS_ATTENTION,
}
_CONVOLUTIONAL_BLOCK = {
    'norm': 'norm1.',
    'conv_1': ('attn.qkv_pos.0.', _ONE_BY_ONE),
    'conv_2': 'attn.qkv_pos.2.',
    'se/reduce': ('attn.qkv_pos.4.conv_reduce.', _ONE_BY_ONE),
    'se/expand': ('attn.qkv_pos.4.conv_expand.', _ONE_BY_ONE),
    'conv_3': ('attn.qkv_pos.5.', _ONE_BY_ONE),
    'scale/scale': ('gamma_1', VECTOR),
}
_PATCHCONVNET = {
    **{f'embed/conv_{i + 1}': f'patch_embed.proj.{2 * i}.0.' for i in range(5)},
    **_nested('blocks/', 'blocks.{i}.', _CONVOLUTIONAL_BLOCK),
    **_CLASS_ATTENTION,
    'norm': 'norm.',
    'head/output': 'head.',
    'head/kernel': ('head.{i}.weight', '1 d -> d'),  # one linear output for each class token
    'head/bias': ('head.{i}.bias', '1 ->'),
}
_TRANSFORMERS_STEM = {
    'embed/patch/projection': ('embeddings.patch_embeddings.projection.', _PATCH),
    'embed/class_token': ('embeddings.cls_token', TOKENS),
    'embed/registers': ('embeddings.register_tokens', TOKENS),
    'embed/position/table': ('embeddings.position_embeddings', TOKENS),
    'norm': 'layernorm.',
    'head/output': 'classifier.',
}
_TRANSFORMERS_ATTENTION = {
    'attention/qkv': _qkv('attention.attention.{}.'),
    'attention/projection': 'attention.output.dense.',
}
_TRANSFORMERS_BLOCK = {
    **_TRANSFORMERS_ATTENTION,
    'norm_1': 'layernorm_before.',
    'norm_2': 'layernorm_after.',
    'mlp/hidden': 'intermediate.dense.',
    'mlp/output': 'output.dense.',
}
_DINOV2_BLOCK = {**_TRANSFORMERS_ATTENTION, **_HALVES, **_scales('layer_scale{}.lambda1')}
_TRANSFORMERS_VIT, _TRANSFORMERS_DINOV2 = (
    {**_TRANSFORMERS_STEM, **_nested('blocks/', 'encoder.layer.{i}.', block)}
    for block in (_TRANSFORMERS_BLOCK, _DINOV2_BLOCK)
)
_MHA = 'MultiHeadDotProductAttention_1/'
_AUGREG_BLOCK = {
    'norm_1': 'LayerNorm_0/',
    'attention/qkv/kernel': (_qkv(_MHA + '{}/kernel'), 'd heads k -> d (heads k)'),
    'attention/qkv/bias': (_qkv(_MHA + '{}/bias'), 'heads k -> (heads k)'),
    'attention/projection': (_MHA + 'out/', 'heads k d -> (heads k) d'),
    'norm_2': 'LayerNorm_2/',
    'mlp/hidden': 'MlpBlock_3/Dense_0/',
    'mlp/output': 'MlpBlock_3/Dense_1/',
}
_AUGREG = {
    'embed/patch/projection': ('embedding/', 'h w c o -> (h w c) o'),
    'embed/class_token': ('cls', TOKENS),
    'embed/position/table': ('Transformer/posembed_input/pos_embedding', TOKENS),
    **_nested('blocks/', 'Transformer/encoderblock_{i}/', _AUGREG_BLOCK),
    'norm': 'Transformer/encoder_norm/',
    'head/output': 'head/',
}
_VGG16_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG16 = {
    **{f'conv_{i}/conv': f'features.{layer}.' for i, layer in enumerate(_VGG16_LAYERS, 1)},
    'dense_1': ('classifier.0.', 'o (c h w) -> (h w c) o'),
    'dense_2': 'classifier.3.',
    'head': 'classifier.6.',
}
AUGREG = "AugReg's"  # the one format whose kernels are laid out as flax's
FORMATS: dict[str, tuple[type[Model], Table]] = {
    "timm's ViT": (models.ViT, _TIMM_VIT),
    "DeiT III's": (models.ViT, _DEIT3),
    "timm's CaiT": (models.CaiT, _TIMM_CAIT),
    "PatchConvNet's": (models.PatchConvNet, _PATCHCONVNET),
    "transformers' ViT": (models.ViT, _TRANSFORMERS_VIT),
    "transformers' DINOv2": (models.ViT, _TRANSFORMERS_DINOV2),
    AUGREG: (models.ViT, _AUGREG),
    "torchvision's VGG16": (models.VGG16, _VGG16),
}

PREFIXES = ('module.', 'model.', 'vit.', 'backbone.', 'dinov2.', 'dinov2_with_registers.')
RENAMED = (  # spellings of other versions of the same libraries
    (r'register_tokens', r'reg_token'),
    (r'layers\.(\d+)\.mlp\.fc1\.(.*)', r'encoder.layer.\1.intermediate.dense.\2'),
    (r'layers\.(\d+)\.mlp\.fc2\.(.*)', r'encoder.layer.\1.output.dense.\2'),
    (r'layers\.(\d+)\.(.*)', r'encoder.layer.\1.\2'),
    (r'(.*)\.attention\.q_proj\.(.*)', r'\1.attention.attention.query.\2'),
    (r'(.*)\.attention\.k_proj\.(.*)', r'\1.attention.attention.key.\2'),
    (r'(.*)\.attention\.v_proj\.(.*)', r'\1.attention.attention.value.\2'),
    (r'(.*)\.attention\.o_proj\.(.*)', r'\1.attention.output.dense.\2'),
)
IGNORED = re.compile(r'(embeddings\.)?mask_token|pooler\..*')  # no part of the model
