"""Tables of the formats of published weights: an entry for each parameter of ours.

To add a format, write its table and add it to `FORMATS`.
"""

import functools
import re
from typing import Any

from vitjax import models
from vitjax.pretrained.entries import (
    VECTOR,
    Entry,
    Format,
    Table,
    convolutions,
    denses,
    flax_denses,
    flax_norms,
    modules,
    nested,
    norms,
    one_by_ones,
    one_layer,
    patches,
    scales,
    shared,
    tokens,
    when,
)

_HALVES = (
    *norms({'norm_1': 'norm1', 'norm_2': 'norm2'}),
    *denses({'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2'}),
)
_TIMM_BLOCK = (
    *denses({'attention/qkv': 'attn.qkv', 'attention/projection': 'attn.proj'}),
    *_HALVES,
)
_TIMM_STEM = (
    *patches({'embed/patch/projection': 'patch_embed.proj'}),
    tokens('embed/position/table', 'pos_embed'),
    *norms({'norm': 'norm'}),
    *denses({'head/output': 'head'}),
)


def _pools_first(model: Any) -> bool:
    return model.pool == 'mean' and model.fc_norm


def _apart(model: Any) -> bool:
    return model.mlp_norm and not model.key_bias  # EVA-02 from its base size on


def _gated(model: Any) -> bool:
    """SwiGLU in two tensors; in one (`mlp.fc1`) in DINOv2's giant and EVA-02's smaller sizes."""
    apart = model.mlp_norm or model.rope == 'dinov3' or model.norm == 'rms'
    return model.mlp == 'swiglu' and apart


# Entries that a library writes for some models only come last.
_TIMM_VIT_BLOCK = (
    *_TIMM_BLOCK,
    *scales('ls{}.gamma'),
    *norms({
        'attention/query_norm': 'attn.q_norm', 'attention/key_norm': 'attn.k_norm',
        'mlp/norm': 'mlp.norm',
    }),
    *when(lambda model: model.rope is not None, scales('gamma_{}')),  # DeiT III's authors' too
    *when(_gated, denses({'mlp/hidden': ['mlp.fc1_g', 'mlp.fc1_x']})),
    *when(_apart, denses({'attention/qkv': [f'attn.{part}_proj' for part in 'qkv']})),
    Entry('attention/qkv/bias', ('attn.q_proj.bias', 'attn.v_proj.bias'), when=_apart),
    Entry(
        'attention/qkv/bias', ('attn.q_bias', 'attn.v_bias'),
        when=lambda model: not (model.key_bias or model.mlp_norm),
    ),
)  # fmt: skip
_TIMM_POOL = (
    *denses({'attention/query': 'q', 'attention/projection': 'proj'}),
    *shared({'attention/key': 'kv', 'attention/value': 'kv'}),
    *norms({'norm_2': 'norm'}),
    *denses({'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2'}),
)
_TIMM_VIT = (
    *_TIMM_STEM,
    *when(_pools_first, norms({'norm': 'fc_norm'})),
    *norms({'embed/patch_norm': 'patch_embed.norm', 'embed/norm': 'norm_pre'}),
    tokens('embed/class_token', 'cls_token', 'dist_token'),  # the second is distilled DeiT's
    tokens('embed/registers', 'reg_token'),
    *nested('blocks/', 'blocks.{i}.', _TIMM_VIT_BLOCK),
    Entry('blocks/attention/frequencies', ('rope.freqs',), 'two l heads d -> l two heads d'),
    tokens('class_token', 'attn_pool.latent'),
    *one_layer('class_blocks/', 'attn_pool.', _TIMM_POOL),
    *denses({'head_distilled/output': 'head_dist'}),
)


