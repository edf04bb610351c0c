"""A file of published weights as an experiment and its parameters, at the sizes asked for."""

import dataclasses
import pathlib

from vitjax import models
from vitjax.data.augment import Augment
from vitjax.data.imagenet import classes as imagenet_classes
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment
from vitjax.pretrained.convert import convert
from vitjax.pretrained.files import read
from vitjax.pretrained.recognise import contents, recognise
from vitjax.pretrained.resize import Change, Report, resize
from vitjax.types import Module, Params


def preprocessing(name: str, image_size: int) -> Preprocessing:
    """What the publisher evaluates a model with; resizing is bicubic throughout.

    DeiT, distilled or not: 256 to 224 pixels, and no border from 384 on. DeiT III, CaiT,
    PatchConvNet and DINOv2: no border is cut. ViT (AugReg): pixels to -1..1, a border of a tenth
    below 384 pixels. VGG16: 256 to 224.
    """
    large = image_size >= 384
    if name.endswith('dinov2') or name.startswith(('cait', 'patchconvnet', 'deit3')):
        return Preprocessing(image_size, crop=1.0)
    if name.startswith('vit'):
        half = (0.5, 0.5, 0.5)
        return Preprocessing(image_size, 1.0 if large else 0.9, mean=half, deviation=half)
    return Preprocessing(image_size, 1.0 if large else 0.875)


def load(
    path: str | pathlib.Path, *, model: str | None = None, image_size: int | None = None,
    patch_size: int | None = None, num_classes: int | None = None, report: Report = print,
) -> tuple[Experiment, Params]:  # fmt: skip
    """A file of published weights as `(experiment, params)`; `runs.load` opens runs too.

    The experiment has the model, preprocessing and class names of the parameters, and no data.

    Args:
        path: what `read` takes.
        model: a published model's name where the weights do not say it.
        image_size: side of the images in pixels; None keeps what the weights were made for.
        patch_size: side of the patches in pixels; None keeps it.
        num_classes: another number starts a fresh head, 0 leaves it out; None keeps the head.
        report: is called with each `Change` made.

    Raises:
        ValueError: as `read`, `recognise` and `convert` do.
    """
    weights = read(path)
    name = model or recognise(weights, path)
    if model is None:
        report(Change('model', f'model: {name}'))
    holds = contents(weights, type(models.named(name)))
    num_classes = holds.num_classes if num_classes is None else num_classes
    patches = {} if patch_size is None else {'patch_size': patch_size}
    module = models.named(name, num_classes=num_classes, **patches)
    size = image_size or holds.image_size or 224
    params = convert(weights, module, size, report=report)
    classes = imagenet_classes()
    return Experiment(
        model=module, augment=Augment(size=size), preprocessing=preprocessing(name, size),
        classes=classes if num_classes == len(classes) else (),
    ), params  # fmt: skip


def fit(
    experiment: Experiment, params: Params, *, image_size: int | None = None,
    patch_size: int | None = None, num_classes: int | None = None, report: Report = print,
) -> tuple[Experiment, Params]:  # fmt: skip
    """A trained model at other sizes: `resize`, with an experiment to match.

    Args:
        experiment: of the model; its preprocessing must be known.
        params: its parameters.
        image_size: side of its new images in pixels; None keeps it.
        patch_size: side of its new patches in pixels; None keeps it.
        num_classes: another number starts a fresh head, 0 leaves it out; None keeps the head.
        report: is called with each `Change` made.

    Raises:
        ValueError: as `resize` does, and for patches of a model that has none.
    """
    model: Module = experiment.model
    prepared = experiment.preprocessing
    assert prepared is not None
    wanted, size = model, image_size or prepared.size
    if patch_size is not None:
        if model.trunk.patch_size is None:
            raise ValueError(f'{type(model).__name__} has no patches: {patch_size=}.')
        wanted = wanted.clone(patch_size=patch_size)
    if num_classes is not None and num_classes != model.num_classes:
        wanted = wanted.clone(num_classes=num_classes)
        experiment = dataclasses.replace(experiment, classes=())
    if wanted != model or size != prepared.size:
        params = resize(params, wanted, size, report=report)
    augment, prepared = (dataclasses.replace(x, size=size) for x in (experiment.augment, prepared))
    return dataclasses.replace(
        experiment, model=wanted, augment=augment, preprocessing=prepared
    ), params
