"""Published weights to parameters of our models, whole or not at all, with their preprocessing.

A format is a table from our parameters to the names they have in a file, with the layouts of both
as einops patterns. Everything else follows from the tables: which format a file has, which sizes,
what is missing, surplus or misshapen.
"""

import dataclasses
import functools
import math
import pathlib
import re
import types
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import einops
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from vitjax import checkpoint, models
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing, imagenet_classes
from vitjax.experiment import Experiment
from vitjax.layers.init import kernel_init
from vitjax.layers.resample import resample_patch_kernel, resample_positions

Report = Callable[[str], object]
Weights = Mapping[str, np.ndarray]
Table = dict[str, Any]
Held = dict[str, dict[str, np.ndarray]]

# ---- The formats -------------------------------------------------------------------------------
#
# Left, a parameter of ours or the module that holds it; right, the tensor or module in the file. A
# module ends in '.' where its parameters are PyTorch's (`weight`, laid out [output, input, ...])
# and in '/' where they are flax's, laid out as ours. A tensor comes with a pattern from its layout
# to ours. {i} counts the layers that we stack; {qkv} stands for three that we concatenate.

_VECTOR = 'd -> d'
_TOKENS = '1 n d -> n d'
_PATCH = 'o c h w -> (h w c) o'
_DENSE = 'o i -> i o'
_CONVOLUTION = 'o i h w -> h w i o'
_ONE_BY_ONE = 'o i 1 1 -> i o'
_MLP = {'mlp/hidden': 'mlp.fc1.', 'mlp/output': 'mlp.fc2.'}
_NORMS = {'norm_1': 'norm1.', 'norm_2': 'norm2.'}
_GAMMAS = {'scale_1/scale': ('gamma_1', _VECTOR), 'scale_2/scale': ('gamma_2', _VECTOR)}
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
    def prefix(name: Any) -> Any:
        return theirs + name if isinstance(name, str) else (theirs + name[0], *name[1:])

    return {ours + path: prefix(name) for path, name in table.items()}


