"""Malformed experiments and command lines from a seed, and by hand what each field takes.

The rules stand here a second time, written apart from the package's, to be held against them.
"""

import copy
import math
import re

NAN, INF = math.nan, math.inf


def whole(low, high=INF):
    return lambda v: type(v) is int and low <= v <= high


def real(holds=lambda v: True):
    return lambda v: type(v) in (int, float) and abs(v) < 2**1024 and holds(v)


def optional(rule):
    return lambda v: v is None or rule(v)


def listed(rule, low=0, high=INF):
    return lambda v: type(v) is list and low <= len(v) <= high and all(map(rule, v))


def one_of(*names):
    return lambda v: type(v) is str and v in names


def text(v):
    return type(v) is str and '\0' not in v


def boolean(v):
    return type(v) is bool


def pattern(v):
    try:
        return text(v) and bool(re.compile(v))
    except re.error:
        return False


def policy(v):
    known = 'm10', 'm9', 'm9.5', 'n2', 'n3', 'p0.5', 'p1', 'mstd0.5', 'inc0', 'inc1'
    head, *parts = v.split('-') if text(v) else [None]
    return v in ('', 'three') or head == 'rand' and all(part in known for part in parts)


extent, side, count = whole(1, 65_536), whole(1, 16_384), whole(1, 2**31 - 1)
large, epochs = whole(0, 2**63 - 1), real(lambda v: 0 < v < 2**31)
rate, share = real(lambda v: 0 <= v < 1), real(lambda v: 0 <= v <= 1)
amount, positive = real(lambda v: v >= 0), real(lambda v: v > 0)
ratio, classes = real(lambda v: 0 < v <= 1000), whole(0, 10**7)
strength = real(lambda v: 0 <= v <= 10**6)

_ATTENTION = one_of('auto', 'explicit', 'chunked', 'packed', 'multi_query', 'fused')
_DTYPE = one_of('float32', 'bfloat16', 'float16', 'float64')
_TOKENS = {
    'patch_size': side, 'width': extent, 'depth': extent, 'num_heads': extent, 'mlp_ratio': ratio,
    'num_classes': classes, 'qkv_bias': boolean, 'layer_scale': optional(amount),
    'drop_path': rate, 'dropout': rate, 'attention_dropout': rate, 'attention': _ATTENTION,
    'dtype': _DTYPE, 'remat': boolean,
}  # fmt: skip
_MAPS = {'num_classes': classes, 'dropout': rate, 'dtype': _DTYPE}
MODELS = {
    'ViT': _TOKENS | {
        'head_width': optional(extent), 'mlp_last_gelu': boolean, 'head_dropout': rate,
        'norm_epsilon': positive,
        'position_grid': optional(listed(extent, 2, 2)),
        'pool': one_of('class', 'distilled', 'mean', 'class_and_mean', 'flatten', 'map'),
        'registers': whole(0, 1024), 'head': listed(extent),
        'position': one_of('learned', 'sincos', 'none'),
        'rope': optional(one_of('dinov3', 'eva02', 'axial', 'mixed')),
        'norm': one_of('layer', 'rms'),
        'mlp': one_of('gelu', 'gelu_tanh', 'quick_gelu', 'swiglu'), 'mlp_norm': boolean,
        'qk_norm': boolean, 'key_bias': boolean, 'bias': boolean, 'patch_bias': boolean,
        'patch_norm': boolean, 'pre_norm': boolean, 'fc_norm': boolean, 'head_bias': boolean,
        'prefix_positions': one_of('class', 'all', 'none'), 'spare_class_token': boolean,
    },
    'CaiT': _TOKENS | {'class_depth': extent, 'position_grid': optional(listed(extent, 2, 2))},
    'PatchConvNet': _TOKENS | {
        'class_depth': extent, 'class_tokens_per_class': boolean, 'stem_bias': boolean,
        'stem_last_gelu': boolean, 'depthwise': boolean, 'se_ratio': extent, 'se_bias': boolean,
    },
    'ConvNet': _MAPS | {'widths': listed(extent, 1, 16), 'hidden': extent},
    'VGG16': _MAPS,
}  # fmt: skip
PARTS = {
    'data': {
        'name': text, 'dir': optional(text), 'validation': rate, 'test': rate,
        'size': optional(side), 'memory': large,
    },
    'augment': {
        'size': side, 'enlarge': optional(side), 'padding': whole(0, 16_384), 'flip': share,
        'shift': share, 'rotation': share, 'zoom': rate, 'contrast': share, 'brightness': share,
        'area': share, 'policy': policy, 'jitter': strength, 'erase': share, 'cutout': share,
        'mixup': strength, 'cutmix': strength, 'smoothing': rate,
    },
    'optim': {
        'peak': amount, 'start': amount, 'end': amount, 'warmup': rate, 'decay': amount, 'b1': rate,
        'b2': rate, 'clip': amount, 'accumulate': count, 'ema': rate, 'train': pattern,
        'name': one_of('adamw', 'lamb', 'muon', 'rmsprop', 'sgd'),
        'moment': one_of('float32', 'bfloat16'),
    },
    'distill': {
        'teacher': optional(text), 'kind': one_of('hard', 'soft'), 'share': share,
        'temperature': positive,
    },
    'preprocessing': {
        'size': side, 'crop': real(lambda v: 0.01 <= v <= 1), 'mean': listed(real(), 3, 3),
        'deviation': listed(positive, 3, 3), 'squash': boolean, 'grey': boolean,
        'interpolation': one_of('bilinear', 'bicubic', 'lanczos'),
    },
}  # fmt: skip
OWN = {
    'loss': one_of('cross_entropy', 'binary'),
    'batch_size': count, 'repeats': count, 'epochs': optional(epochs),
    'steps': optional(whole(1, 2**31 - 1)),
    'seed': whole(0, 2**32 - 1), 'patience': large, 'evaluate_every': epochs,
    'attention_every': large, 'watch': listed(one_of('cka', 'rank')),
    'parallel': one_of('auto', 'none', 'pmap', 'fsdp'),
    'weights': optional(text), 'classes': listed(text),
}  # fmt: skip


