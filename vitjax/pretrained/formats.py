"""Tables of the formats of published weights: an entry for each parameter of ours.

A table is read both ways: `convert.Parameter` joins a file's tensors into a parameter and splits a
parameter into a file's tensors. Everything else follows from the tables too: which format a file
has, which sizes, and which tensors are missing, surplus or misshapen. To add a format, write its
table and add it to `FORMATS`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vitjax import models
from vitjax.models.base import Model

Weights = Mapping[str, np.ndarray]
OWN = 'vitjax'  # key of the experiment in a config.json of ours

# einops patterns from a file's layout to ours. Axes: outputs, inputs, channels, height and width of
# a patch, y and x of a convolution's kernel; d is the width of vectors and tokens.
VECTOR = 'd -> d'
TOKENS = '1 n d -> n d'


def _always(model: Any) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Entry:
    """A parameter of ours and the tensors that hold it in a file.

    A format may have several entries for a parameter. A file has the one whose names it has; `when`
    tells which one the library writes for a model.

    Attributes:
        path: path of the parameter.
        names: names of tensors; several are parts that we concatenate: queries, keys and values, or
            class tokens. `{i}` counts the layers that we stack.
        pattern: einops pattern from each tensor to its part of the parameter.
        part: number of this parameter among those that share the tensor, and how many they are;
            they follow each other along its first axis.
        when: True for the models that the library writes so.
    """

    path: str
    names: tuple[str, ...]
    pattern: str = VECTOR
    part: tuple[int, int] = (0, 1)
    when: Callable[[Any], bool] = _always

    @property
    def stacked(self) -> bool:
        """True if layers are stacked on a first axis of depth."""
        return '{i}' in self.names[0]

    @property
    def axis(self) -> int:
        """Axis of one layer of the parameter that parts are concatenated on."""
        return 0 if self.pattern == TOKENS else -1

    @property
    def layouts(self) -> tuple[str, str]:
        """The pattern of the file's layout and that of ours."""
        theirs, _, ours = self.pattern.partition('->')
        return theirs, ours

    def length(self, axis: str, tensor: np.ndarray) -> int | None:
        """Length of a named axis of a tensor; None if it is misshapen or lacks the axis."""
        axes = self.layouts[0].split()
        known = axis in axes and len(axes) == tensor.ndim
        return tensor.shape[axes.index(axis)] if known else None


