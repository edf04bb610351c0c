"""The formats of published weights: a table each, from our parameters to the names in a file.

Everything else follows from the tables: which format a file has, which sizes, what is missing,
surplus or misshapen. To add a format, write its table and a line in `FORMATS`.

Left, a parameter of ours or the module that holds it; right, the tensor or module in the file. A
module ends in '.' where its parameters are PyTorch's (`weight`, laid out [output, input, ...]) and
in '/' where they are flax's, laid out as ours. A tensor comes with an einops pattern from its
layout to ours. {i} counts the layers that we stack; names with spaces between them stand for
tensors that we concatenate: queries, keys and values, or class tokens.
"""

import re
from collections.abc import Mapping

import numpy as np

from vitjax import models
from vitjax.models.trunk import Model

Weights = Mapping[str, np.ndarray]
Table = Mapping[str, str | tuple[str, str]]

VECTOR = 'd -> d'
TOKENS = '1 n d -> n d'
_PATCH = 'o c h w -> (h w c) o'
DENSE = 'o i -> i o'
CONVOLUTION = 'o i h w -> h w i o'
_ONE_BY_ONE = 'o i 1 1 -> i o'
_MLP = {'mlp/hidden': 'mlp.fc1.', 'mlp/output': 'mlp.fc2.'}
_NORMS = {'norm_1': 'norm1.', 'norm_2': 'norm2.'}
_GAMMAS = {'scale_1/scale': ('gamma_1', VECTOR), 'scale_2/scale': ('gamma_2', VECTOR)}
_CLASS_BLOCK = {
    'attention/query': 'attn.q.',
    'attention/key': 'attn.k.',
    'attention/value': 'attn.v.',
    'attention/projection': 'attn.proj.',
    **_NORMS,
    **_MLP,
    **_GAMMAS,
}


def _nested(ours: str, theirs: str, table: Table) -> Table:
    def inside(names: str) -> str:
        return ' '.join(theirs + name for name in names.split())

    return {
        ours + path: inside(entry) if isinstance(entry, str) else (inside(entry[0]), entry[1])
        for path, entry in table.items()
    }


def _qkv(names: str) -> str:
    return ' '.join(names.format(part) for part in ('query', 'key', 'value'))