_TIMM_VIT = {
    'embed/patch/projection/kernel': ('patch_embed.proj.weight', _PATCH),
    'embed/patch/projection': 'patch_embed.proj.',
    'embed/class_token': ('cls_token', _TOKENS),
    'embed/registers': ('reg_token', _TOKENS),
    'embed/position/table': ('pos_embed', _TOKENS),
    **_nested(
        'blocks/',
        'blocks.{i}.',
        {
            'attention/qkv': 'attn.qkv.',
            'attention/projection': 'attn.proj.',
            **_NORMS,
            **_MLP,
            'scale_1/scale': ('ls1.gamma', _VECTOR),
            'scale_2/scale': ('ls2.gamma', _VECTOR),
        },
    ),
    'norm': 'norm.',
    'head/output': 'head.',
}
_TIMM_CAIT = {
    'embed/patch/projection/kernel': ('patch_embed.proj.weight', _PATCH),
    'embed/patch/projection': 'patch_embed.proj.',
    'embed/position/table': ('pos_embed', _TOKENS),
    'class_token': ('cls_token', _TOKENS),
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
    'class_token': ('cls_token', _TOKENS),
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
            'scale/scale': ('gamma_1', _VECTOR),
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
    'embed/class_token': ('embeddings.cls_token', _TOKENS),
    'embed/registers': ('embeddings.register_tokens', _TOKENS),
    'embed/position/table': ('embeddings.position_embeddings', _TOKENS),
    'norm': 'layernorm.',
    'head/output': 'classifier.',
}
_TRANSFORMERS_ATTENTION = {
    'attention/qkv': 'attention.attention.{qkv}.',
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
            'scale_1/scale': ('layer_scale1.lambda1', _VECTOR),
            'scale_2/scale': ('layer_scale2.lambda1', _VECTOR),
        },
    ),
}
_MHA = 'MultiHeadDotProductAttention_1/'
_AUGREG = {
    'embed/patch/projection/kernel': ('embedding/kernel', 'h w c o -> (h w c) o'),
    'embed/patch/projection': 'embedding/',
    'embed/class_token': ('cls', _TOKENS),
    'embed/position/table': ('Transformer/posembed_input/pos_embedding', _TOKENS),
    **_nested(
        'blocks/',
        'Transformer/encoderblock_{i}/',
        {
            'norm_1': 'LayerNorm_0/',
            'attention/qkv/kernel': (_MHA + '{qkv}/kernel', 'd heads k -> d (heads k)'),
            'attention/qkv/bias': (_MHA + '{qkv}/bias', 'heads k -> (heads k)'),
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
_FORMATS: dict[str, tuple[type[nn.Module], Table]] = {
    "timm's ViT": (models.ViT, _TIMM_VIT),
    "timm's CaiT": (models.CaiT, _TIMM_CAIT),
    "PatchConvNet's": (models.PatchConvNet, _PATCHCONVNET),
    "transformers' ViT": (models.ViT, _TRANSFORMERS_VIT),
    "transformers' DINOv2": (models.ViT, _TRANSFORMERS_DINOV2),
    "AugReg's": (models.ViT, _AUGREG),
    "torchvision's VGG16": (models.VGG16, _VGG16),
}

_PREFIXES = ('module.', 'model.', 'vit.', 'backbone.', 'dinov2.', 'dinov2_with_registers.')
_RENAMED = (  # spellings of other versions of the same libraries
    (r'register_tokens', r'reg_token'),
    (r'layers\.(\d+)\.mlp\.fc1\.(.*)', r'encoder.layer.\1.intermediate.dense.\2'),
    (r'layers\.(\d+)\.mlp\.fc2\.(.*)', r'encoder.layer.\1.output.dense.\2'),
    (r'layers\.(\d+)\.(.*)', r'encoder.layer.\1.\2'),
    (r'(.*)\.attention\.q_proj\.(.*)', r'\1.attention.attention.query.\2'),
    (r'(.*)\.attention\.k_proj\.(.*)', r'\1.attention.attention.key.\2'),
    (r'(.*)\.attention\.v_proj\.(.*)', r'\1.attention.attention.value.\2'),
    (r'(.*)\.attention\.o_proj\.(.*)', r'\1.attention.output.dense.\2'),
)
_IGNORED = re.compile(r'(embeddings\.)?mask_token|pooler\..*')

# ---- Files -------------------------------------------------------------------------------------

_PICKLED = ('.pth', '.pt', '.bin', '.ckpt', '.pkl', '.tar')
_CONVERSION = """\
{path} is a pickle, which can run any program when it is opened. These lines make it safe:
  import torch; from safetensors.torch import save_file
  weights = torch.load({path!r}, map_location='cpu', weights_only=True)
  save_file({{k: v.contiguous() for k, v in weights.get('model', weights).items()}}, {new!r})"""


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a weights file by name; nothing in it is ever unpickled.

    Args:
        path: a `.safetensors` file, an `.npz` file, or `hf-hub:owner/name`, whose
            `model.safetensors` is fetched through huggingface_hub (the `hub` extra).

    Raises:
        ValueError: for a missing, truncated or foreign file, and for pickles (`.pth` and the
            like), with the three lines that convert them.
    """
    if str(path).startswith('hf-hub:'):
        path = _fetch(str(path).removeprefix('hf-hub:'))
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    if suffix in _PICKLED:
        raise ValueError(
            _CONVERSION.format(path=str(path), new=str(path.with_suffix('.safetensors')))
        )
    if suffix not in ('.safetensors', '.npz'):
        raise ValueError(f'weights must be a .safetensors or .npz file: {path}.')
    if not path.is_file():
        raise ValueError(f'there is no weights file {path}.')
    if suffix == '.npz':
        return _read_npz(path)
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path} is not a whole safetensors file: {error}.') from None


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):  # np.load would speak of pickles
        raise ValueError(
            f'{path} is not a whole npz file: it has no directory of a zip at its end.'
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            out = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f'{path} is not a whole npz file of plain arrays: {error}.') from None
    others = [name for name, value in out.items() if not isinstance(value, np.ndarray)]
    if others or not out:
        raise ValueError(f'{path} is a zip, not an npz: it holds {", ".join(others) or "nothing"}.')
    return out


def _fetch(repository: str) -> pathlib.Path:
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"hf-hub:{repository} needs the hub extra: pip install 'vitjax[hub]'."
        ) from None
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(repository, 'model.safetensors'))
    except (OSError, ValueError) as error:  # what its errors derive from
        first = str(error).strip().splitlines()[0]
        raise ValueError(f'hf-hub:{repository} cannot be fetched: {first}') from None


# ---- What a file holds -------------------------------------------------------------------------


def recognise(weights: Weights, path: str | pathlib.Path = '') -> str:
    """The published model that weights belong to, from their names and shapes.

    DeiT and ViT of one size have the same names and shapes, and different preprocessing. There the
    file's or a folder's name decides, if it says `deit` or `vit`.

    Raises:
        ValueError: if no published model fits, or more than one, with the candidates.
    """
    weights = _strip(weights)
    label = _format(weights)
    kind, table = _FORMATS[label]
    facts = _facts(_held(weights, table))
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


def _strip(weights: Weights) -> dict[str, np.ndarray]:
    """Weights under the names that the tables have: without wrappers' prefixes."""
    out: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        short = name
        while prefix := next((p for p in _PREFIXES if short.startswith(p)), None):
            short = short.removeprefix(prefix)
        for pattern, replacement in _RENAMED:
            short = re.sub(f'^{pattern}$', replacement, short)
        if short in out:
            raise ValueError(f'the weights hold {short} twice, once as {name}.')
        out[short] = value
    return out


def _format(weights: Weights, kind: type[nn.Module] | None = None) -> str:
    """The format that knows most of the names, and has fewest of its own."""

    def fit(label: str) -> tuple[int, int]:
        table = _FORMATS[label][1]
        return sum(map(len, _held(weights, table).values())), -len(table)

    fits = {n: fit(n) for n, (model, _) in _FORMATS.items() if kind in (None, model)}
    best = max(fits, key=fits.__getitem__, default=None)
    if best is None or 2 * fits[best][0] <= len(weights):
        known = ', '.join(fits) or f'a published format, and {kind} has none'
        some = ', '.join(list(weights)[:3]) or 'nothing'
        raise ValueError(f'the weights must have names of {known}: they have {some}, ...')
    return best


def _held(weights: Weights, table: Table) -> Held:
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
    if patch := _patch_size(held):
        facts['patch_size'] = patch
    return facts


def _fields(model: nn.Module) -> dict[str, Any]:
    """What `_facts` must say of a model's weights."""
    names = ('depth', 'class_depth', 'registers', 'class_tokens_per_class', 'width', 'patch_size')
    layer_scale = getattr(model, 'layer_scale', None) is not None
    return {name: getattr(model, name, 0) for name in names} | {'layer_scale': layer_scale}


def _patch_size(held: Held) -> int | None:
    for kernel in held.get('embed/patch/projection/kernel', {}).values():
        if kernel.ndim == 4:  # PyTorch's order has the three channels second, flax's third
            return kernel.shape[2] if kernel.shape[1] == 3 else kernel.shape[0]
    return None


def _image_size(held: Held) -> int | None:
    """The side in pixels that the position embeddings were made for; None without them."""
    patch = _patch_size(held)
    for positions in held.get('embed/position/table', {}).values():
        rows = positions.shape[-2] if positions.ndim == 3 else 0
        side = math.isqrt(rows)
        if patch and side**2 in (rows, rows - 1):  # a class token may have a row
            return side * patch or None
    return None


def _num_classes(held: Held) -> int:
    """Outputs of the head; 0 if there is none."""
    biases = held.get('head/output/bias', held.get('head/bias', {}))
    return sum(bias.size for bias in biases.values())


# ---- From one to the other ---------------------------------------------------------------------


def convert(
    weights: Weights,
    model: nn.Module,
    image_size: int,
    *,
    seed: int = 0,
    report: Report = print,
) -> Any:
    """Published weights as parameters of `model` for images of `image_size` pixels.

    Position embeddings and patch kernels are resampled where the grid or patch size differs, and
    the head starts afresh where the number of classes does (see `resize`).

    Args:
        weights: tensors by name, as `read` returns them: timm's and DeiT's names for ViT, CaiT and
            PatchConvNet, the transformers library's for ViT and DINOv2, AugReg's for ViT,
            torchvision's for VGG16.
        model: the module wanted.
        image_size: side in pixels of the images wanted.
        seed: of a fresh head.
        report: takes one line for each change made on the way.

    Raises:
        ValueError: if a tensor is missing, surplus, misshapen or not finite, with all of them; if
            the names are of no known format; if the patch size does not divide the image size.
    """
    label, origins = match(weights, model, image_size, report=report)
    params = {path: assemble(origin) for path, origin in origins.items()}
    # transformers resamples without antialiasing, except in DINOv2 with registers.
    antialias = not label.startswith('transformers') or 'embed/registers' in params
    return resize(
        _unflatten(params), model, image_size, antialias=antialias, seed=seed, report=report
    )


class Origin(NamedTuple):
    """What a parameter is made of: tensors in a file, and their way to our layout."""

    tensors: list[list[np.ndarray]]  # of each layer of a stack, its parts
    stacked: bool
    pattern: str
    sizes: dict[str, int]  # of axes that the pattern splits


def match(
    weights: Weights, model: nn.Module, image_size: int, *, report: Report = print
) -> tuple[str, dict[str, Origin]]:
    """The format of weights, and the tensors of each parameter of `model` as the file has it.

    The first half of `convert`: it checks everything and copies nothing.

    Raises:
        ValueError: as `convert` does.
    """
    _shapes(model, image_size)  # an impossible size is the first thing to hear of
    weights = {k: v for k, v in _strip(weights).items() if not _IGNORED.fullmatch(k)}
    label = _format(weights, type(model))
    table = _FORMATS[label][1]
    weights |= _class_position(_held(weights, table))
    held = _held(weights, table)
    source, size = _as_in_file(held, model, image_size)
    heads = [name for path in held if path.startswith('head') for name in held[path]]
    if heads and not source.num_classes:
        weights = {name: value for name, value in weights.items() if name not in heads}
        report(f'head: left out; was {_num_classes(held)} classes')
    entries = _entries(source, table, size)
    _require_match(weights, entries, label)
    return label, {
        path: Origin([[weights[n] for n in layer] for layer in names], stacked, pattern, sizes)
        for path, (names, stacked, pattern, sizes, _) in entries.items()
    }


def _class_position(held: Held) -> dict[str, np.ndarray]:
    """Positions with a row of zeros for the class token, which timm's with registers lack."""
    if 'embed/registers' not in held:
        return {}
    positions = held.get('embed/position/table', {})
    return {
        name: np.pad(value, ((0, 0), (1, 0), (0, 0)))
        for name, value in positions.items()
        if value.ndim == 3 and math.isqrt(value.shape[1]) ** 2 == value.shape[1]
    }


def _as_in_file(held: Held, model: nn.Module, image_size: int) -> tuple[Any, int]:
    """The model and image size as the file has them: its patches, positions and classes."""
    wanted: Any = model
    changes: dict[str, Any] = {}
    if patch := _patch_size(held):
        changes['patch_size'] = patch
        image_size = patch * (image_size // wanted.patch_size)
    if wanted.num_classes:
        # A head of which only a part is there is not absent, but damaged.
        part = any(path.startswith('head') for path in held)
        part = part or getattr(wanted, 'class_tokens_per_class', False)
        changes['num_classes'] = _num_classes(held) or (wanted.num_classes if part else 0)
    return wanted.clone(**changes), _image_size(held) or image_size


def _entries(model: Any, table: Table, image_size: int) -> dict[str, Any]:
    """For each parameter: its `Origin` with names for tensors, and the shape of such a tensor."""
    sides = getattr(model, 'patch_size', 7)  # VGG16 pools its maps to 7x7
    sizes = {'h': sides, 'w': sides, 'heads': getattr(model, 'num_heads', 0)}
    out: dict[str, Any] = {}
    for path, leaf in _shapes(model, image_size).items():
        name, pattern = _name(table, path)
        stacked = '{i}' in name
        shape = leaf.shape[1:] if stacked else leaf.shape
        layers = [name.replace('{i}', str(i)) for i in range(leaf.shape[0] if stacked else 1)]
        parts = ('query', 'key', 'value') if '{qkv}' in name else ('',)
        names = [[layer.replace('{qkv}', part) for part in parts] for layer in layers]
        shape = (*shape[:-1], shape[-1] // len(parts)) if shape else shape
        pattern = pattern or (_VECTOR, _DENSE, '', _CONVOLUTION)[len(shape) - 1]
        theirs, ours = pattern.split('->')
        there = einops.rearrange(
            np.broadcast_to(np.float32(0), shape),  # takes no memory
            f'{ours} -> {theirs}',
            **_merged(ours, sizes),
        )
        out[path] = names, stacked, pattern, _merged(theirs, sizes), there.shape
    return out


def _name(table: Table, path: str) -> tuple[str, str]:
    """The name that a parameter has in a file, and its pattern: '' is PyTorch's."""
    module, _, leaf = path.rpartition('/')
    if path in table:
        return table[path]
    if module not in table:
        raise ValueError(f'published weights have no {path}, which this model has.')
    if table[module].endswith('/'):
        return table[module] + leaf, '... -> ...'
    return table[module] + ('bias' if leaf == 'bias' else 'weight'), ''


def _merged(side: str, sizes: dict[str, int]) -> dict[str, int]:
    """The sizes of the axes that one side of a pattern has in parentheses."""
    axes = ' '.join(re.findall(r'\((.*?)\)', side)).split()
    return {axis: sizes[axis] for axis in axes if axis in sizes}


def _require_match(weights: Weights, entries: dict[str, Any], label: str) -> None:
    """Raises ValueError with every tensor that is missing, surplus, misshapen or not finite."""
    wanted = {
        name: shape for names, *_, shape in entries.values() for layer in names for name in layer
    }
    lines = [f'- {name} {list(shape)}' for name, shape in wanted.items() if name not in weights]
    lines += [
        f'+ {name} {list(value.shape)}' for name, value in weights.items() if name not in wanted
    ]
    for name, shape in wanted.items():
        value = weights.get(name)
        if value is None:
            continue
        if value.shape != shape:
            lines.append(f'  {name}: is {list(value.shape)}, must be {list(shape)}')
        elif not jnp.issubdtype(value.dtype, jnp.floating):
            lines.append(f'  {name}: is {value.dtype}, must be floating point')
        elif not np.isfinite(value).all():
            lines.append(f'  {name}: holds NaN or infinity')
    if lines:
        raise ValueError(
            f'the weights ({label} names) do not fit the model; - missing, + surplus:\n'
            + '\n'.join(lines)
        )


def assemble(origin: Origin) -> np.ndarray:
    """A parameter from its tensors: rearranged, parts concatenated, layers stacked; float32."""

    def rearranged(tensor: np.ndarray) -> np.ndarray:
        return einops.rearrange(
            tensor.astype(np.float32, copy=False), origin.pattern, **origin.sizes
        )

    layers = [
        np.concatenate([rearranged(part) for part in parts], -1)
        if len(parts) > 1
        else rearranged(parts[0])
        for parts in origin.tensors
    ]
    return np.stack(layers) if origin.stacked else layers[0]


def resize(
    params: Any,
    model: nn.Module,
    image_size: int,
    *,
    antialias: bool = True,
    seed: int = 0,
    report: Report = print,
) -> Any:
    """Parameters of a model at one size as parameters of `model`, at `image_size` pixels.

    What differs between the two may be the image size, the patch size and the number of classes:
    position embeddings are resampled (bicubic), patch kernels too (FlexiViT's pseudo-inverse
    resize, Beyer et al. 2023), and a head for another number of classes starts afresh.

    Args:
        params: of the model as it was, on a square grid of patches.
        model: the module wanted, with its patch size and number of classes.
        image_size: side in pixels of the images wanted.
        antialias: how positions are resampled, as in `resample_positions`.
        seed: of a fresh head.
        report: takes one line for each change made.

    Raises:
        ValueError: if the patch size does not divide the image size, or the models differ in more
            than that, with all parameters that do not fit.
    """
    wanted = _shapes(model, image_size)
    flat = dict(_flatten(params))
    kernel, table = 'embed/patch/projection/kernel', 'embed/position/table'
    if kernel in flat and kernel in wanted:
        old, new = (math.isqrt(x[kernel].shape[0] // 3) for x in (flat, wanted))
        if old != new:
            flat[kernel] = resample_patch_kernel(flat[kernel], old, new)
            report(f'patch kernel: {old} -> {new} pixels, by pseudo-inverse')
    if table in flat and table in wanted:
        prefix = int('embed/class_token' in wanted)
        old, new = (math.isqrt(x[table].shape[0] - prefix) for x in (flat, wanted))
        if old != new:
            flat[table] = resample_positions(
                flat[table], (old, old), (new, new), prefix=prefix, antialias=antialias
            )
            how = 'antialiased' if antialias else 'not antialiased'
            report(f'position embeddings: {old}x{old} -> {new}x{new} patches, bicubic, {how}')
    old, new = _classes(flat), _classes(wanted)
    if old != new:
        key = jax.random.key(seed)
        flat = {path: value for path, value in flat.items() if not _of_classes(path, wanted)}
        for path in filter(lambda path: _of_classes(path, wanted), wanted):
            own = jax.random.fold_in(key, zlib.crc32(path.encode()))
            init = nn.initializers.zeros if path.endswith('bias') else kernel_init
            flat[path] = init(own, wanted[path].shape)
        was = f'{old} classes' if old else 'none'
        report(f'head: fresh, {new} classes; was {was}' if new else f'head: left out; was {was}')
    lines = [f'- {path} {list(wanted[path].shape)}' for path in wanted if path not in flat]
    lines += [f'+ {path} {list(flat[path].shape)}' for path in flat if path not in wanted]
    lines += [
        f'  {path}: is {list(flat[path].shape)}, must be {list(wanted[path].shape)}'
        for path in wanted
        if path in flat and flat[path].shape != wanted[path].shape
    ]
    if lines:
        raise ValueError(
            f'the parameters cannot be made to fit {type(model).__name__} at {image_size} pixels; '
            '- missing, + surplus:\n' + '\n'.join(lines)
        )
    return _unflatten({path: jnp.asarray(value) for path, value in flat.items()})


def _classes(flat: Mapping[str, Any]) -> int:
    biases = [flat[path].shape[0] for path in ('head/output/bias', 'head/bias') if path in flat]
    return biases[0] if biases else 0


def _of_classes(path: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a parameter has an axis of classes: the head, and class tokens of their own."""
    per_class = 'head/kernel' in wanted and wanted['head/kernel'].shape[0] == _classes(wanted)
    return path.startswith(('head/output/', 'head/kernel', 'head/bias')) or (
        per_class and path == 'class_token'
    )


@functools.lru_cache(maxsize=16)
def _shapes(model: nn.Module, image_size: int) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Parameters of a model by path, as shapes: computes nothing."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    init = jax.eval_shape(lambda key, x: model.init(key, x), jax.random.key(0), images)
    return types.MappingProxyType(_flatten(init['params']))


def _flatten(tree: Any) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep='/')


def _unflatten(flat: dict[str, Any]) -> Any:
    return flax.traverse_util.unflatten_dict(flat, sep='/')


# ---- One way in --------------------------------------------------------------------------------


def preprocessing(name: str, image_size: int) -> Preprocessing:
    """What the published weights of a model were trained with; resizing is bicubic throughout.

    DeiT: Touvron et al.'s evaluation, 256 to 224 pixels. CaiT, PatchConvNet and DINOv2: no border
    is cut. ViT (AugReg): pixels to -1..1, a border of a tenth up to 224 pixels. VGG16: 256 to 224.
    """
    large = image_size >= 384
    if name.endswith('dinov2') or name.startswith(('cait', 'patchconvnet')):
        return Preprocessing(image_size, crop=1.0)
    if name.startswith('vit'):
        half = (0.5, 0.5, 0.5)
        return Preprocessing(image_size, 1.0 if large else 0.9, mean=half, deviation=half)
    return Preprocessing(image_size, 1.0 if large else 0.875)


def load(
    path: str | pathlib.Path,
    *,
    model: str | None = None,
    image_size: int | None = None,
    patch_size: int | None = None,
    num_classes: int | None = None,
    which: str = 'best',
    report: Report = print,
) -> tuple[Experiment, Any]:
    """A run directory or a file of published weights, as `(experiment, params)`.

    The experiment's model, preprocessing and class names are those of the parameters returned.

    Args:
        path: a run directory, or what `read` takes.
        model: a published model's name where the weights do not say it; not for a run.
        image_size: side in pixels of the images wanted; None keeps what it was made for.
        patch_size: of the patches wanted; None keeps it.
        num_classes: another number starts a fresh head, 0 leaves it out; None keeps the head.
        which: of a run's checkpoints, `best` or `latest`.
        report: takes one line for each change made.

    Raises:
        ValueError: as `checkpoint.load`, `read`, `recognise`, `convert` and `resize` do.
    """
    if pathlib.Path(path).is_dir():
        if model is not None:
            raise ValueError(f'a run directory knows its model: {path}; leave out {model}.')
        return _load_run(path, image_size, patch_size, num_classes, which, report)
    weights = read(path)
    name = model or recognise(weights, path)
    if model is None:
        report(f'model: {name}')
    stripped = _strip(weights)
    held = _held(stripped, _FORMATS[_format(stripped, type(models.named(name)))][1])
    if num_classes is None:
        num_classes = _num_classes(held)
    fields: dict[str, Any] = {'num_classes': num_classes}
    if patch_size is not None:
        fields['patch_size'] = patch_size
    module = models.named(name, **fields)
    size = image_size or _image_size(held) or 224
    params = convert(weights, module, size, report=report)
    classes = imagenet_classes()
    return Experiment(
        model=module,
        augment=Augment(size=size),
        preprocessing=preprocessing(name, size),
        classes=classes if num_classes == len(classes) else (),
    ), params


def _load_run(
    run: str | pathlib.Path,
    image_size: int | None,
    patch_size: int | None,
    num_classes: int | None,
    which: str,
    report: Report,
) -> tuple[Experiment, Any]:
    experiment, params = checkpoint.load(run, which)
    prepared = experiment.preprocessing or Preprocessing(experiment.augment.size, 1.0)
    model: Any = experiment.model
    changes: dict[str, Any] = {}
    if patch_size is not None:
        changes['patch_size'] = patch_size
    if num_classes is not None and num_classes != model.num_classes:
        changes['num_classes'] = num_classes
        experiment = dataclasses.replace(experiment, classes=())
    size = image_size or prepared.size
    if changes or size != prepared.size:
        model = model.clone(**changes)
        params = resize(params, model, size, report=report)
    return dataclasses.replace(
        experiment,
        model=model,
        augment=dataclasses.replace(experiment.augment, size=size),
        preprocessing=dataclasses.replace(prepared, size=size),
    ), params