_ATTENTION = {'query': 'q', 'key': 'k', 'value': 'v', 'projection': 'proj'}
_CLASS_BLOCK = (
    *nested('attention/', 'attn.', denses(_ATTENTION)), *_HALVES, *scales('gamma_{}'),
)  # fmt: skip
_CLASS_ATTENTION = (
    tokens('class_token', 'cls_token'),
    *nested('class_blocks/', 'blocks_token_only.{i}.', _CLASS_BLOCK),
)
_CAIT_BLOCK = (
    *_TIMM_BLOCK,
    *denses({'attention/mix_logits': 'attn.proj_l', 'attention/mix_weights': 'attn.proj_w'}),
    *scales('gamma_{}'),
)
_SQUEEZE = {'se/reduce': '4.conv_reduce', 'se/expand': '4.conv_expand'}
_CONVOLUTIONAL_BLOCK = (
    *norms({'norm': 'norm1'}),
    *nested('', 'attn.qkv_pos.', one_by_ones({'conv_1': '0', **_SQUEEZE, 'conv_3': '5'})),
    *convolutions({'conv_2': 'attn.qkv_pos.2'}),
    Entry('scale/scale', ('gamma_1',)),
)
_PATCHCONVNET = (
    *convolutions({f'embed/conv_{i + 1}': f'patch_embed.proj.{2 * i}.0' for i in range(5)}),
    *nested('blocks/', 'blocks.{i}.', _CONVOLUTIONAL_BLOCK),
    *_CLASS_ATTENTION,
    *norms({'norm': 'norm'}),
    *denses({'head/output': 'head'}),
    Entry('head/kernel', ('head.{i}.weight',), '1 d -> d'),  # one linear output per class token
    Entry('head/bias', ('head.{i}.bias',), '1 ->'),
)
_QKV = ('query', 'key', 'value')
_TRANSFORMERS_ATTENTION = denses({
    'attention/qkv': [f'attention.{part}_proj' for part in 'qkv'],
    'attention/projection': 'attention.o_proj',
})  # fmt: skip
_TRANSFORMERS_MLP = denses({'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2'})
_TRANSFORMERS_BLOCK = (
    *_TRANSFORMERS_ATTENTION,
    *norms({'norm_1': 'layernorm_before', 'norm_2': 'layernorm_after'}),
    *_TRANSFORMERS_MLP,
)
_DINOV2_BLOCK = (*_TRANSFORMERS_ATTENTION, *_HALVES, *scales('layer_scale{}.lambda1'))


def _transformers(*blocks: Entry) -> Table:
    return (
        *patches({'embed/patch/projection': 'embeddings.patch_embeddings.projection'}),
        tokens('embed/class_token', 'embeddings.cls_token', 'embeddings.distillation_token'),
        tokens('embed/registers', 'embeddings.register_tokens'),
        tokens('embed/position/table', 'embeddings.position_embeddings'),
        *norms({'norm': 'layernorm'}),
        *denses({'head/output': 'classifier'}),
        *blocks,
    )