_TIMM_VIT = {
    'embed/patch/projection/kernel': ('patch_embed.proj.weight', _PATCH),
    'embed/patch/projection': 'patch_embed.proj.',
    'embed/class_token': ('cls_token dist_token', TOKENS),  # the second is distilled DeiT's
    'embed/registers': ('reg_token', TOKENS),
    'embed/position/table': ('pos_embed', TOKENS),
    **_nested(
        'blocks/',
        'blocks.{i}.',
        {
            'attention/qkv': 'attn.qkv.',
            'attention/projection': 'attn.proj.',
            **_NORMS,
            **_MLP,
            'scale_1/scale': ('ls1.gamma', VECTOR),
            'scale_2/scale': ('ls2.gamma', VECTOR),
        },
    ),
    'norm': 'norm.',
    'head/output': 'head.',
    'head_distilled/output': 'head_dist.',
}
_DEIT3 = {**_TIMM_VIT, **_nested('blocks/', 'blocks.{i}.', _GAMMAS)}  # its authors' names
_TIMM_CAIT = {
    'embed/patch/projection/kernel': ('patch_embed.proj.weight', _PATCH),
    'embed/patch/projection': 'patch_embed.proj.',
    'embed/position/table': ('pos_embed', TOKENS),
    'class_token': ('cls_token', TOKENS),
    **_nested(
        'blocks/',
        'blocks.{i}.',
        {
            'attention/qkv': 'attn.qkv.',
            'attention/mix_logits': 'attn.proj_l.',
            'attention/mix_weights': 'attn.proj_w.',
            'attention/projection': 'attn.proj.',
            **_NORMS,
            **_MLP,
            **_GAMMAS,
        },
    ),
    **_nested('class_blocks/', 'blocks_token_only.{i}.', _CLASS_BLOCK),
    'norm': 'norm.',
    'head/output': 'head.',
}
_PATCHCONVNET = {
    **{f'embed/conv_{i + 1}': f'patch_embed.proj.{2 * i}.0.' for i in range(5)},
    'class_token': ('cls_token', TOKENS),
    **_nested(
        'blocks/',
        'blocks.{i}.',
        {
            'norm': 'norm1.',
            'conv_1/kernel': ('attn.qkv_pos.0.weight', _ONE_BY_ONE),
            'conv_1': 'attn.qkv_pos.0.',
            'conv_2': 'attn.qkv_pos.2.',
            'se/reduce/kernel': ('attn.qkv_pos.4.conv_reduce.weight', _ONE_BY_ONE),
            'se/reduce': 'attn.qkv_pos.4.conv_reduce.',
            'se/expand/kernel': ('attn.qkv_pos.4.conv_expand.weight', _ONE_BY_ONE),
            'se/expand': 'attn.qkv_pos.4.conv_expand.',
            'conv_3/kernel': ('attn.qkv_pos.5.weight', _ONE_BY_ONE),
            'conv_3': 'attn.qkv_pos.5.',
            'scale/scale': ('gamma_1', VECTOR),
        },
    ),
    **_nested('class_blocks/', 'blocks_token_only.{i}.', _CLASS_BLOCK),
    'norm': 'norm.',
    'head/output': 'head.',
    'head/kernel': ('head.{i}.weight', '1 d -> d'),  # one linear output for each class token
    'head/bias': ('head.{i}.bias', '1 ->'),
}
_TRANSFORMERS_STEM = {
    'embed/patch/projection/kernel': ('embeddings.patch_embeddings.projection.weight', _PATCH),
    'embed/patch/projection': 'embeddings.patch_embeddings.projection.',
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
_TRANSFORMERS_VIT = {
    **_TRANSFORMERS_STEM,
    **_nested(
        'blocks/',
        'encoder.layer.{i}.',
        {
            **_TRANSFORMERS_ATTENTION,
            'norm_1': 'layernorm_before.',
            'norm_2': 'layernorm_after.',
            'mlp/hidden': 'intermediate.dense.',
            'mlp/output': 'output.dense.',
        },
    ),
}
_TRANSFORMERS_DINOV2 = {
    **_TRANSFORMERS_STEM,
    **_nested(
        'blocks/',
        'encoder.layer.{i}.',
        {
            **_TRANSFORMERS_ATTENTION,
            **_NORMS,
            **_MLP,
            'scale_1/scale': ('layer_scale1.lambda1', VECTOR),
            'scale_2/scale': ('layer_scale2.lambda1', VECTOR),
        },
    ),
}
_MHA = 'MultiHeadDotProductAttention_1/'
_AUGREG = {
    'embed/patch/projection/kernel': ('embedding/kernel', 'h w c o -> (h w c) o'),
    'embed/patch/projection': 'embedding/',
    'embed/class_token': ('cls', TOKENS),
    'embed/position/table': ('Transformer/posembed_input/pos_embedding', TOKENS),
    **_nested(
        'blocks/',
        'Transformer/encoderblock_{i}/',
        {
            'norm_1': 'LayerNorm_0/',
            'attention/qkv/kernel': (_qkv(_MHA + '{}/kernel'), 'd heads k -> d (heads k)'),
            'attention/qkv/bias': (_qkv(_MHA + '{}/bias'), 'heads k -> (heads k)'),
            'attention/projection/kernel': (_MHA + 'out/kernel', 'heads k d -> (heads k) d'),
            'attention/projection': _MHA + 'out/',
            'norm_2': 'LayerNorm_2/',
            'mlp/hidden': 'MlpBlock_3/Dense_0/',
            'mlp/output': 'MlpBlock_3/Dense_1/',
        },
    ),
    'norm': 'Transformer/encoder_norm/',
    'head/output': 'head/',
}
_VGG16 = {
    **{
        f'conv_{i + 1}/conv': f'features.{layer}.'
        for i, layer in enumerate((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28))
    },
    'dense_1/kernel': ('classifier.0.weight', 'o (c h w) -> (h w c) o'),
    'dense_1': 'classifier.0.',
    'dense_2': 'classifier.3.',
    'head': 'classifier.6.',
}
FORMATS: dict[str, tuple[type[Model], Table]] = {
    "timm's ViT": (models.ViT, _TIMM_VIT),
    "DeiT III's": (models.ViT, _DEIT3),
    "timm's CaiT": (models.CaiT, _TIMM_CAIT),
    "PatchConvNet's": (models.PatchConvNet, _PATCHCONVNET),
    "transformers' ViT": (models.ViT, _TRANSFORMERS_VIT),
    "transformers' DINOv2": (models.ViT, _TRANSFORMERS_DINOV2),
    "AugReg's": (models.ViT, _AUGREG),
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