def _has(values, rules):
    return type(values) is dict and all(n in rules and rules[n](v) for n, v in values.items())


def valid(values):
    """Returns True if JSON values are an experiment."""
    if type(values) is not dict or type(values.get('model')) is not dict:
        return False
    model = dict(values['model'])
    kind = model.pop('type', None)
    if not isinstance(kind, str) or kind not in MODELS or not _has(model, MODELS[kind]):
        return False
    for name, value in values.items():
        absent = value is None and name in ('data', 'preprocessing')
        if name in PARTS and not absent and not _has(value, PARTS[name]):
            return False
    return _has({n: v for n, v in values.items() if n not in ('model', *PARTS)}, OWN)


JUNK = [
    None, True, False, 0, 1, 2, -1, 3, 64, 65_537, 10**6, 2**31, 2**32, 10**20, 10**400, 0.0, -0.0,
    0.5, 1.0, 1.5, -1e-9, 1e-300, 1e308, NAN, INF, -INF, '', 'x', '1', '[', '.*', 'class', 'fsdp',
    'ViT', 'float32', 'three', 'rand', 'rand-m9.5-n3', 'rand-m11', 'rand-q', 'lamb', 'binary',
    '\0', '\ud800', 'x' * 3000, [], [1], [1, 2, 3], [0.1, 0.2, 0.3], ['a'],
    [[1]], [None], [1] * 17, {}, {'a': 1}, {'type': 'ViT'}, {'size': 8}, [{'x': [{}]}],
]  # fmt: skip


def malformed(base, rng):
    """An experiment's JSON values with one to three things in them changed."""
    values = copy.deepcopy(base)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [*_places(values)]
        if not places:
            break
        inside, name = rng.choice(places)
        what = rng.random()
        if what < 0.7:
            inside[name] = copy.deepcopy(rng.choice(JUNK))
        elif what < 0.8:
            inside[name] = rng.choice((rng.randint(-3, 70), rng.uniform(-0.5, 1.5)))
        elif what < 0.9:
            del inside[name]
        elif isinstance(inside, dict):
            inside[rng.choice((f'{name}s', name[:-1], name.upper(), 'x', '', 'parent'))] = 1
    return values


def _places(values):
    for name in values if isinstance(values, dict) else range(len(values)):
        yield values, name
        if isinstance(values[name], dict | list):
            yield from _places(values[name])


# ---- Command lines -----------------------------------------------------------------------------

_NONE = ['x', 'nan', '', '1e', '1.5.2', '[]']
# Of each kind of flag, what it takes and what not.
_COUNT = ['1', '7'], ['0', '-1', '1.5', 'inf', 'None', '2147483648', *_NONE]
_EXTENT = ['1', '64'], [*_COUNT[1], '65537', '1000000000', '9' * 30]
_SIDE = ['8', '224'], [*_COUNT[1], '16385', '9' * 5000]
_WHOLE = ['0', '3'], ['-1', '0.5', 'None', '9' * 19, *_NONE]
_SEED = ['0', '4294967295'], ['-1', '4294967296', '12345678901234567890', '1e3', *_NONE]
_POSITIVE = ['0.5', '3', '1e-9'], ['0', '-1', 'inf', '-inf', '1e999', 'None', *_NONE]
_EPOCHS = _POSITIVE[0], ['2147483648', '1e308', *_POSITIVE[1]]
_AMOUNT = ['0', '0.5', '3'], ['-1', '-1e-9', 'inf', 'None', *_NONE]
_RATE = ['0', '0.5'], ['1', '-0.1', '1e9', 'inf', *_NONE]
_SHARE = ['0', '1', '0.5'], ['1.01', '-0.1', 'inf', *_NONE]
_PATTERN = ['.*', 'head.*|norm'], ['[', '(', '*']
_SPLIT = ['train', 'test'], ['no', '', 'TEST']


def _or_none(kind):
    return [*kind[0], 'None'], [each for each in kind[1] if each != 'None']