_DISTILLED = when(
    lambda model: model.pool == 'distilled',
    denses({
        'head/output': 'cls_classifier', 'head_distilled/output': 'distillation_classifier'
    }),
)  # fmt: skip
_DINOV3_BLOCK = (
    *norms({'norm_1': 'norm1', 'norm_2': 'norm2'}),
    *_TRANSFORMERS_ATTENTION,
    Entry(
        'attention/qkv/bias', ('attention.q_proj.bias', 'attention.v_proj.bias'),
        when=lambda model: not model.key_bias,
    ),
    *denses({'mlp/hidden': 'mlp.up_proj', 'mlp/output': 'mlp.down_proj'}),
    *when(
        lambda model: model.mlp == 'swiglu',
        denses({'mlp/hidden': ['mlp.gate_proj', 'mlp.up_proj']}),
    ),
    *scales('layer_scale{}.lambda1'),
)  # fmt: skip
_DINOV3 = (
    *patches({'embed/patch/projection': 'embeddings.patch_embeddings'}),
    tokens('embed/class_token', 'embeddings.cls_token'),
    tokens('embed/registers', 'embeddings.register_tokens'),
    *nested('blocks/', 'layer.{i}.', _DINOV3_BLOCK),  # of version 4
    *nested('blocks/', 'model.layer.{i}.', _DINOV3_BLOCK),
    *norms({'norm': 'norm'}),
)
_CLIP_BLOCK = (
    *norms({'norm_1': 'layer_norm1', 'norm_2': 'layer_norm2'}),
    *denses({
        'attention/qkv': [f'self_attn.{part}_proj' for part in 'qkv'],
        'attention/projection': 'self_attn.out_proj',
        'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2',
    }),
)  # fmt: skip
_SIGLIP_POOL = (
    *(
        Entry(f'attention/{part}/{own}', (f'attention.in_proj_{theirs}',), pattern, (i, 3))
        for i, part in enumerate(_QKV)
        for own, theirs, pattern in (('kernel', 'weight', 'o i -> i o'), ('bias', 'bias', VECTOR))
    ),
    *denses({
        'attention/projection': 'attention.out_proj',
        'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2',
    }),
    *norms({'norm_2': 'layernorm'}),
)  # fmt: skip
_CLIP = (
    *patches({'embed/patch/projection': 'embeddings.patch_embedding'}),
    Entry('embed/class_token', ('embeddings.class_embedding',), 'd -> 1 d'),
    Entry('embed/position/table', ('embeddings.position_embedding.weight',), 'n d -> n d'),
    *norms({'embed/norm': 'pre_layrnorm', 'norm': 'post_layernorm'}),
    *nested('blocks/', 'encoder.layers.{i}.', _CLIP_BLOCK),
    tokens('class_token', 'head.probe'),
    *one_layer('class_blocks/', 'head.', _SIGLIP_POOL),
    *denses({'head/output': 'visual_projection'}),
)
_OPEN_CLIP_BLOCK = (
    *norms({'norm_1': 'ln_1', 'norm_2': 'ln_2'}),
    Entry('attention/qkv/kernel', ('attn.in_proj_weight',), 'o i -> i o'),
    Entry('attention/qkv/bias', ('attn.in_proj_bias',)),
    *denses({
        'attention/projection': 'attn.out_proj',
        'mlp/hidden': 'mlp.c_fc', 'mlp/output': 'mlp.c_proj',
    }),
    *scales('ls_{}.gamma'),
)  # fmt: skip
_OPEN_CLIP = (
    *patches({'embed/patch/projection': 'conv1'}),
    Entry('embed/class_token', ('class_embedding',), 'd -> 1 d'),
    Entry('embed/position/table', ('positional_embedding',), 'n d -> n d'),
    *norms({'embed/norm': 'ln_pre', 'norm': 'ln_post'}),
    *nested('blocks/', 'transformer.resblocks.{i}.', _OPEN_CLIP_BLOCK),
    Entry('head/output/kernel', ('proj',), 'i o -> i o'),
)


_FLAX_HEADS = functools.partial(
    modules, 'd heads k -> d (heads k)', bias='heads k -> (heads k)', flax=True
)
_FLAX_OUT = functools.partial(modules, 'heads k d -> (heads k) d', flax=True)


def _flax_block(norm_1: str, attention: str, norm_2: str, mlp: str) -> Table:
    return (
        *flax_norms({'norm_1': norm_1, 'norm_2': norm_2}),
        *_FLAX_HEADS({'attention/qkv': [f'{attention}/{part}' for part in _QKV]}),
        *_FLAX_OUT({'attention/projection': f'{attention}/out'}),
        *flax_denses({'mlp/hidden': f'{mlp}/Dense_0', 'mlp/output': f'{mlp}/Dense_1'}),
    )


def _flax_vit(positions: str, block: Table) -> Table:
    return (
        *modules('h w c o -> (h w c) o', {'embed/patch/projection': 'embedding'}, flax=True),
        tokens('embed/class_token', 'cls'),
        tokens('embed/position/table', positions),
        *nested('blocks/', 'Transformer/encoderblock_{i}/', block),
        *flax_norms({'norm': 'Transformer/encoder_norm'}),
        *flax_denses({'head/output': 'head'}),
    )


