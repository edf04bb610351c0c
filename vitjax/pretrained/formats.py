"""Tables of the formats of published weights: an entry for each parameter of ours.

A table is read both ways: `convert.Parameter` joins a file's tensors into a parameter and splits a
parameter into a file's tensors. Everything else follows from the tables too: which format a file
has, which sizes, and which tensors are missing, surplus or misshapen. To add a format, write its
table and add it to `FORMATS`.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vitjax import models
from vitjax.models.base import Model

Weights = Mapping[str, np.ndarray]

# einops patterns from a file's layout to ours. Axes: outputs, inputs, channels, height and width of
# a patch, y and x of a convolution's kernel; d is the width of vectors and tokens.
VECTOR = 'd -> d'
TOKENS = '1 n d -> n d'


@dataclasses.dataclass(frozen=True)
class Entry:
    """A parameter of ours and the tensors that hold it in a file.

    Attributes:
        path: path of the parameter.
        names: names of tensors; several are parts that we concatenate: queries, keys and values, or
            class tokens. `{i}` counts the layers that we stack.
        pattern: einops pattern from each tensor to its part of the parameter.
    """

    path: str
    names: tuple[str, ...]
    pattern: str = VECTOR

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
        """Length of a named axis of a tensor of the file; None if the tensor is misshapen."""
        axes = self.layouts[0].split()
        return tensor.shape[axes.index(axis)] if len(axes) == tensor.ndim else None


Table = tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of published weights.

    Attributes:
        name: name in messages.
        model: class of the models that it holds.
        entries: its table.
        antialias: True if its library resamples position embeddings with antialiasing.
    """

    name: str
    model: type[Model]
    entries: Table
    antialias: bool = True

    @functools.cached_property
    def table(self) -> Mapping[str, Entry]:
        """The entries by our path."""
        return {entry.path: entry for entry in self.entries}


def _nested(path: str, name: str, table: Iterable[Entry]) -> Table:
    return tuple(
        Entry(path + entry.path, tuple(name + each for each in entry.names), entry.pattern)
        for entry in table
    )


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


_HALVES = (
    *_norms({'norm_1': 'norm1', 'norm_2': 'norm2'}),
    *_denses({'mlp/hidden': 'mlp.fc1', 'mlp/output': 'mlp.fc2'}),
)
_ENDS = (*_norms({'norm': 'norm'}), *_denses({'head/output': 'head'}))
_TIMM_ATTENTION = {'attention/qkv': 'attn.qkv', 'attention/projection': 'attn.proj'}
_TIMM_BLOCK = (*_denses(_TIMM_ATTENTION), *_HALVES)
_TIMM_STEM = (
    *_patches({'embed/patch/projection': 'patch_embed.proj'}),
    _tokens('embed/position/table', 'pos_embed'),
    *_ENDS,
)


def _timm_vit(scales: str) -> Table:
    return (
        *_TIMM_STEM,
        _tokens('embed/class_token', 'cls_token', 'dist_token'),  # the second is distilled DeiT's
        _tokens('embed/registers', 'reg_token'),
        *_nested('blocks/', 'blocks.{i}.', (*_TIMM_BLOCK, *_scales(scales))),
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
    *_ENDS,
    Entry('head/kernel', ('head.{i}.weight',), '1 d -> d'),  # one linear output per class token
    Entry('head/bias', ('head.{i}.bias',), '1 ->'),
)
_QKV = ('query', 'key', 'value')
_TRANSFORMERS_ATTENTION = _denses({
    'attention/qkv': [f'attention.attention.{part}' for part in _QKV],
    'attention/projection': 'attention.output.dense',
})  # fmt: skip
_TRANSFORMERS_BLOCK = (
    *_TRANSFORMERS_ATTENTION,
    *_norms({'norm_1': 'layernorm_before', 'norm_2': 'layernorm_after'}),
    *_denses({'mlp/hidden': 'intermediate.dense', 'mlp/output': 'output.dense'}),
)
_DINOV2_BLOCK = (*_TRANSFORMERS_ATTENTION, *_HALVES, *_scales('layer_scale{}.lambda1'))


def _transformers(block: Table) -> Table:
    return (
        *_patches({'embed/patch/projection': 'embeddings.patch_embeddings.projection'}),
        _tokens('embed/class_token', 'embeddings.cls_token'),
        _tokens('embed/registers', 'embeddings.register_tokens'),
        _tokens('embed/position/table', 'embeddings.position_embeddings'),
        *_nested('blocks/', 'encoder.layer.{i}.', block),
        *_norms({'norm': 'layernorm'}),
        *_denses({'head/output': 'classifier'}),
    )


_MHA = 'MultiHeadDotProductAttention_1'
_AUGREG_BLOCK = (
    *_flax_norms({'norm_1': 'LayerNorm_0', 'norm_2': 'LayerNorm_2'}),
    *_modules(
        'd heads k -> d (heads k)', {'attention/qkv': [f'{_MHA}/{part}' for part in _QKV]},
        bias='heads k -> (heads k)', flax=True,
    ),
    *_modules('heads k d -> (heads k) d', {'attention/projection': f'{_MHA}/out'}, flax=True),
    *_flax_denses({'mlp/hidden': 'MlpBlock_3/Dense_0', 'mlp/output': 'MlpBlock_3/Dense_1'}),
)  # fmt: skip
_AUGREG = (
    *_modules('h w c o -> (h w c) o', {'embed/patch/projection': 'embedding'}, flax=True),
    _tokens('embed/class_token', 'cls'),
    _tokens('embed/position/table', 'Transformer/posembed_input/pos_embedding'),
    *_nested('blocks/', 'Transformer/encoderblock_{i}/', _AUGREG_BLOCK),
    *_flax_norms({'norm': 'Transformer/encoder_norm'}),
    *_flax_denses({'head/output': 'head'}),
)
_VGG16_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG16 = (
    *_convolutions({f'conv_{i}/conv': f'features.{n}' for i, n in enumerate(_VGG16_LAYERS, 1)}),
    *_modules('o (c rows columns) -> (rows columns c) o', {'dense_1': 'classifier.0'}),
    *_denses({'dense_2': 'classifier.3', 'head': 'classifier.6'}),
)
TRANSFORMERS_VIT = Format(
    "transformers' ViT", models.ViT, _transformers(_TRANSFORMERS_BLOCK), antialias=False
)
AUGREG = Format("AugReg's", models.ViT, _AUGREG)
FORMATS = (
    Format("timm's ViT", models.ViT, _timm_vit('ls{}.gamma')),
    Format("DeiT III's", models.ViT, _timm_vit('gamma_{}')),  # its authors' own
    Format(
        "timm's CaiT", models.CaiT,
        (*_TIMM_STEM, *_nested('blocks/', 'blocks.{i}.', _CAIT_BLOCK), *_CLASS_ATTENTION),
    ),
    Format("PatchConvNet's", models.PatchConvNet, _PATCHCONVNET),
    TRANSFORMERS_VIT,
    Format("transformers' DINOv2", models.ViT, _transformers(_DINOV2_BLOCK), antialias=False),
    AUGREG,
    Format("torchvision's VGG16", models.VGG16, _VGG16),
)  # fmt: skip

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
IGNORED = re.compile(r'(embeddings\.)?mask_token|pooler\..*')  # not part of the model