_EXPERIMENT = {
    '--model.patch-size': _SIDE, '--model.width': _EXTENT, '--model.depth': _EXTENT,
    '--model.num-heads': _EXTENT, '--model.drop-path': _RATE, '--model.layer-scale':
    _or_none(_AMOUNT), '--model.pool': (['class', 'mean'], ['clas', '']), '--augment.size': _SIDE,
    '--augment.mixup': _AMOUNT, '--augment.flip': _SHARE, '--augment.zoom': _RATE,
    '--optim.peak': _AMOUNT, '--optim.warmup': _RATE, '--optim.accumulate': _COUNT,
    '--optim.train': _PATTERN, '--optim.name': (['sgd'], ['adam']), '--data.test': _RATE,
    '--batch-size': _COUNT, '--seed': _SEED, '--evaluate-every': _EPOCHS, '--patience': _WHOLE,
    '--parallel': (['none'], ['No']), '--epochs': _or_none(_EPOCHS), '--nonsense': ([], ['1']),
    '--out': (['o'], ['']),
}  # fmt: skip
# Of each script what is always given, and its flags.
COMMANDS = {
    'train': (['digits'], _EXPERIMENT),
    'ablate': (['digits', '--dry-run'], _EXPERIMENT | {
        '--seeds': (_COUNT[0], ['1025', *_COUNT[1]]), '--match': (['flops'], ['x']),
        '--job': (['timeout_min=60', 'a-b=-5', 'a=1_000'], ['x', '=5', 'a=', '5=5', 'a b=5']),
        '--grid': ([
            'model.depth=2,4', 'optim.peak=1e-3', 'model.patch-size=2,4', 'model.patch_size=2',
            'model.remat=true,False', 'model.head=8 4,8',
        ], [
            'model.depth=0,1', 'model.depth=x', 'model.dept=1', 'model=1', 'seed', '=', 'seed=-1',
            'optim.peak=nan', 'model.depth=1,1', 'model.depth=2,', 'model.depth=²',
            'model.remat=maybe', 'model.patch-siz=2', 'depth=2', 'model.depth.x=2',
            'optim.peak=1,1.0',
        ])}),
    'plan': (['digits'], _EXPERIMENT | {
        '--images': _or_none(_COUNT), '--target': (['here', 'h100:8', 'v5e:2x4', 'h100:2x8'], [
            'h100:-1', 'h100:0', 'h100:x', 'h100:9', 'h100:999999', 'h100:', 'h100:2x8x1', 'H100',
            '', 'here:1', 'v5e:2x4x9', 'v5e:0x4', 'v5e:17x16', 'v4:2x2', 'h100:²', 'h100:1x08',
        ])}),
    'evaluate': (['run'], {'--split': _SPLIT, '--which': (['best'], ['worst'])}),
    'report': (['run'], {'--details': _WHOLE}),
    'predict': (['run', 'photo.jpg'], {'--top': _COUNT, '--image-size': _or_none(_SIDE)}),
    'summary': (['vit_tiny_patch16'], {'--image-size': _or_none(_SIDE)}),
    'convert': (['weights.npz', '--out', 'o'], {
        '--image-size': _or_none(_SIDE), '--patch-size': _or_none(_SIDE),
        '--num-classes': (['0', '10', 'None'], ['-1', '1.5', '10000001', *_NONE])}),
    'capture': (['run', '--out', 'o'], {
        '--batch-size': _COUNT, '--examples': _or_none(_COUNT), '--size': _or_none(_SIDE),
        '--square': _SIDE, '--keep': _PATTERN, '--split': _SPLIT,
        '--dtype': (['float16'], ['int8'])}),
    'similarity': (['run'], {
        '--batch-size': _COUNT, '--k': _or_none(_COUNT), '--bandwidth': _POSITIVE,
        '--keep': _PATTERN, '--metrics': (['cka', 'knn'], ['ckaa']), '--size': _SIDE,
        '--examples': _or_none(_COUNT)}),
    'intervene': (['run', 'heads', '--out', 'o'], {
        '--region': _COUNT, '--noise': _or_none(_POSITIVE), '--draws': _COUNT, '--seed': _SEED,
        '--memory': _POSITIVE, '--size': _or_none(_SIDE), '--examples': _or_none(_COUNT)}),
    'visualize': (['run', 'all', '--images', 'p.jpg', '--out', 'o'], {
        '--layer': _or_none(_COUNT), '--discard': _RATE, '--steps': _COUNT, '--seed': _SEED,
        '--jitter': _or_none(_WHOLE), '--blur': _or_none(_AMOUNT), '--memory': _POSITIVE,
        '--size': _or_none(_SIDE)}),
}  # fmt: skip


def command_line(script, rng):
    """Arguments of a script, and whether they are right."""
    given, flags = COMMANDS[script]
    arguments, right = [*given], True
    for flag in rng.sample([*flags], min(len(flags), rng.choice((1, 1, 2)))):
        good = bool(flags[flag][0]) and rng.random() < 0.3
        arguments += [flag, rng.choice(flags[flag][0 if good else 1])]
        right &= good
    return arguments, right
