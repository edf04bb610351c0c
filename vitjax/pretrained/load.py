"""Published weights as an experiment and its parameters, at the requested sizes."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, get_args

import jax.numpy as jnp

from vitjax import experiment as experiments
from vitjax import models
from vitjax.base import fields, shell
from vitjax.base.files import few, read_json
from vitjax.base.types import Module, Params
from vitjax.data.augment import Augment
from vitjax.data.classes import imagenet as imagenet_classes
from vitjax.data.preprocess import IMAGENET, Preprocessing
from vitjax.experiment import Prepared
from vitjax.layers.embed import grid_of
from vitjax.layers.rope import Rope
from vitjax.pretrained import config as configs
from vitjax.pretrained import names
from vitjax.pretrained.config import Config, Stated
from vitjax.pretrained.convert import convert
from vitjax.pretrained.entries import OWN, Weights
from vitjax.pretrained.files import HUB, beside, read
from vitjax.pretrained.formats import AUGREG
from vitjax.pretrained.recognise import (
    Contents,
    cait_fields,
    contents,
    facts,
    fits,
    recognise,
    vit_fields,
)
from vitjax.pretrained.resize import (
    Change,
    Grid,
    Report,
    misfits,
    resize,
    shape_texts,
    shapes_of,
    unflatten,
)

_SELF_SUPERVISED = '(?<![a-z])(dino|mae|msn|moco|ibot)'  # in names of files


def preprocessing(
    name: str, image_size: int, path: str | pathlib.Path = '', kind: str = ''
) -> Preprocessing:
    """Preprocessing that a publisher presumably evaluates a model with; bicubic throughout.

    DeiT, distilled or not: 256 to 224 pixels, and no border from 384 on. DeiT III, CaiT,
    PatchConvNet and DINOv2: no border. ViT (AugReg): pixels to -1..1, a border of a tenth below 384
    pixels; self-supervised ViTs have ImageNet's mean. VGG16: 256 to 224.

    Args:
        name: name of the model.
        image_size: side of the input in pixels.
        path: path of the weights; dino, mae, msn, moco or ibot in the name of the file or folder
            means self-supervised training.
        kind: transformers' or timm's name of the architecture; empty if unknown.
    """
    large = image_size >= 384
    if name.endswith('dinov2') or name.startswith(('cait', 'patchconvnet', 'deit3')):
        return Preprocessing(image_size, crop=1.0)
    if name.startswith('vit'):
        parts = ' '.join([*pathlib.Path(path).parts[-2:], kind]).lower()
        mean, deviation = IMAGENET if re.search(_SELF_SUPERVISED, parts) else names.HALF
        mean, deviation = names.mean_and_deviation(names.architecture(path, kind)) or (
            mean, deviation
        )  # fmt: skip
        return Preprocessing(image_size, 1.0 if large else 0.9, mean, deviation)
    return Preprocessing(image_size, 1.0 if large else 0.875)


def load(
    path: str | pathlib.Path, *, model: str | None = None, image_size: int | None = None,
    patch_size: int | None = None, num_classes: int | None = None, stated: Stated | None = None,
    report: Report = print,
) -> tuple[Prepared, Params]:  # fmt: skip
    """Loads a file of published weights as `(experiment, params)`; `runs.load` opens runs too.

    The experiment has the model, preprocessing and class names of the parameters, and no data.
    `config.json` and `preprocessor_config.json` beside the weights state preprocessing, heads and
    classes. Unstated facts are assumed, and reported as a `Change` of kind `assumed`.

    Args:
        path: a path as `read` takes it.
        model: name of a published model, if the weights do not tell it.
        image_size: side of the images in pixels; None keeps the publisher's.
        patch_size: side of the patches in pixels; None keeps the publisher's.
        num_classes: another number starts a fresh head, 0 leaves it out; None keeps the head.
        stated: a user's statements, which override those of the files.
        report: called with each `Change` made.

    Raises:
        ValueError: as `read`, `recognise` and `convert` do; if a configuration contradicts the
            weights or vitjax's computation, by file and name.
    """
    weights, stated = read(path), stated or Stated()
    files = beside(path, configs.FILES)
    if own := _own(path, weights, files):
        return fit(
            *own, image_size=image_size, patch_size=patch_size, num_classes=num_classes,
            report=report,
        )  # fmt: skip
    config = configs.read_config(files)
    found = contents(weights, None if model is None else type(models.named(model)))
    heads, width = config.fields.get('num_heads'), facts(found).get('width', 0)
    if heads and width % heads and not stated.num_heads:
        raise ValueError(
            f'{config.path}: num_heads must divide width: num_heads={heads}, {width=}.'
        )
    prepared = {f: v for f, v in stated.given().items() if f in fields.declared(Preprocessing)}
    config = config._replace(prepared={**config.prepared, **prepared})
    architecture = '' if model else names.architecture(path, config.name)
    told = names.fields(architecture, width)
    if shaped := found.length('blocks/attention/qkv/kernel', 'heads'):
        told['num_heads'] = shaped
    if found.format.mlp:
        told['mlp'] = found.format.mlp
    told |= {field: value for field, value in config.fields.items() if value is not None}
    told |= {f: v for f, v in stated.given().items() if f in fields.declared(models.ViT)}
    name = model or _recognised(weights, found, path, config, told)
    source = _model(found, name, told)
    configs.require_claims(config, source, found.num_classes)
    heads = vars(source).get('num_heads')
    same = heads == (vars(models.named(name)).get('num_heads') if name else None)
    if model is None or not same:
        text = f'model: {_label(source, name, architecture)}' + ('' if same else f', {heads} heads')
        report(Change('model', text))
    outputs = found.num_classes if num_classes is None else num_classes
    module = source.clone(num_classes=outputs)
    if patch_size is not None:
        module = fields.replace(module, 'patch_size', patch_size)
    grid = stated.grid or _grid(found, config)
    if image_size is None and grid and grid[0] != grid[1]:
        sides = 'x'.join(str(side * (found.patch_size or 1)) for side in grid)
        raise ValueError(
            f'{path} is for images of {sides} pixels, and vitjax feeds squares: give --image-size.'
        )
    size = image_size or config.size or found.image_size or 224
    prepared = preprocessing(name or 'vit', size, path, config.name)
    prepared = dataclasses.replace(prepared, **config.prepared)
    params = convert(weights, module, size, grid=grid, report=report)
    sizes = {'image_size': image_size, 'patch_size': patch_size, 'num_classes': num_classes}
    if line := _assumed(path, found, source, name, prepared, config, stated, sizes):
        report(Change('assumed', line))
    classes = config.classes if len(config.classes) == outputs else imagenet_classes()
    return Prepared(
        model=module, augment=Augment(size=size), preprocessing=prepared,
        classes=classes if outputs == len(classes) else (),
    ), params  # fmt: skip


def _own(
    path: str | pathlib.Path, weights: Weights, files: Mapping[str, pathlib.Path]
) -> tuple[Prepared, Params] | None:
    """A model that `export` wrote under our own names; None for any other weights."""
    file = files.get(configs.CONFIG)
    stored = (read_json(file) or {}).get(OWN) if file else None
    if stored is None:
        return None
    experiment = experiments.prepared(experiments.from_json(stored))
    params = {name.replace('.', '/'): value for name, value in weights.items()}
    wanted = shapes_of(experiment.model, experiments.preprocessing(experiment).size)
    if lines := misfits(shape_texts(params), shape_texts(wanted)):
        raise ValueError(
            f'{path} does not fit its config.json; - missing, + surplus:\n' + few(lines)
        )
    return experiment, unflatten({name: jnp.asarray(x) for name, x in params.items()})


def _recognised(
    weights: Weights, found: Contents, path: str | pathlib.Path, config: Config,
    told: Mapping[str, Any],
) -> str:  # fmt: skip
    """The published model's name; empty for a CaiT, or a ViT whose heads are told, of any size."""
    try:
        return recognise(weights, pathlib.Path(path, config.name) if config.name else path)
    except ValueError:
        sizes = {'width', 'patch_size'} <= facts(found).keys()
        known = any(fits(models.named(name), found) for name in models.NAMES)
        kind = found.format.model
        heads = kind is models.CaiT or (kind is models.ViT and told.get('num_heads'))
        if heads and sizes and not known:
            return ''
        raise


