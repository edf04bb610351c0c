"""Publishers' configurations of weights: `config.json` and `preprocessor_config.json`.

They state facts that names and shapes do not tell: attention heads, LayerNorm's epsilon, the
activation, the grid of the position embeddings, the classes, and the preprocessing. timm writes the
first file, transformers both. A statement that our model does not compute is an error.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from vitjax.base import fields
from vitjax.base.files import first_line, read_json
from vitjax.base.ranges import Extent, Finite, Positive, Side
from vitjax.data.preprocess import IMAGENET, Colour, Crop, Interpolation, Preprocessing
from vitjax.models.base import Model

Read: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
FILES = CONFIG, PREPROCESSOR = 'config.json', 'preprocessor_config.json'
HALF: tuple[Colour, Colour] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # mean, deviation
_RESAMPLING = ('nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming')  # Pillow's numbers
# Defaults of transformers' image processors, as of version 5. `size` with a shortest edge resizes
# the short side, `size` with a height and a width both sides.
_PROCESSORS: dict[str, dict[str, Any]] = {
    'ViT': {
        'size': {'height': 224, 'width': 224}, 'resample': 2,
        'image_mean': HALF[0], 'image_std': HALF[1],
    },
    'DeiT': {
        'size': {'height': 256, 'width': 256}, 'crop_size': 224, 'do_center_crop': True,
        'resample': 3, 'image_mean': IMAGENET[0], 'image_std': IMAGENET[1],
    },
    **dict.fromkeys(
        ('Bit', 'CLIP'),
        {'size': {'shortest_edge': 224}, 'crop_size': 224, 'do_center_crop': True, 'resample': 3},
    ),
}  # fmt: skip
_KINDS = ('vit', 'deit', 'vit_mae', 'vit_msn', 'dinov2', 'dinov2_with_registers')
# Settings of timm's models that do not affect evaluation, or that shapes tell.
_FREE = {
    'img_size', 'num_classes', 'drop_rate', 'pos_drop_rate', 'patch_drop_rate', 'proj_drop_rate',
    'attn_drop_rate', 'drop_path_rate', 'drop_block_rate', 'weight_init', 'fix_init',
    'no_embed_class', 'dynamic_img_size', 'strict_img_size', 'pretrained', 'init_values',
    'class_token_init', 'init_scale', 'depth_token_only', 'mlp_ratio_token_only',
}  # fmt: skip
# Keys of timm's older files, which have the entries of `pretrained_cfg` at the top level.
_FLAT = {'input_size', 'mean', 'std', 'crop_pct', 'crop_mode', 'interpolation'}


@dataclasses.dataclass(frozen=True)
class Stated:
    """A user's facts about weights, which override any file; None leaves a fact to the files.

    Attributes:
        num_heads: attention heads.
        mean: mean per channel of pixels in 0..1.
        deviation: standard deviation per channel of pixels in 0..1.
        crop: fraction of the short side that the input covers, 0.01 to 1.
        interpolation: filter for resizing images.
        grid: rows and columns of the patches that the weights' positions are for.
    """

    num_heads: Extent | None = None
    mean: tuple[Finite, Finite, Finite] | None = None
    deviation: tuple[Positive, Positive, Positive] | None = None
    crop: Crop | None = None
    interpolation: Interpolation | None = None
    grid: tuple[Extent, Extent] | None = None

    def given(self) -> dict[str, Any]:
        """The fields that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


UNSTATED = Stated()