Table = tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of published weights.

    Attributes:
        name: name in messages.
        model: class of the models that it holds.
        entries: its table.
        antialias: True if its library resamples position embeddings with antialiasing.
        mlp: nonlinearity of its library's models; None if they differ.
    """

    name: str
    model: type[Model]
    entries: Table
    antialias: bool = True
    mlp: str | None = None

    @functools.cached_property
    def paths(self) -> Mapping[str, Table]:
        """The entries of each parameter by its path."""
        paths: dict[str, Table] = {}
        for entry in self.entries:
            paths[entry.path] = (*paths.get(entry.path, ()), entry)
        return paths


def _nested(path: str, name: str, table: Iterable[Entry]) -> Table:
    return tuple(
        dataclasses.replace(
            entry, path=path + entry.path, names=tuple(name + each for each in entry.names)
        )
        for entry in table
    )  # fmt: skip


def _when(when: Callable[[Any], bool], table: Iterable[Entry]) -> Table:
    return tuple(dataclasses.replace(entry, when=when) for entry in table)


def _modules(
    pattern: str, modules: Mapping[str, str | Sequence[str]], *, bias: str = VECTOR,
    flax: bool = False,
) -> Table:  # fmt: skip
    """Both parameters of modules, which have PyTorch's names and layouts, or flax's.

    Args:
        pattern: layout of the kernels, or `VECTOR` for the scales of norms.
        modules: name of each module in a file by our path; several are parts of one.
        bias: layout of the biases.
        flax: True for flax's names of parameters.
    """
    ours = 'scale' if pattern == VECTOR else 'kernel'
    weight, dot = (ours, '/') if flax else ('weight', '.')
    table: list[Entry] = []
    for path, names in modules.items():
        parts = (names,) if isinstance(names, str) else names
        for own, theirs, layout in ((ours, weight, pattern), ('bias', 'bias', bias)):
            table.append(Entry(f'{path}/{own}', tuple(p + dot + theirs for p in parts), layout))
    return tuple(table)


_norms = functools.partial(_modules, VECTOR)
_denses = functools.partial(_modules, 'o i -> i o')
_patches = functools.partial(_modules, 'o c h w -> (h w c) o')
_convolutions = functools.partial(_modules, 'o c y x -> y x c o')
_one_by_ones = functools.partial(_modules, 'o i 1 1 -> i o')
_flax_norms = functools.partial(_modules, VECTOR, flax=True)
_flax_denses = functools.partial(_modules, 'i o -> i o', flax=True)


def _scales(name: str) -> Table:
    return tuple(Entry(f'scale_{i}/scale', (name.format(i),)) for i in (1, 2))


def _tokens(path: str, *names: str) -> Entry:
    return Entry(path, names, TOKENS)


def _shared(modules: Mapping[str, str]) -> Table:
    """Dense modules that share a tensor, in its order."""
    parts = [(path, names, (i, len(modules))) for i, (path, names) in enumerate(modules.items())]
    return tuple(
        dataclasses.replace(entry, part=part)
        for path, name, part in parts for entry in _denses({path: name})
    )  # fmt: skip


def _one_layer(path: str, name: str, table: Iterable[Entry]) -> Table:
    """Entries of a stack of one layer, whose tensors have no number in their names."""
    entries = _nested(path, name, table)
    return tuple(
        dataclasses.replace(e, pattern=e.pattern.replace('-> ', '-> 1 ')) for e in entries
    )  # fmt: skip


_HALVES = (
    *_norms({'norm_1': 'norm1', 'norm_2': 'norm2'}),
    *_denses({'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2'}),
)
_TIMM_BLOCK = (
    *_denses({'attention/qkv': 'attn.qkv', 'attention/projection': 'attn.proj'}),
    *_HALVES,
)
_TIMM_STEM = (
    *_patches({'embed/patch/projection': 'patch_embed.proj'}),
    _tokens('embed/position/table', 'pos_embed'),
    *_norms({'norm': 'norm'}),
    *_denses({'head/output': 'head'}),
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
    *_scales('ls{}.gamma'),
    *_norms({
        'attention/query_norm': 'attn.q_norm', 'attention/key_norm': 'attn.k_norm',
        'mlp/norm': 'mlp.norm',
    }),
    *_when(lambda model: model.rope is not None, _scales('gamma_{}')),  # DeiT III's authors' too
    *_when(_gated, _denses({'mlp/hidden': ['mlp.fc1_g', 'mlp.fc1_x']})),
    *_when(_apart, _denses({'attention/qkv': [f'attn.{part}_proj' for part in 'qkv']})),
    Entry('attention/qkv/bias', ('attn.q_proj.bias', 'attn.v_proj.bias'), when=_apart),
    Entry(
        'attention/qkv/bias', ('attn.q_bias', 'attn.v_bias'),
        when=lambda model: not (model.key_bias or model.mlp_norm),
    ),
)  # fmt: skip
_TIMM_POOL = (
    *_denses({'attention/query': 'q', 'attention/projection': 'proj'}),
    *_shared({'attention/key': 'kv', 'attention/value': 'kv'}),
    *_norms({'norm_2': 'norm'}),
    *_denses({'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2'}),
)
_TIMM_VIT = (
    *_TIMM_STEM,
    *_when(_pools_first, _norms({'norm': 'fc_norm'})),
    *_norms({'embed/patch_norm': 'patch_embed.norm', 'embed/norm': 'norm_pre'}),
    _tokens('embed/class_token', 'cls_token', 'dist_token'),  # the second is distilled DeiT's
    _tokens('embed/registers', 'reg_token'),
    *_nested('blocks/', 'blocks.{i}.', _TIMM_VIT_BLOCK),
    Entry('blocks/attention/frequencies', ('rope.freqs',), 'two l heads d -> l two heads d'),
    _tokens('class_token', 'attn_pool.latent'),
    *_one_layer('class_blocks/', 'attn_pool.', _TIMM_POOL),
    *_denses({'head_distilled/output': 'head_dist'}),
)


_ATTENTION = {'query': 'q', 'key': 'k', 'value': 'v', 'projection': 'proj'}
_CLASS_BLOCK = (
    *_nested('attention/', 'attn.', _denses(_ATTENTION)), *_HALVES, *_scales('gamma_{}'),
)  # fmt: skip
_CLASS_ATTENTION = (
    _tokens('class_token', 'cls_token'),
    *_nested('class_blocks/', 'blocks_token_only.{i}.', _CLASS_BLOCK),
)
_CAIT_BLOCK = (
    *_TIMM_BLOCK,
    *_denses({'attention/mix_logits': 'attn.proj_l', 'attention/mix_weights': 'attn.proj_w'}),
    *_scales('gamma_{}'),
)
_SQUEEZE = {'se/reduce': '4.conv_reduce', 'se/expand': '4.conv_expand'}
_CONVOLUTIONAL_BLOCK = (
    *_norms({'norm': 'norm1'}),
    *_nested('', 'attn.qkv_pos.', _one_by_ones({'conv_1': '0', **_SQUEEZE, 'conv_3': '5'})),
    *_convolutions({'conv_2': 'attn.qkv_pos.2'}),
    Entry('scale/scale', ('gamma_1',)),
)
_PATCHCONVNET = (
    *_convolutions({f'embed/conv_{i + 1}': f'patch_embed.proj.{2 * i}.0' for i in range(5)}),
    *_nested('blocks/', 'blocks.{i}.', _CONVOLUTIONAL_BLOCK),
    *_CLASS_ATTENTION,
    *_norms({'norm': 'norm'}),
    *_denses({'head/output': 'head'}),
    Entry('head/kernel', ('head.{i}.weight',), '1 d -> d'),  # one linear output per class token
    Entry('head/bias', ('head.{i}.bias',), '1 ->'),
)
_QKV = ('query', 'key', 'value')
_TRANSFORMERS_ATTENTION = _denses({
    'attention/qkv': [f'attention.{part}_proj' for part in 'qkv'],
    'attention/projection': 'attention.o_proj',
})  # fmt: skip
_TRANSFORMERS_MLP = _denses({'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2'})
_TRANSFORMERS_BLOCK = (
    *_TRANSFORMERS_ATTENTION,
    *_norms({'norm_1': 'layernorm_before', 'norm_2': 'layernorm_after'}),
    *_TRANSFORMERS_MLP,
)
_DINOV2_BLOCK = (*_TRANSFORMERS_ATTENTION, *_HALVES, *_scales('layer_scale{}.lambda1'))


def _transformers(*blocks: Entry) -> Table:
    return (
        *_patches({'embed/patch/projection': 'embeddings.patch_embeddings.projection'}),
        _tokens('embed/class_token', 'embeddings.cls_token', 'embeddings.distillation_token'),
        _tokens('embed/registers', 'embeddings.register_tokens'),
        _tokens('embed/position/table', 'embeddings.position_embeddings'),
        *_norms({'norm': 'layernorm'}),
        *_denses({'head/output': 'classifier'}),
        *blocks,
    )


_DISTILLED = _when(
    lambda model: model.pool == 'distilled',
    _denses({
        'head/output': 'cls_classifier', 'head_distilled/output': 'distillation_classifier'
    }),
)  # fmt: skip
_DINOV3_BLOCK = (
    *_norms({'norm_1': 'norm1', 'norm_2': 'norm2'}),
    *_TRANSFORMERS_ATTENTION,
    Entry(
        'attention/qkv/bias', ('attention.q_proj.bias', 'attention.v_proj.bias'),
        when=lambda model: not model.key_bias,
    ),
    *_denses({'mlp/hidden': 'mlp.up_proj', 'mlp/output': 'mlp.down_proj'}),
    *_when(
        lambda model: model.mlp == 'swiglu',
        _denses({'mlp/hidden': ['mlp.gate_proj', 'mlp.up_proj']}),
    ),
    *_scales('layer_scale{}.lambda1'),
)  # fmt: skip
_DINOV3 = (
    *_patches({'embed/patch/projection': 'embeddings.patch_embeddings'}),
    _tokens('embed/class_token', 'embeddings.cls_token'),
    _tokens('embed/registers', 'embeddings.register_tokens'),
    *_nested('blocks/', 'layer.{i}.', _DINOV3_BLOCK),  # of version 4
    *_nested('blocks/', 'model.layer.{i}.', _DINOV3_BLOCK),
    *_norms({'norm': 'norm'}),
)
_CLIP_BLOCK = (
    *_norms({'norm_1': 'layer_norm1', 'norm_2': 'layer_norm2'}),
    *_denses({
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
    *_denses({
        'attention/projection': 'attention.out_proj',
        'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2',
    }),
    *_norms({'norm_2': 'layernorm'}),
)  # fmt: skip
_CLIP = (
    *_patches({'embed/patch/projection': 'embeddings.patch_embedding'}),
    Entry('embed/class_token', ('embeddings.class_embedding',), 'd -> 1 d'),
    Entry('embed/position/table', ('embeddings.position_embedding.weight',), 'n d -> n d'),
    *_norms({'embed/norm': 'pre_layrnorm', 'norm': 'post_layernorm'}),
    *_nested('blocks/', 'encoder.layers.{i}.', _CLIP_BLOCK),
    _tokens('class_token', 'head.probe'),
    *_one_layer('class_blocks/', 'head.', _SIGLIP_POOL),
    *_denses({'head/output': 'visual_projection'}),
)
_OPEN_CLIP_BLOCK = (
    *_norms({'norm_1': 'ln_1', 'norm_2': 'ln_2'}),
    Entry('attention/qkv/kernel', ('attn.in_proj_weight',), 'o i -> i o'),
    Entry('attention/qkv/bias', ('attn.in_proj_bias',)),
    *_denses({
        'attention/projection': 'attn.out_proj',
        'mlp/hidden': 'mlp.c_fc', 'mlp/output': 'mlp.c_proj',
    }),
    *_scales('ls_{}.gamma'),
)  # fmt: skip
_OPEN_CLIP = (
    *_patches({'embed/patch/projection': 'conv1'}),
    Entry('embed/class_token', ('class_embedding',), 'd -> 1 d'),
    Entry('embed/position/table', ('positional_embedding',), 'n d -> n d'),
    *_norms({'embed/norm': 'ln_pre', 'norm': 'ln_post'}),
    *_nested('blocks/', 'transformer.resblocks.{i}.', _OPEN_CLIP_BLOCK),
    Entry('head/output/kernel', ('proj',), 'i o -> i o'),
)


_FLAX_HEADS = functools.partial(
    _modules, 'd heads k -> d (heads k)', bias='heads k -> (heads k)', flax=True
)
_FLAX_OUT = functools.partial(_modules, 'heads k d -> (heads k) d', flax=True)


def _flax_block(norm_1: str, attention: str, norm_2: str, mlp: str) -> Table:
    return (
        *_flax_norms({'norm_1': norm_1, 'norm_2': norm_2}),
        *_FLAX_HEADS({'attention/qkv': [f'{attention}/{part}' for part in _QKV]}),
        *_FLAX_OUT({'attention/projection': f'{attention}/out'}),
        *_flax_denses({'mlp/hidden': f'{mlp}/Dense_0', 'mlp/output': f'{mlp}/Dense_1'}),
    )


def _flax_vit(positions: str, block: Table) -> Table:
    return (
        *_modules('h w c o -> (h w c) o', {'embed/patch/projection': 'embedding'}, flax=True),
        _tokens('embed/class_token', 'cls'),
        _tokens('embed/position/table', positions),
        *_nested('blocks/', 'Transformer/encoderblock_{i}/', block),
        *_flax_norms({'norm': 'Transformer/encoder_norm'}),
        *_flax_denses({'head/output': 'head'}),
    )


_MHA = 'MultiHeadDotProductAttention'
_AUGREG = _flax_vit(
    'Transformer/posembed_input/pos_embedding',
    _flax_block('LayerNorm_0', f'{_MHA}_1', 'LayerNorm_2', 'MlpBlock_3'),
)
_MAP_HEAD = (
    *_FLAX_HEADS({f'attention/{part}': f'{_MHA}_0/{part}' for part in _QKV}),
    *_FLAX_OUT({'attention/projection': f'{_MHA}_0/out'}),
    *_flax_norms({'norm_2': 'LayerNorm_0'}),
    *_flax_denses({'mlp/hidden': 'MlpBlock_0/Dense_0', 'mlp/output': 'MlpBlock_0/Dense_1'}),
)
_BIG_VISION = (
    *_flax_vit(
        'pos_embedding', _flax_block('LayerNorm_0', f'{_MHA}_0', 'LayerNorm_1', 'MlpBlock_0')
    ),
    _tokens('class_token', 'MAPHead_0/probe'),
    *_one_layer('class_blocks/', 'MAPHead_0/', _MAP_HEAD),
)
_VGG16_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG16 = (
    *_convolutions({f'conv_{i}/conv': f'features.{n}' for i, n in enumerate(_VGG16_LAYERS, 1)}),
    *_modules('o (c rows columns) -> (rows columns c) o', {'dense_1': 'classifier.0'}),
    *_denses({'dense_2': 'classifier.3', 'head': 'classifier.6'}),
)
TRANSFORMERS_VIT = Format(
    "transformers' ViT", models.ViT,
    _transformers(
        *_nested('blocks/', 'encoder.layer.{i}.', _TRANSFORMERS_BLOCK),  # of version 4
        *_nested('blocks/', 'layers.{i}.', _TRANSFORMERS_BLOCK), *_DISTILLED,
    ),
    antialias=False,
)  # fmt: skip
TRANSFORMERS_DINOV2 = Format(
    "transformers' DINOv2", models.ViT,
    _transformers(*_nested('blocks/', 'encoder.layer.{i}.', _DINOV2_BLOCK)), antialias=False,
)  # fmt: skip
TRANSFORMERS_DINOV3 = Format("transformers' DINOv3", models.ViT, _DINOV3)
TRANSFORMERS_CLIP = Format("transformers' CLIP and SigLIP", models.ViT, _CLIP)
TIMM_VIT = Format("timm's ViT", models.ViT, _TIMM_VIT)
TIMM_CAIT = Format(
    "timm's CaiT", models.CaiT,
    (*_TIMM_STEM, *_nested('blocks/', 'blocks.{i}.', _CAIT_BLOCK), *_CLASS_ATTENTION),
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