def _label(model: Module, name: str, architecture: str) -> str:
    """The published name of a model that has its kind of parts; otherwise timm's, or `ViT`."""
    parts = ('rope', 'mlp', 'mlp_norm', 'qk_norm', 'norm', 'pre_norm', 'patch_norm', 'pool')
    own, published = vars(model), vars(models.named(name)) if name else {}
    same = name and all(own.get(part) == published.get(part) for part in parts)
    return name if same else architecture or name or type(model).__name__


def _model(found: Contents, name: str, told: Mapping[str, Any]) -> Module:
    """The model of weights: a published one, or a ViT of their shapes, with the fields told."""
    sizes = facts(found)
    if found.format.model is not models.ViT:
        model = models.named(name) if name else models.CaiT(**cait_fields(found))
        if told.get('num_heads') and 'num_heads' not in fields.declared(type(model)):
            raise ValueError(f'{type(model).__name__} has no attention heads: {told["num_heads"]}.')
        known = fields.declared(type(model))
        return model.clone(**{f: v for f, v in told.items() if f in known})
    shaped = vit_fields(found)
    if name:
        model = models.named(name)
    else:
        model = models.ViT(
            **{field: sizes[field] for field in ('patch_size', 'width', 'depth', 'registers')},
            layer_scale=1.0 if sizes['layer_scale'] else None,
        )
    model = model.clone(**shaped, **{f: v for f, v in told.items() if f not in shaped})
    if 'pool' in told and shaped['pool'] in ('class', 'mean') and told['pool'] != 'map':
        model = model.clone(pool=told['pool'])
    if model.pool in ('mean', 'map', 'flatten'):
        model = model.clone(spare_class_token=found.class_tokens == 1)
    if not found.positions:
        model = model.clone(position='none')
        if model.rope is None and 'rope' not in told:
            raise ValueError(
                'the weights have no position embeddings, and nothing states a rotary one: '
                f'give --rope {" or ".join(get_args(Rope))}.'
            )
    if not model.key_bias and 'rope' not in told:
        raise ValueError(
            'the weights have no biases of keys, as EVA-02, whose rotary position embedding '
            f'nothing states: give --rope {" or ".join(get_args(Rope))}.'
        )
    return model


