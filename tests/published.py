"""Names and shapes of published weights, written down from the files, not from our converter."""

import re
from typing import Any

import numpy as np

Shapes = dict[str, tuple[int, ...]]

VIT = {  # width, depth, heads
    'tiny': (192, 12, 3),
    'small': (384, 12, 6),
    'base': (768, 12, 12),
    'large': (1024, 24, 16),
    'huge': (1280, 32, 16),
}
DEIT3 = {  # width, depth, patch
    'small': (384, 12, 16),
    'medium': (512, 12, 16),
    'base': (768, 12, 16),
    'large': (1024, 24, 16),
    'huge': (1280, 32, 14),
}
CAIT = {  # width, depth, image sizes of the published files
    'xxs24': (192, 24, (224, 384)),
    'xxs36': (192, 36, (224, 384)),
    'xs24': (288, 24, (384,)),
    's24': (384, 24, (224, 384)),
    's36': (384, 36, (384,)),
    'm36': (768, 36, (384,)),
    'm48': (768, 48, (448,)),
}
PATCHCONVNET = {  # width, depth
    's60': (384, 60),
    's120': (384, 120),
    'b60': (768, 60),
    'b120': (768, 120),
    'l60': (1024, 60),
    'l120': (1024, 120),
}


def zeros(shapes):
    """Tensors of these shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def noise(shapes, seed=0):
    random = np.random.default_rng(seed)
    return {k: random.standard_normal(shape).astype(np.float32) for k, shape in shapes.items()}


def _linear(name, outputs, inputs):
    return {f'{name}.weight': (outputs, inputs), f'{name}.bias': (outputs,)}


def _norm(name, width):
    return {f'{name}.weight': (width,), f'{name}.bias': (width,)}


def _conv(name, outputs, inputs, side):
    return {f'{name}.weight': (outputs, inputs, side, side), f'{name}.bias': (outputs,)}


def timm_vit(width, depth, patch, size, *, classes=1000, scale=False, registers=0):
    patches = (size // patch) ** 2
    out: Shapes = {'cls_token': (1, 1, width)}
    # With registers, positions are the patches' alone.
    out['pos_embed'] = (1, patches + (registers == 0), width)
    if registers:
        out['reg_token'] = (1, registers, width)
    out |= _conv('patch_embed.proj', width, 3, patch)
    for i in range(depth):
        block = f'blocks.{i}'
        out |= _norm(f'{block}.norm1', width) | _norm(f'{block}.norm2', width)
        out |= _linear(f'{block}.attn.qkv', 3 * width, width)
        out |= _linear(f'{block}.attn.proj', width, width)
        out |= _linear(f'{block}.mlp.fc1', 4 * width, width)
        out |= _linear(f'{block}.mlp.fc2', width, 4 * width)
        if scale:
            out |= {f'{block}.ls1.gamma': (width,), f'{block}.ls2.gamma': (width,)}
    out |= _norm('norm', width)
    return out | (_linear('head', classes, width) if classes else {})


def deit_distilled(width, depth, patch, size, *, classes=1000):
    out = timm_vit(width, depth, patch, size, classes=classes)
    out['dist_token'] = (1, 1, width)
    out['pos_embed'] = (1, (size // patch) ** 2 + 2, width)
    return out | _linear('head_dist', classes, width)


def deit3(width, depth, patch, size, *, classes=1000, timm=True):
    """DeiT III's, under timm's names or its authors'; positions are the patches' alone."""
    out = timm_vit(width, depth, patch, size, classes=classes, scale=True)
    out['pos_embed'] = (1, (size // patch) ** 2, width)
    if timm:
        return out
    return {re.sub(r'ls([12])\.gamma', r'gamma_\1', name): shape for name, shape in out.items()}


def _class_block(block, width, hidden):
    out: Shapes = {f'{block}.gamma_1': (width,), f'{block}.gamma_2': (width,)}
    out |= _norm(f'{block}.norm1', width) | _norm(f'{block}.norm2', width)
    for part in ('q', 'k', 'v', 'proj'):
        out |= _linear(f'{block}.attn.{part}', width, width)
    out |= _linear(f'{block}.mlp.fc1', hidden, width)
    return out | _linear(f'{block}.mlp.fc2', width, hidden)


def cait(width, depth, size, *, classes=1000, heads=None, patch=16):
    heads = heads or width // 48
    out: Shapes = {'cls_token': (1, 1, width), 'pos_embed': (1, (size // patch) ** 2, width)}
    out |= _conv('patch_embed.proj', width, 3, patch)
    for i in range(depth):
        block = f'blocks.{i}'
        out |= {f'{block}.gamma_1': (width,), f'{block}.gamma_2': (width,)}
        out |= _norm(f'{block}.norm1', width) | _norm(f'{block}.norm2', width)
        out |= _linear(f'{block}.attn.qkv', 3 * width, width)
        out |= _linear(f'{block}.attn.proj', width, width)
        out |= _linear(f'{block}.attn.proj_l', heads, heads)
        out |= _linear(f'{block}.attn.proj_w', heads, heads)
        out |= _linear(f'{block}.mlp.fc1', 4 * width, width)
        out |= _linear(f'{block}.mlp.fc2', width, 4 * width)
    for i in range(2):
        out |= _class_block(f'blocks_token_only.{i}', width, 4 * width)
    return out | _norm('norm', width) | _linear('head', classes, width)


def patchconvnet(width, depth, *, classes=1000, multi=False):
    out: Shapes = {'cls_token': (1, classes if multi else 1, width)}
    widths = (3, width // 8, width // 4, width // 2, width)
    for i in range(4):
        out[f'patch_embed.proj.{2 * i}.0.weight'] = (widths[i + 1], widths[i], 3, 3)
    for i in range(depth):
        block = f'blocks.{i}'
        conv = f'{block}.attn.qkv_pos'
        out |= {f'{block}.gamma_1': (width,), **_norm(f'{block}.norm1', width)}
        out |= _conv(f'{conv}.0', width, width, 1) | _conv(f'{conv}.2', width, 1, 3)
        out |= _conv(f'{conv}.4.conv_reduce', width // 4, width, 1)
        out |= _conv(f'{conv}.4.conv_expand', width, width // 4, 1)
        out |= _conv(f'{conv}.5', width, width, 1)
    out |= _class_block('blocks_token_only.0', width, 3 * width) | _norm('norm', width)
    if not multi:
        return out | _linear('head', classes, width)
    for i in range(classes):
        out |= _linear(f'head.{i}', 1, width)
    return out


def _transformers(width, patch, rows):
    stem = 'embeddings.patch_embeddings.projection'
    return {
        'embeddings.cls_token': (1, 1, width),
        'embeddings.position_embeddings': (1, rows, width),
        **_conv(stem, width, 3, patch),
    }


def _transformers_attention(layer, width):
    out = {}
    for part in ('query', 'key', 'value'):
        out |= _linear(f'{layer}.attention.attention.{part}', width, width)
    return out | _linear(f'{layer}.attention.output.dense', width, width)


def transformers_vit(width, depth, patch, size, *, classes=1000):
    out = _transformers(width, patch, (size // patch) ** 2 + 1)
    for i in range(depth):
        layer = f'encoder.layer.{i}'
        out |= _norm(f'{layer}.layernorm_before', width) | _norm(f'{layer}.layernorm_after', width)
        out |= _transformers_attention(layer, width)
        out |= _linear(f'{layer}.intermediate.dense', 4 * width, width)
        out |= _linear(f'{layer}.output.dense', width, 4 * width)
    out |= _norm('layernorm', width) | _linear('pooler.dense', width, width)
    return {f'vit.{name}': shape for name, shape in out.items()} | _linear(
        'classifier', classes, width
    )


def transformers_dinov2(width, depth, size, *, registers=0, patch=14):
    out = _transformers(width, patch, (size // patch) ** 2 + 1)
    out['embeddings.mask_token'] = (1, width)
    if registers:
        out['embeddings.register_tokens'] = (1, registers, width)
    for i in range(depth):
        layer = f'encoder.layer.{i}'
        out |= _norm(f'{layer}.norm1', width) | _norm(f'{layer}.norm2', width)
        out |= _transformers_attention(layer, width)
        out |= _linear(f'{layer}.mlp.fc1', 4 * width, width)
        out |= _linear(f'{layer}.mlp.fc2', width, 4 * width)
        out |= {f'{layer}.layer_scale{n}.lambda1': (width,) for n in (1, 2)}
    return out | _norm('layernorm', width)


def augreg(width, depth, heads, patch, size, *, classes=1000):
    out = {
        'cls': (1, 1, width),
        'embedding/kernel': (patch, patch, 3, width),
        'embedding/bias': (width,),
        'Transformer/posembed_input/pos_embedding': (1, (size // patch) ** 2 + 1, width),
        'Transformer/encoder_norm/scale': (width,),
        'Transformer/encoder_norm/bias': (width,),
        'head/kernel': (width, classes),
        'head/bias': (classes,),
    }
    for i in range(depth):
        block = f'Transformer/encoderblock_{i}'
        attention = f'{block}/MultiHeadDotProductAttention_1'
        for norm in ('LayerNorm_0', 'LayerNorm_2'):
            out |= {f'{block}/{norm}/scale': (width,), f'{block}/{norm}/bias': (width,)}
        for part in ('query', 'key', 'value'):
            out[f'{attention}/{part}/kernel'] = (width, heads, width // heads)
            out[f'{attention}/{part}/bias'] = (heads, width // heads)
        out[f'{attention}/out/kernel'] = (heads, width // heads, width)
        out[f'{attention}/out/bias'] = (width,)
        out[f'{block}/MlpBlock_3/Dense_0/kernel'] = (width, 4 * width)
        out[f'{block}/MlpBlock_3/Dense_0/bias'] = (4 * width,)
        out[f'{block}/MlpBlock_3/Dense_1/kernel'] = (4 * width, width)
        out[f'{block}/MlpBlock_3/Dense_1/bias'] = (width,)
    return out


def vgg16(classes=1000):
    out, inputs, layer = {}, 3, 0
    for repeats, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(repeats):
            out |= _conv(f'features.{layer}', width, inputs, 3)
            inputs, layer = width, layer + 2  # a ReLU after each
        layer += 1  # the pooling
    out |= _linear('classifier.0', 4096, 512 * 7 * 7) | _linear('classifier.3', 4096, 4096)
    return out | _linear('classifier.6', classes, 4096)


def every_size():
    """(model's name, format, image size, {tensor: shape}) of everything that is published."""
    for size, (width, depth, heads) in VIT.items():
        for patch in (8, 14, 16, 32):
            name = f'vit_{size}_patch{patch}'
            yield name, 'timm', 224, timm_vit(width, depth, patch, 224)
            if patch == 16:  # one patch size a width shows these formats
                yield name, 'transformers', 224, transformers_vit(width, depth, patch, 224)
                yield name, 'augreg', 224, augreg(width, depth, heads, patch, 224, classes=21843)
        if size in ('tiny', 'small', 'base'):
            yield f'deit_{size}_patch16', 'timm', 224, timm_vit(width, depth, 16, 224)
            for side in (224, 384) if size == 'base' else (224,):
                name = f'deit_{size}_distilled_patch16'
                yield name, 'timm', side, deit_distilled(width, depth, 16, side)
        if size in ('small', 'base', 'large'):
            for registers, name in ((0, 'dinov2'), (4, 'reg4_dinov2')):
                name = f'vit_{size}_patch14_{name}'
                of: Any = {'registers': registers}
                yield (
                    name,
                    'timm',
                    518,
                    timm_vit(width, depth, 14, 518, classes=0, scale=True, **of),
                )
                yield name, 'transformers', 518, transformers_dinov2(width, depth, 518, **of)
    for size, (width, depth, patch) in DEIT3.items():
        name = f'deit3_{size}_patch{patch}'
        yield name, 'timm', 224, deit3(width, depth, patch, 224)
        yield name, 'published', 224, deit3(width, depth, patch, 224, timm=False)
    yield 'deit3_base_patch16', 'timm', 384, deit3(768, 12, 16, 384)
    for name, (width, depth, sizes) in CAIT.items():
        for size in sizes:
            yield f'cait_{name}', 'timm', size, cait(width, depth, size)
    for name, (width, depth) in PATCHCONVNET.items():
        yield f'patchconvnet_{name}', 'published', 224, patchconvnet(width, depth)
    yield 'patchconvnet_s60_multi', 'published', 224, patchconvnet(384, 60, multi=True)
    yield 'vgg16', 'torchvision', 224, vgg16()


def as_transformers(weights, dinov2=False, newer=False):
    """A timm ViT's tensors under the transformers library's names."""
    out = {}
    attention = '' if newer else 'attention.'
    parts = ('q_proj', 'k_proj', 'v_proj') if newer else ('query', 'key', 'value')
    layers = 'layers' if newer and not dinov2 else 'encoder.layer'
    output = 'o_proj' if newer else 'output.dense'
    names = {
        'norm1': 'norm1' if dinov2 else 'layernorm_before',
        'norm2': 'norm2' if dinov2 else 'layernorm_after',
        'mlp.fc1': 'mlp.fc1' if dinov2 or newer else 'intermediate.dense',
        'mlp.fc2': 'mlp.fc2' if dinov2 or newer else 'output.dense',
        'attn.proj': f'attention.{output}',
    }
    stems = {
        'cls_token': 'embeddings.cls_token',
        'reg_token': 'embeddings.register_tokens',
        'pos_embed': 'embeddings.position_embeddings',
        'patch_embed.proj': 'embeddings.patch_embeddings.projection',
        'norm': 'layernorm',
        'head': 'classifier',
    }
    for name, value in weights.items():
        if name in stems:
            out[stems[name]] = value
            continue
        module, leaf = name.rsplit('.', 1)
        if module in stems:
            out[f'{stems[module]}.{leaf}'] = value
            continue
        _, i, inner = module.split('.', 2)
        layer = f'{layers}.{i}'
        if inner == 'attn.qkv':
            for part, third in zip(parts, np.split(value, 3), strict=True):
                out[f'{layer}.attention.{attention}{part}.{leaf}'] = third
        elif leaf == 'gamma':
            out[f'{layer}.layer_scale{inner[-1]}.lambda1'] = value
        else:
            out[f'{layer}.{names[inner]}.{leaf}'] = value
    return out


def as_augreg(weights, heads):
    """A timm ViT's tensors under AugReg's names."""
    out = {
        'cls': weights['cls_token'],
        'embedding/kernel': weights['patch_embed.proj.weight'].transpose(2, 3, 1, 0),
        'embedding/bias': weights['patch_embed.proj.bias'],
        'Transformer/posembed_input/pos_embedding': weights['pos_embed'],
        'Transformer/encoder_norm/scale': weights['norm.weight'],
        'Transformer/encoder_norm/bias': weights['norm.bias'],
        'head/kernel': weights['head.weight'].T,
        'head/bias': weights['head.bias'],
    }
    for i in range(sum(name.endswith('norm1.bias') for name in weights)):
        ours, theirs = f'blocks.{i}', f'Transformer/encoderblock_{i}'
        for norm, number in (('norm1', 0), ('norm2', 2)):
            out[f'{theirs}/LayerNorm_{number}/scale'] = weights[f'{ours}.{norm}.weight']
            out[f'{theirs}/LayerNorm_{number}/bias'] = weights[f'{ours}.{norm}.bias']
        for fc, number in (('fc1', 0), ('fc2', 1)):
            dense = f'{theirs}/MlpBlock_3/Dense_{number}'
            out[f'{dense}/kernel'] = weights[f'{ours}.mlp.{fc}.weight'].T
            out[f'{dense}/bias'] = weights[f'{ours}.mlp.{fc}.bias']
        attention = f'{theirs}/MultiHeadDotProductAttention_1'
        kernels = np.split(weights[f'{ours}.attn.qkv.weight'], 3)
        biases = np.split(weights[f'{ours}.attn.qkv.bias'], 3)
        for part, kernel, bias in zip(('query', 'key', 'value'), kernels, biases, strict=True):
            width = kernel.shape[1]
            out[f'{attention}/{part}/kernel'] = kernel.T.reshape(width, heads, -1)
            out[f'{attention}/{part}/bias'] = bias.reshape(heads, -1)
        kernel = weights[f'{ours}.attn.proj.weight'].T
        out[f'{attention}/out/kernel'] = kernel.reshape(heads, -1, kernel.shape[1])
        out[f'{attention}/out/bias'] = weights[f'{ours}.attn.proj.bias']
    return out
