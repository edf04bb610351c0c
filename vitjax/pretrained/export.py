"""Weights for other libraries: a format's tables read from ours to theirs, with its config.json."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from safetensors.numpy import save

from vitjax import models
from vitjax.base import files
from vitjax.base.types import Module, Params
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Prepared, preprocessing, to_json
from vitjax.models.base import count_parameters
from vitjax.pretrained import formats
from vitjax.pretrained.convert import Parameter, axis_lengths, in_file
from vitjax.pretrained.entries import OWN, Format
from vitjax.pretrained.files import WEIGHTS
from vitjax.pretrained.resize import flatten

Library = Literal['timm', 'transformers', 'safetensors', 'stablehlo']
PLATFORMS = ('cpu', 'cuda', 'tpu')
_PLAIN: dict[str, Any] = {  # values of the fields that no other library has
    'mlp_last_gelu': False, 'head': (), 'head_width': None, 'position_grid': None,
}  # fmt: skip


class Export(NamedTuple):
    """A model as another library stores it.

    Attributes:
        tensors: its tensors by name.
        config: content of its `config.json`.
    """

    tensors: dict[str, np.ndarray]
    config: dict[str, Any]


def export(experiment: Prepared, params: Params, library: Library) -> Export:
    """A trained model's weights and configuration for timm or transformers.

    Args:
        experiment: the model, its preprocessing and class names.
        params: its parameters.
        library: timm, transformers, or safetensors: our own names and the experiment.

    Raises:
        ValueError: if the library has no such model, by the first field that it lacks.
    """
    model: Module = experiment.model
    images = preprocessing(experiment)
    if library == 'safetensors':
        own = {path.replace('/', '.'): np.asarray(x) for path, x in flatten(params).items()}
        return Export(own, {OWN: to_json(experiment)})
    _require(library, model, {k: v for k, v in _PLAIN.items() if k in vars(model)})
    if library == 'timm':
        format, prefix, config = _timm(model, images)
        config |= {'label_names': list(experiment.classes)} if experiment.classes else {}
    else:
        format, prefix, config = _transformers(model, images)
        classes = experiment.classes or [f'LABEL_{i}' for i in range(model.num_classes)]
        config['id2label'] = {str(i): name for i, name in enumerate(classes)}
        config['label2id'] = {name: i for i, name in enumerate(classes)}
    named = tensors(params, model, format, prefix)
    # These have one, and read it in training alone.
    if format is formats.TRANSFORMERS_DINOV3:
        named['embeddings.mask_token'] = np.zeros((1, 1, model.width), np.float32)
    elif config.get('model_type') == 'dinov2_with_registers':
        named[f'{prefix}embeddings.mask_token'] = np.zeros((1, model.width), np.float32)
    return Export(named, config)


def tensors(
    params: Params, model: Module, format: Format, prefix: str = ''
) -> dict[str, np.ndarray]:
    """Parameters under a format's names: what `convert` reads back to the same parameters.

    Args:
        params: parameters of `model`.
        model: the model.
        format: the format.
        prefix: put before every name but those of heads.

    Raises:
        ValueError: if the format has no name for a parameter.
    """
    flat, parameters = flatten(params), {}
    for path, value in flat.items():
        entries = [entry for entry in format.paths.get(path, ()) if entry.when(model)]
        if not entries:
            raise ValueError(f'{format.name} names have none for {path}.')
        parameters[path] = Parameter(entries[-1], value.shape, axis_lengths(model))
    named = in_file(parameters, {path: np.asarray(value) for path, value in flat.items()})
    heads = {
        name for path in parameters if path.startswith('head') for name in _names(parameters[path])
    }
    return {name if name in heads else prefix + name: value for name, value in named.items()}


def _names(parameter: Parameter) -> list[str]:
    return [name for names in parameter.names for name in names]


_OPENS = {
    'timm': "timm.create_model('local-dir:FOLDER', pretrained=True)",
    'transformers': "transformers.{name}.from_pretrained('FOLDER')",
    'safetensors': "vitjax.load('FOLDER')",
    'stablehlo': "jax.export.deserialize(open('FOLDER/model.stablehlo', 'rb').read()).call(images)",
}  # fmt: skip


def write(out: str | pathlib.Path, experiment: Prepared, params: Params, library: Library) -> None:
    """Writes a folder as the hub has it: the weights or program, config.json and README.md.

    Args:
        out: folder, new or empty.
        experiment: the model, its preprocessing and class names.
        params: its parameters.
        library: as in `export`; `stablehlo` writes a program instead of weights.

    Raises:
        ValueError: as `export` does; if flatbuffers, which `stablehlo` needs, is missing.
        OSError: if something is in the folder.
    """
    if library == 'stablehlo':
        made = Export({}, {OWN: to_json(experiment)})
        name, content = 'model.stablehlo', stablehlo(experiment, params)
    else:
        made = export(experiment, params, library)
        whole = {name: np.ascontiguousarray(value) for name, value in made.tensors.items()}
        name, content = WEIGHTS, save(whole, {'format': 'pt'})
    with files.writing_folder(out) as folder:
        (folder / name).write_bytes(content)
        (folder / 'config.json').write_text(json.dumps(made.config, indent=2) + '\n')
        (folder / 'README.md').write_text(_card(experiment, params, library, made.config))


def _card(experiment: Prepared, params: Params, library: Library, config: Mapping[str, Any]) -> str:
    """Text of a model card: what it is, its images, and how to open it."""
    images, model = preprocessing(experiment), experiment.model
    name = (config.get('architectures') or [''])[0]
    classes = f'{model.num_classes} classes' if model.num_classes else 'no head'
    own = library in ('safetensors', 'stablehlo')
    return (
        f'---\nlibrary_name: {OWN if own else library}\n'
        'pipeline_tag: image-classification\n---\n\n'
        f'# {type(model).__name__}\n\n{count_parameters(params):,} parameters, {classes}. '
        f'Images of {images.size}x{images.size} pixels, mean {images.mean}, '
        f'deviation {images.deviation}.\n\n'
        f'```python\n{_OPENS[library].format(name=name)}\n```\n\n'
        f'The model as vitjax has it:\n\n```\n{model}\n```\n'
    )


def _require(library: str, model: Module, wanted: Mapping[str, Any]) -> None:
    for field, value in wanted.items():
        if (own := vars(model)[field]) != value:
            raise ValueError(
                f'{library} has no {type(model).__name__} with {field}={own!r}: only {value!r}.'
            )


def stablehlo(experiment: Prepared, params: Params) -> bytes:
    """A model's forward pass for any batch, as `jax.export` serializes it for `PLATFORMS`.

    `jax.export.deserialize(bytes).call(images)` needs jax alone. It maps images [b, size, size, 3],
    float32 and normalized, to logits [b, num_classes].
    """
    model, size = experiment.model, preprocessing(experiment).size
    (batch,) = jax_export.symbolic_shape('b')
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    forward = jax.jit(lambda images: model.apply({'params': params}, images))
    exported = jax_export.export(forward, platforms=PLATFORMS)(images)
    try:
        return bytes(exported.serialize())
    except ImportError:
        raise ValueError("stablehlo needs the export extra: pip install -e '.[export]'.") from None


# ---- timm --------------------------------------------------------------------------------------


def _timm(model: Module, images: Preprocessing) -> tuple[Format, str, dict[str, Any]]:
    if isinstance(model, models.CaiT):
        format, architecture, args = formats.TIMM_CAIT, 'cait_xxs24_224', _timm_cait(model)
    elif isinstance(model, models.ViT):
        format = formats.TIMM_VIT
        architecture, args = _timm_eva(model) if model.rope else _timm_vit(model)
    else:
        raise ValueError(f'timm has no {type(model).__name__}.')
    pool = {'mean': 'avg', 'map': 'map'}.get(getattr(model, 'pool', ''), 'token')
    side = [3, images.size, images.size]
    args |= {'img_size': images.size, 'patch_size': model.patch_size, 'depth': model.depth}
    args |= {'embed_dim': model.width, 'num_heads': model.num_heads, 'global_pool': pool}
    packed = 2 if architecture == 'vit_giant_patch14_dinov2' else 1  # gate and value count
    args |= {'num_classes': model.num_classes, 'mlp_ratio': packed * model.mlp_ratio}
    return format, '', {
        'architecture': architecture, 'num_classes': model.num_classes, 'num_features': model.width,
        'global_pool': pool, 'model_args': args,
        'pretrained_cfg': {
            'input_size': side, 'mean': list(images.mean), 'std': list(images.deviation),
            'crop_pct': images.crop, 'interpolation': images.interpolation,
            'crop_mode': 'squash' if images.squash else 'center', 'classifier': 'head',
            'first_conv': 'patch_embed.proj', 'num_classes': model.num_classes,
        },
    }  # fmt: skip


def _timm_cait(model: models.CaiT) -> dict[str, Any]:
    return {
        'depth_token_only': model.class_depth, 'init_values': model.layer_scale or 1.0,
        'qkv_bias': model.qkv_bias, 'mlp_ratio_token_only': model.mlp_ratio,
    }  # fmt: skip


def _timm_vit(model: models.ViT) -> tuple[str, dict[str, Any]]:
    _require('timm', model, {'key_bias': True, 'mlp_norm': False, 'head_bias': True})
    if model.norm == 'rms' and model.patch_norm:
        _require('timm', model, {'bias': False, 'mlp': 'swiglu', 'pool': 'mean'})
        architecture = 'aimv2_large_patch14_224'
    elif model.mlp == 'swiglu':
        architecture = 'vit_giant_patch14_dinov2'
    elif model.pool == 'distilled':
        architecture = 'deit_tiny_distilled_patch16_224'
    else:
        architecture = 'vit_base_patch16_clip_224' if _wide(model) else 'vit_base_patch16_224'
        _require('timm', model, {'norm': 'layer', 'bias': True, 'patch_norm': False})
        _require('timm', model, {'patch_bias': not model.pre_norm})
    args: dict[str, Any] = {'qkv_bias': model.qkv_bias, 'qk_norm': model.qk_norm}
    args |= {'pre_norm': model.pre_norm, 'init_values': model.layer_scale}
    if model.mlp != 'swiglu':
        args['act_layer'] = model.mlp
    if model.pool != 'distilled':
        args |= _timm_tokens(model, 'reg_tokens')
        args |= {'fc_norm': model.pool == 'mean' and model.fc_norm}
    return architecture, args


def _timm_tokens(model: models.ViT, registers: str) -> dict[str, Any]:
    placed = model.prefix_positions
    _require('timm', model, {'position': 'none' if model.position == 'none' else 'learned'})
    if placed == 'class' and model.class_tokens and model.registers and model.position != 'none':
        raise ValueError("timm has no ViT with registers and prefix_positions='class'.")
    bare = placed == 'none' or (placed == 'class' and not model.class_tokens)
    return {
        'class_token': model.class_tokens > 0, registers: model.registers, 'no_embed_class': bare
    }  # fmt: skip


def _timm_eva(model: models.ViT) -> tuple[str, dict[str, Any]]:
    names = {
        'dinov3': 'vit_small_patch16_dinov3', 'eva02': 'eva02_tiny_patch14_224',
        'axial': 'vit_small_patch16_rope_224', 'mixed': 'vit_small_patch16_rope_mixed_224',
    }  # fmt: skip
    _require('timm', model, {'norm': 'layer', 'bias': True, 'qk_norm': False, 'pre_norm': False})
    apart = model.mlp_norm and not model.key_bias
    args: dict[str, Any] = {
        'qkv_bias': model.qkv_bias, 'qkv_fused': not apart, 'scale_mlp': model.mlp_norm,
        'swiglu_mlp': model.mlp == 'swiglu', 'init_values': model.layer_scale,
        'use_fc_norm': model.pool == 'mean' and model.fc_norm,
        'use_abs_pos_emb': model.position == 'learned',
    }  # fmt: skip
    if model.mlp == 'swiglu' and model.rope == 'dinov3':
        args['swiglu_align_to'] = 1  # two tensors, of any width
    return names[model.rope or ''], args | _timm_tokens(model, 'num_reg_tokens')


def _wide(model: models.ViT) -> bool:
    """True if a norm's epsilon is nearer to CLIP's 1e-5 than to the 1e-6 of others."""
    return model.norm_epsilon > 3e-6


# ---- transformers ------------------------------------------------------------------------------


def _transformers(model: Module, images: Preprocessing) -> tuple[Format, str, dict[str, Any]]:
    if not isinstance(model, models.ViT):
        raise ValueError(f'transformers has no {type(model).__name__}.')
    activations = {'gelu_tanh': 'gelu_pytorch_tanh', 'swiglu': 'silu'}
    hidden = int(model.width * model.mlp_ratio)
    config: dict[str, Any] = {
        'hidden_size': model.width, 'num_hidden_layers': model.depth,
        'num_attention_heads': model.num_heads, 'intermediate_size': hidden,
        'hidden_act': activations.get(model.mlp, model.mlp), 'layer_norm_eps': model.norm_epsilon,
        'image_size': images.size, 'patch_size': model.patch_size, 'num_channels': 3,
    }  # fmt: skip
    common = {'norm': 'layer', 'mlp_norm': False, 'qk_norm': False, 'patch_norm': False}
    _require('transformers', model, {**common, 'bias': True})
    head = model.num_classes > 0
    if model.rope:
        _require('transformers', model, {'rope': 'dinov3', 'pool': 'class', 'num_classes': 0})
        config |= {
            'num_register_tokens': model.registers, 'query_bias': model.qkv_bias,
            'key_bias': model.qkv_bias and model.key_bias, 'value_bias': model.qkv_bias,
            'layerscale_value': model.layer_scale, 'use_gated_mlp': model.mlp == 'swiglu',
            'rope_theta': 100.0,
        }  # fmt: skip
        kind, name, prefix, format = 'dinov3_vit', 'DINOv3ViTModel', '', formats.TRANSFORMERS_DINOV3
    elif model.pre_norm:
        _require('transformers', model, {'pool': 'class', 'patch_bias': False, 'head_bias': False})
        config['projection_dim'] = model.num_classes
        kind, name, prefix = 'clip_vision_model', 'CLIPVisionModelWithProjection', 'vision_model.'
        format = formats.TRANSFORMERS_CLIP
    elif model.pool == 'map':
        _require('transformers', model, {'num_classes': 0, 'registers': 0})
        kind, name, prefix = 'siglip_vision_model', 'SiglipVisionModel', ''
        format = formats.TRANSFORMERS_CLIP
    elif model.layer_scale is not None:
        kind = 'dinov2_with_registers' if model.registers else 'dinov2'
        _require('transformers', model, {'pool': 'class_and_mean' if head else 'class'})
        kinds = {'dinov2': 'Dinov2', 'dinov2_with_registers': 'Dinov2WithRegisters'}
        name = kinds[kind] + ('ForImageClassification' if head else 'Model')
        prefix, format = f'{kind}.' if head else '', formats.TRANSFORMERS_DINOV2
        if model.mlp_ratio % 1:
            raise ValueError(f'transformers has DINOv2 with whole mlp_ratio: {model.mlp_ratio}.')
        config |= {'mlp_ratio': int(model.mlp_ratio), 'layerscale_value': model.layer_scale}
        config |= {'num_register_tokens': model.registers} if model.registers else {}
        config |= {'qkv_bias': model.qkv_bias, 'use_mask_token': False}
    elif model.pool == 'mean':
        _require('transformers', model, {'fc_norm': False, 'registers': 0, 'num_classes': 0})
        _require('transformers', model, {'spare_class_token': False})
        kind, name, prefix = 'ijepa', 'IJepaModel', ''
        config |= {'qkv_bias': model.qkv_bias}
        format = formats.TRANSFORMERS_VIT
    else:
        distilled = model.pool == 'distilled'
        _require('transformers', model, {'pool': 'distilled' if distilled else 'class'})
        _require('transformers', model, {'registers': 0})
        kind = 'deit' if distilled else 'vit'
        whole = (
            'DeiTForImageClassificationWithTeacher' if distilled else 'ViTForImageClassification'
        )
        name, prefix = whole, f'{kind}.'
        if not head:  # ViTModel has a pooler; this one is the same without
            kind, name, prefix = 'vit_msn', 'ViTMSNModel', ''
        config |= {'qkv_bias': model.qkv_bias}
        format = formats.TRANSFORMERS_VIT
    return format, prefix, {'architectures': [name], 'model_type': kind, **config}