class Config(NamedTuple):
    """Facts that the files beside weights state; fields that they leave out are None or empty.

    Attributes:
        path: path of `config.json`, or of `preprocessor_config.json` if there is no other.
        name: timm's or transformers' name of the architecture.
        prepared: fields of `Preprocessing`, all but `size` or none.
        size: side of the model's input in pixels.
        image: height and width in pixels of the images that the position embeddings are for.
        resampled: True if the position embeddings may be for another grid nevertheless.
        classes: names of the classes.
        num_heads: attention heads.
        norm_epsilon: epsilon of LayerNorm.
        claims: other statements by their name in the file.
    """

    path: pathlib.Path | None = None
    name: str = ''
    prepared: Mapping[str, Any] = {}
    size: int | None = None
    image: tuple[int, int] | None = None
    resampled: bool = False
    classes: tuple[str, ...] = ()
    num_heads: int | None = None
    norm_epsilon: float | None = None
    claims: Mapping[str, Any] = {}


def read_config(found: Mapping[str, pathlib.Path]) -> Config:
    """The configuration in files by their names, `config.json` and `preprocessor_config.json`.

    Raises:
        ValueError: if a file is not a JSON object; for preprocessing or a kind of model that vitjax
            does not have, by file and name.
    """
    out = Config()
    for name, read in ((CONFIG, _of_config), (PREPROCESSOR, _of_processor)):
        values = read_json(found[name]) if name in found else {}
        if values:
            stated = _checked(found[name], read, values)
            out = out._replace(path=out.path or found[name], **stated)
    return out