_MHA = 'MultiHeadDotProductAttention'
_AUGREG = _flax_vit(
    'Transformer/posembed_input/pos_embedding',
    _flax_block('LayerNorm_0', f'{_MHA}_1', 'LayerNorm_2', 'MlpBlock_3'),
)
_MAP_HEAD = (
    *_FLAX_HEADS({f'attention/{part}': f'{_MHA}_0/{part}' for part in _QKV}),
    *_FLAX_OUT({'attention/projection': f'{_MHA}_0/out'}),
    *flax_norms({'norm_2': 'LayerNorm_0'}),
    *flax_denses({'mlp/hidden': 'MlpBlock_0/Dense_0', 'mlp/output': 'MlpBlock_0/Dense_1'}),
)
_BIG_VISION = (
    *_flax_vit(
        'pos_embedding', _flax_block('LayerNorm_0', f'{_MHA}_0', 'LayerNorm_1', 'MlpBlock_0')
    ),
    tokens('class_token', 'MAPHead_0/probe'),
    *one_layer('class_blocks/', 'MAPHead_0/', _MAP_HEAD),
)
_VGG16_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG16 = (
    *convolutions({f'conv_{i}/conv': f'features.{n}' for i, n in enumerate(_VGG16_LAYERS, 1)}),
    *modules('o (c rows columns) -> (rows columns c) o', {'dense_1': 'classifier.0'}),
    *denses({'dense_2': 'classifier.3', 'head': 'classifier.6'}),
)
TRANSFORMERS_VIT = Format(
    "transformers' ViT", models.ViT,
    _transformers(
        *nested('blocks/', 'encoder.layer.{i}.', _TRANSFORMERS_BLOCK),  # of version 4
        *nested('blocks/', 'layers.{i}.', _TRANSFORMERS_BLOCK), *_DISTILLED,
    ),
    antialias=False,
)  # fmt: skip
TRANSFORMERS_DINOV2 = Format(
    "transformers' DINOv2", models.ViT,
    _transformers(*nested('blocks/', 'encoder.layer.{i}.', _DINOV2_BLOCK)), antialias=False,
)  # fmt: skip
TRANSFORMERS_DINOV3 = Format("transformers' DINOv3", models.ViT, _DINOV3)
TRANSFORMERS_CLIP = Format("transformers' CLIP and SigLIP", models.ViT, _CLIP)
TIMM_VIT = Format("timm's ViT", models.ViT, _TIMM_VIT)
TIMM_CAIT = Format(
    "timm's CaiT", models.CaiT,
    (*_TIMM_STEM, *nested('blocks/', 'blocks.{i}.', _CAIT_BLOCK), *_CLASS_ATTENTION),
)  # fmt: skip
AUGREG = Format("AugReg's", models.ViT, _AUGREG)
FORMATS = (
    TIMM_VIT,
    TIMM_CAIT,
    Format("PatchConvNet's", models.PatchConvNet, _PATCHCONVNET),
    TRANSFORMERS_VIT,
    TRANSFORMERS_DINOV2,
    TRANSFORMERS_DINOV3,
    TRANSFORMERS_CLIP,
    Format("open_clip's", models.ViT, _OPEN_CLIP),
    AUGREG,
    Format("big_vision's", models.ViT, _BIG_VISION, mlp='gelu_tanh'),  # flax's default
    Format("torchvision's VGG16", models.VGG16, _VGG16),
)  # fmt: skip

_LAYER = r'(encoder\.layer\.\d+)'
RENAMED = (  # spellings of other versions of the same libraries
    (r'register_tokens', r'reg_token'),
    *(
        (rf'{_LAYER}\.attention\.attention\.{part}\.(.*)', rf'\1.attention.{part[0]}_proj.\2')
        for part in _QKV
    ),
    (rf'{_LAYER}\.attention\.output\.dense\.(.*)', r'\1.attention.o_proj.\2'),
    (rf'{_LAYER}\.intermediate\.dense\.(.*)', r'\1.mlp.fc1.\2'),
    (rf'{_LAYER}\.output\.dense\.(.*)', r'\1.mlp.fc2.\2'),
)
# Not part of the encoder: masks, MAE's decoder, transformers' pooler, CLIP's text.
IGNORED = re.compile(
    r'(embeddings\.)?mask_token|pooler\..*|decoder.*|(text_model|text_projection)\..*'
    r'|logit_(scale|bias)|embeddings\.position_ids|params/(t|b|txt/.*)'
)