def _grid(found: Contents, config: Config) -> Grid | None:
    """Rows and columns of patches of the position table; None for a square, or without a table.

    Raises:
        ValueError: if the table has another number of rows than the configuration's grid.
    """
    patch = found.patch_size
    if config.image is None or not patch or not found.positions:
        return None
    high, wide = config.image
    grid = grid_of((high, wide), patch)
    if grid[0] * grid[1] == found.positions:
        return grid
    if config.resampled and found.image_size:
        return None
    raise ValueError(
        f'{config.path}: images of {high}x{wide} pixels have {grid[0]}x{grid[1]} patches, the '
        f'position table has rows for {found.positions}.'
    )


def _assumed(
    path: str | pathlib.Path, found: Contents, model: Module, name: str, prepared: Preprocessing,
    config: Config, stated: Stated, sizes: dict[str, int | None],
) -> str:  # fmt: skip
    """A line on facts that nobody states, with the command that states them; else empty.

    The command repeats the user's own `stated` and `sizes`.
    """
    known = 'mean', 'deviation', 'crop', 'interpolation'
    flags = {field: getattr(prepared, field) for field in known if field not in config.prepared}
    text = [f'{field} {", ".join(_texts(value))}' for field, value in flags.items()]
    told = config.fields.get('num_heads') or stated.num_heads
    told = told or (name and re.match(rf'{name}(?![a-z0-9])', config.name))
    if type(model) is models.ViT and found.format is not AUGREG and not told:
        text.append(f'{model.num_heads} heads')
        flags['num_heads'] = model.num_heads
    if found.image_size and found.patch_size and not stated.grid and not config.image:
        side = found.image_size // found.patch_size
        text.append(f'a grid of {side}x{side} patches')
        flags['grid'] = side, side
    if not text:
        return ''
    flags = {'model': name or None, **flags, **stated.given(), **sizes}
    options = [
        f'--{field.replace("_", "-")} {" ".join(_texts(value))}'
        for field, value in flags.items() if value is not None
    ]  # fmt: skip
    hub = str(path).startswith(HUB)
    out = f'runs/{pathlib.PurePath(str(path) if hub else os.path.abspath(path)).stem}'
    return (
        f'assumed, since no file beside the weights states it: {"; ".join(text)}. A run states it: '
        f'{shell.command("convert", str(path), "--out", out)} {" ".join(options)}'
    )


def _texts(value: Any) -> list[str]:
    return [*map(str, value)] if isinstance(value, tuple) else [str(value)]


def fit(
    experiment: Prepared, params: Params, *, image_size: int | None = None,
    patch_size: int | None = None, num_classes: int | None = None, report: Report = print,
) -> tuple[Prepared, Params]:  # fmt: skip
    """A trained model at other sizes: `resize`, with a matching experiment.

    Args:
        experiment: the model's experiment.
        params: its parameters.
        image_size: side of the new images in pixels; None keeps it.
        patch_size: side of the new patches in pixels; None keeps it.
        num_classes: another number starts a fresh head, 0 leaves it out; None keeps the head.
        report: called with each `Change` made.

    Raises:
        ValueError: as `resize` does; for a patch size of a model without patches.
    """
    model: Module = experiment.model
    prepared = experiments.preprocessing(experiment)
    wanted, size = model, image_size or prepared.size
    if patch_size is not None:
        if model.trunk.patch_size is None:
            raise ValueError(f'{type(model).__name__} has no patches: {patch_size=}.')
        wanted = wanted.clone(patch_size=patch_size)
    if num_classes is not None and num_classes != model.num_classes:
        wanted = wanted.clone(num_classes=num_classes)
        experiment = dataclasses.replace(experiment, classes=())
    grid = vars(model).get('position_grid')
    if grid and image_size is not None:
        wanted = wanted.clone(position_grid=None)
    if wanted != model or size != prepared.size:
        params = resize(params, wanted, size, grid=grid, report=report)
    augment, prepared = (dataclasses.replace(x, size=size) for x in (experiment.augment, prepared))
    found = {'model': wanted, 'augment': augment, 'preprocessing': prepared}
    return dataclasses.replace(experiment, **found), params