def _checked(path: pathlib.Path, read: Read, values: dict[str, Any]) -> dict[str, Any]:
    try:
        return read(values)
    except (TypeError, AttributeError, KeyError, IndexError, ZeroDivisionError, OverflowError) as e:
        kind = type(e).__name__
        raise ValueError(f'{path} is not a configuration: {first_line(e)} ({kind}).') from None
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def _of_config(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Config` that a `config.json` states."""
    timm = 'pretrained_cfg' in config or isinstance(config.get('architecture'), str)
    return _of_timm(config) if timm else _of_transformers(config)


# ---- timm --------------------------------------------------------------------------------------


def _of_timm(config: dict[str, Any]) -> dict[str, Any]:
    of, settings = config.get('pretrained_cfg') or {}, config.get('model_args') or {}
    prefix = 'pretrained_cfg.'
    if 'pretrained_cfg' not in config and _FLAT & config.keys():
        of, prefix = config, ''
    prepared: dict[str, Any] = {}
    channels, *image = of.get('input_size') or (3, None)
    _require(f'{prefix}input_size', channels, (3,), 'of 3 channels')
    if of:
        mode = of.get('crop_mode') or 'center'
        _require(f'{prefix}crop_mode', mode, ('center', 'squash'))
        prepared = _prepared(  # with timm's own defaults
            crop=(f'{prefix}crop_pct', of.get('crop_pct') or 0.875),
            mean=(f'{prefix}mean', of.get('mean') or IMAGENET[0]),
            deviation=(f'{prefix}std', of.get('std') or IMAGENET[1]),
            interpolation=(f'{prefix}interpolation', of.get('interpolation') or 'bicubic'),
            squash=(f'{prefix}crop_mode', mode == 'squash'),
        )
    size = settings.get('img_size') or image
    classes = config.get('label_names') or of.get('label_names') or of.get('labels') or ()
    claims = {f'model_args.{name}': value for name, value in settings.items() if name not in _FREE}
    claims |= {
        name: config[name] for name in ('global_pool', 'num_classes', 'num_features')
        if name in config
    }  # fmt: skip
    return dict(
        name=str(config.get('architecture') or of.get('architecture') or ''), prepared=prepared,
        size=_square(image), image=_pair(size) if size and size != [None] else None,
        resampled='img_size' not in settings and not of.get('fixed_input_size'),
        classes=tuple(classes) if isinstance(classes, list) else (),
        num_heads=_heads('model_args.num_heads', settings.get('num_heads')), claims=claims,
    )  # fmt: skip


# ---- transformers ------------------------------------------------------------------------------


def _of_transformers(config: dict[str, Any]) -> dict[str, Any]:
    kind = config.get('model_type')
    if kind is not None:
        _require('model_type', kind, _KINDS)
    image, names = config.get('image_size'), config.get('id2label') or {}
    classes: list[Any] = [names.get(str(i)) for i in range(len(names))]
    if not all(isinstance(n, str) and not n.startswith('LABEL_') for n in classes):
        classes = []
    epsilon = config.get('layer_norm_eps')
    fields.check(epsilon, Positive | None, 'layer_norm_eps')
    known = (
        'hidden_size', 'num_hidden_layers', 'intermediate_size', 'patch_size', 'num_channels',
        'hidden_act', 'qkv_bias', 'use_swiglu_ffn', 'num_register_tokens', 'head_dim',
        'mlp_ratio', 'query_bias', 'key_bias', 'value_bias', 'proj_bias', 'mlp_bias',
    )  # fmt: skip
    return dict(
        name=str(kind or ''), image=_pair(image) if image else None, classes=tuple(classes),
        num_heads=_heads('num_attention_heads', config.get('num_attention_heads')),
        norm_epsilon=epsilon, claims={name: config[name] for name in known if name in config},
    )  # fmt: skip


def _of_processor(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Config` that an image processor's settings state: `prepared` and `size`."""
    name = str(values.get('image_processor_type') or values.get('feature_extractor_type') or '')
    own = next((kind for kind in _PROCESSORS if name.startswith(kind)), None)
    if own is None and not {'size', 'resample', 'image_mean', 'image_std'} <= values.keys():
        raise ValueError(f'image_processor_type={name!r} must be one of {", ".join(_PROCESSORS)}.')
    stated = {name: value for name, value in values.items() if value is not None}
    get = (_PROCESSORS.get(own or '', {}) | stated).get
    for flag, wanted in (('do_resize', True), ('do_rescale', True), ('do_pad', False)):
        _require(flag, get(flag, wanted), (wanted,))
    factor = get('rescale_factor', 1 / 255)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise ValueError(f'rescale_factor must be 1/255: {factor}.')
    mean, deviation = get('image_mean'), get('image_std')
    if not get('do_normalize', True):
        mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif mean is None or deviation is None:
        raise ValueError('image_mean and image_std must be stated: they are not.')
    resample = get('resample')
    if not isinstance(resample, int) or not 0 <= resample < len(_RESAMPLING):
        raise ValueError(f'resample must be a number of Pillow, 0 to 5: {resample!r}.')
    short, squash = _resized(get('size'), own)
    size = short
    if get('do_center_crop', False):
        size = _side('crop_size', get('crop_size', short))
    elif not squash:
        raise ValueError(
            'do_center_crop must be true if size has a shortest_edge: images stay oblong otherwise.'
        )
    crop = size / short if int(size / (size / short)) == short else size / (short + 0.5)
    prepared = _prepared(
        crop=('crop_size / size', crop),
        mean=('image_mean', mean),
        deviation=('image_std', deviation),
        interpolation=('resample', _RESAMPLING[resample]),
        squash=('size', squash),
    )
    return {'prepared': prepared, 'size': size}


def _resized(size: Any, processor: str | None) -> tuple[int, bool]:
    """The side in pixels that `size` resizes images to, and True if it resizes both sides."""
    if isinstance(size, dict) and 'shortest_edge' in size and 'longest_edge' not in size:
        return _side('size.shortest_edge', size['shortest_edge']), False
    if isinstance(size, int) and processor:
        return _side('size', size), processor in ('ViT', 'DeiT')
    if isinstance(size, dict) and {'height', 'width'} <= size.keys():
        return _side('size', (size['height'], size['width'])), True
    raise ValueError(f'size must have a shortest_edge, or a height and a width: {size!r}.')


# ---- Both --------------------------------------------------------------------------------------


def _require(name: str, value: Any, allowed: tuple[Any, ...], rule: str = '') -> None:
    if not any(value == each and type(value) is type(each) for each in allowed):
        rule = rule or ' or '.join(map(json.dumps, allowed))
        raise ValueError(f'{name} must be {rule}: {json.dumps(value, default=str)}.')


def _prepared(**stated: tuple[str, Any]) -> dict[str, Any]:
    """Fields of `Preprocessing`, checked against their ranges under their names in the file."""
    kinds, out = fields.declared(Preprocessing), {}
    for field, (name, value) in stated.items():
        out[field] = tuple(value) if isinstance(value, list) else value
        fields.check(out[field], kinds[field], name)
    return out


def _heads(name: str, value: Any) -> int | None:
    fields.check(value, Extent | None, name)
    return value


def _pair(size: Any) -> tuple[int, int]:
    """Height and width, given as one number for both or as two."""
    high, wide = (size, size) if isinstance(size, int) else size
    for side in (high, wide):
        fields.check(side, Side, 'the image size')
    return high, wide


def _square(size: Any) -> int | None:
    """Side of an image of this height and width; None if it is oblong or not known."""
    return size[0] if len({*size}) == 1 else None


def _side(name: str, size: Any) -> int:
    """The side of a square.

    Raises:
        ValueError: if it is oblong.
    """
    sides = (size['height'], size['width']) if isinstance(size, dict) else size
    high, wide = _pair(sides)
    if high != wide:
        raise ValueError(f'{name} must be a square: {high}x{wide} pixels.')
    return high


def require_claims(config: Config, model: Model, num_classes: int) -> None:
    """Checks a configuration's statements against the model made from the weights.

    Args:
        config: the configuration.
        model: the model, at the sizes of the weights.
        num_classes: outputs of the weights' head; 0 if they have none.

    Raises:
        ValueError: for the first statement that is false or unknown, by file and name.
    """
    computed = _computed(model, num_classes)
    for name, claimed in config.claims.items():
        short = name.removeprefix('model_args.')
        if name == 'num_classes' and not num_classes:
            continue
        if short not in computed:
            setting = f'{name}={json.dumps(claimed)}'
            raise ValueError(f'{config.path}: {setting} is not a setting that vitjax computes.')
        if claimed is not None and not any(_same(claimed, each) for each in computed[short]):
            said = ' or '.join(json.dumps(each) for each in computed[short])
            raise ValueError(
                f'{config.path}: {name} must be {said}, as the weights are read: '
                f'{json.dumps(claimed)}.'
            )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(b, int | float):
        return a is b if isinstance(b, bool) else a == b
    return isinstance(a, int | float) and math.isclose(a, b, rel_tol=1e-6)


def _computed(model: Model, num_classes: int) -> dict[str, tuple[Any, ...]]:
    """Values of each setting under which `model` computes what its publisher's model does."""
    get = vars(model).get
    width, ratio, heads = get('width', 0), get('mlp_ratio', 0), get('num_heads')
    hidden = int(width * ratio)
    by_names = {
        'embed_dim hidden_size num_features': (get('width'),),
        'depth num_hidden_layers': (get('depth'),),
        'num_heads': (heads,),
        'head_dim': (width // (heads or 1),),
        'patch_size': (get('patch_size'),),
        'mlp_ratio': (ratio, hidden / (width or 1)),  # it may be rounded, to the same hidden width
        'intermediate_size': (hidden,),
        'reg_tokens num_register_tokens': (get('registers', 0),),
        'qkv_bias query_bias key_bias value_bias': (get('qkv_bias'),),
        'num_classes': (num_classes,),
        'num_channels in_chans': (3,),
        'global_pool': ('token',),
        'hidden_act act_layer': ('gelu',),
        'norm_layer': ('layernorm',),
        'embed_layer': ('patch_embed',),
        'pos_embed': ('learn',),
        'class_token final_norm proj_bias mlp_bias': (True,),
        'qk_norm pre_norm fc_norm use_swiglu_ffn dynamic_img_pad scale_attn_norm': (False,),
        'scale_mlp_norm swiglu_mlp attn_pool': (False,),
    }
    return {name: values for names, values in by_names.items() for name in names.split()}
