"""Publishers' configurations of weights: `config.json` and `preprocessor_config.json`.

They state facts that names and shapes do not tell: attention heads, LayerNorm's epsilon, the
activation, the grid of the position embeddings, the classes, and the preprocessing. timm writes the
first file, transformers both. A statement that our model does not compute is an error.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vitjax.base import fields
from vitjax.base.files import first_line, read_json
from vitjax.base.ranges import Extent, Finite, Positive, Side
from vitjax.data.preprocess import IMAGENET, Colour, Crop, Interpolation, Preprocessing
from vitjax.models.base import Model

FILES = CONFIG, PREPROCESSOR = 'config.json', 'preprocessor_config.json'
HALF: tuple[Colour, Colour] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # mean, deviation

# Fields of `Preprocessing` by their keys in timm's files, and timm's own defaults.
_TIMM = {'crop_pct': 'crop', 'mean': 'mean', 'std': 'deviation', 'interpolation': 'interpolation'}
_TIMM_DEFAULTS = {
    'crop_pct': 0.875, 'mean': IMAGENET[0], 'std': IMAGENET[1], 'interpolation': 'bicubic',
    'crop_mode': 'center', 'input_size': (3, None),
}  # fmt: skip
# Settings of timm's models that do not affect evaluation, or that shapes tell.
_FREE = {
    'img_size', 'num_classes', 'drop_rate', 'pos_drop_rate', 'patch_drop_rate', 'proj_drop_rate',
    'attn_drop_rate', 'drop_path_rate', 'drop_block_rate', 'weight_init', 'fix_init',
    'no_embed_class', 'dynamic_img_size', 'strict_img_size', 'pretrained', 'init_values',
    'class_token_init', 'init_scale', 'depth_token_only', 'mlp_ratio_token_only',
}  # fmt: skip
_KINDS = ('vit', 'deit', 'vit_mae', 'vit_msn', 'dinov2', 'dinov2_with_registers')  # transformers'
_RESAMPLING = ('nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming')  # Pillow's numbers
# Defaults of transformers' image processors, as of version 5. `size` with a shortest edge resizes
# the short side, `size` with a height and a width both sides.
_SHORT = {
    'size': {'shortest_edge': 224}, 'crop_size': 224, 'do_center_crop': True, 'resample': 3
}  # fmt: skip
_PROCESSORS: dict[str, dict[str, Any]] = {
    'ViT': {
        'size': {'height': 224, 'width': 224}, 'resample': 2,
        'image_mean': HALF[0], 'image_std': HALF[1],
    },
    'DeiT': {
        **_SHORT, 'size': {'height': 256, 'width': 256},
        'image_mean': IMAGENET[0], 'image_std': IMAGENET[1],
    },
    'Bit': _SHORT, 'CLIP': _SHORT,
}  # fmt: skip


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
        claims: statements by their name in the file; a setting of timm's is `model_args.NAME`.
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
    for name, path in found.items():
        if values := read_json(path):
            try:
                stated = _of_processor(values) if name == PREPROCESSOR else _of_config(values)
            except ValueError as error:
                raise ValueError(f'{path}: {error}') from None
            except Exception as error:  # a value of another kind
                reason = f'{first_line(error)} ({type(error).__name__})'
                raise ValueError(f'{path} is not a configuration: {reason}.') from None
            out = out._replace(path=out.path or path, **stated)
    return out


def _of_config(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Config` that a `config.json` states."""
    timm = 'pretrained_cfg' in config or isinstance(config.get('architecture'), str)
    return _of_timm(config) if timm else _of_transformers(config)


def _of_timm(config: dict[str, Any]) -> dict[str, Any]:
    of, prefix = config.get('pretrained_cfg') or {}, 'pretrained_cfg.'
    if 'pretrained_cfg' not in config and _TIMM_DEFAULTS.keys() & config.keys():
        of, prefix = config, ''  # older files have its entries at the top level
    settings = config.get('model_args') or {}
    cfg = _TIMM_DEFAULTS | {name: value for name, value in of.items() if value}
    channels, *image = cfg['input_size']
    _require(f'{prefix}input_size', channels, (3,), 'of 3 channels')
    _require(f'{prefix}crop_mode', cfg['crop_mode'], ('center', 'squash'))
    prepared = _prepared(**{own: (prefix + name, cfg[name]) for name, own in _TIMM.items()})
    prepared['squash'] = cfg['crop_mode'] == 'squash'
    size = settings.get('img_size') or image
    classes = config.get('label_names') or of.get('label_names') or of.get('labels')
    claims = {f'model_args.{name}': value for name, value in settings.items() if name not in _FREE}
    return dict(
        name=str(config.get('architecture') or of.get('architecture') or ''),
        prepared=prepared if of else {}, size=image[0] if len({*image}) == 1 else None,
        image=None if size == [None] else _sides(size),
        resampled='img_size' not in settings and not of.get('fixed_input_size'),
        classes=tuple(classes) if isinstance(classes, list) else (),
        num_heads=_checked(settings.get('num_heads'), Extent, 'model_args.num_heads'),
        claims=config | claims,
    )  # fmt: skip


def _of_transformers(config: dict[str, Any]) -> dict[str, Any]:
    kind = config.get('model_type')
    if kind is not None:
        _require('model_type', kind, _KINDS)
    image, names = config.get('image_size'), config.get('id2label') or {}
    classes: list[Any] = [names.get(str(i)) for i in range(len(names))]
    named = all(isinstance(name, str) and not name.startswith('LABEL_') for name in classes)
    return dict(
        name=str(kind or ''), image=_sides(image) if image else None,
        classes=tuple(classes) if named else (),
        num_heads=_checked(config.get('num_attention_heads'), Extent, 'num_attention_heads'),
        norm_epsilon=_checked(config.get('layer_norm_eps'), Positive, 'layer_norm_eps'),
        claims=config,
    )  # fmt: skip


def _of_processor(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Config` that an image processor's settings state: `prepared` and `size`."""
    name = str(values.get('image_processor_type') or values.get('feature_extractor_type') or '')
    own = next((kind for kind in _PROCESSORS if name.startswith(kind)), '')
    if not own and not {'size', 'resample', 'image_mean', 'image_std'} <= values.keys():
        raise ValueError(f'image_processor_type={name!r} must be one of {", ".join(_PROCESSORS)}.')
    stated = {name: value for name, value in values.items() if value is not None}
    get = (_PROCESSORS.get(own, {}) | stated).get
    for flag, wanted in (('do_resize', True), ('do_rescale', True), ('do_pad', False)):
        _require(flag, get(flag, wanted), (wanted,))
    _require('rescale_factor', get('rescale_factor', 1 / 255), (1 / 255,), '1/255')
    mean, deviation = get('image_mean'), get('image_std')
    if not get('do_normalize', True):
        mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif mean is None or deviation is None:
        raise ValueError('image_mean and image_std must be stated: they are not.')
    resample: Any = get('resample')
    _require('resample', resample, range(len(_RESAMPLING)), 'a number of Pillow, 0 to 5')
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
        crop=('crop_size / size', crop), mean=('image_mean', mean),
        deviation=('image_std', deviation), squash=('size', squash),
        interpolation=('resample', _RESAMPLING[resample]),
    )  # fmt: skip
    return {'prepared': prepared, 'size': size}


def _resized(size: Any, processor: str) -> tuple[int, bool]:
    """The side in pixels that `size` resizes images to, and True if it resizes both sides."""
    keys = size.keys() if isinstance(size, dict) else set()
    if 'shortest_edge' in keys and 'longest_edge' not in keys:
        return _side('size.shortest_edge', size['shortest_edge']), False
    if {'height', 'width'} <= keys or (isinstance(size, int) and processor):
        return _side('size', size), bool(keys) or processor in ('ViT', 'DeiT')
    raise ValueError(f'size must have a shortest_edge, or a height and a width: {size!r}.')


# ---- Values of a file --------------------------------------------------------------------------


def _require(name: str, value: Any, allowed: Sequence[Any], rule: str = '', why: str = '') -> None:
    if not any(_same(value, each) for each in allowed):
        rule = rule or ' or '.join(map(json.dumps, allowed))
        raise ValueError(f'{name} must be {rule}{why}: {json.dumps(value, default=str)}.')


def _same(a: Any, b: Any) -> bool:
    """Returns True for equal values, of numbers to rounding; true and false are no numbers."""
    numbers = (isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    return math.isclose(a, b, rel_tol=1e-6) if all(numbers) else a == b and type(a) is type(b)


def _prepared(**stated: tuple[str, Any]) -> dict[str, Any]:
    """Fields of `Preprocessing`, checked against their ranges under their names in the file."""
    kinds = fields.declared(Preprocessing)
    return {own: _checked(value, kinds[own], name) for own, (name, value) in stated.items()}


def _checked(value: Any, kind: Any, name: str) -> Any:
    """A value that meets its rule; None if it is not stated."""
    value = tuple(value) if isinstance(value, list) else value
    fields.check(value, kind | None, name)
    return value


def _sides(size: Any) -> tuple[int, int]:
    """Height and width, stated as one number for both, as two, or by name."""
    size = (size['height'], size['width']) if isinstance(size, dict) else size
    high, wide = (size, size) if isinstance(size, int) else size
    for side in (high, wide):
        fields.check(side, Side, 'the image size')
    return high, wide


def _side(name: str, size: Any) -> int:
    high, wide = _sides(size)
    if high != wide:
        raise ValueError(f'{name} must be a square: {high}x{wide} pixels.')
    return high


# ---- Held against the weights ------------------------------------------------------------------


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
        allowed = computed.get(name.removeprefix('model_args.'))
        if allowed is None and name.startswith('model_args.'):
            setting = f'{name}={json.dumps(claimed)}'
            raise ValueError(f'{config.path}: {setting} is not a setting that vitjax computes.')
        if allowed and claimed is not None and (name != 'num_classes' or num_classes):
            _require(f'{config.path}: {name}', claimed, allowed, why=', as the weights are read')


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
