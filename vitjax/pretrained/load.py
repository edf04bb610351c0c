"""One way in: a run directory or a file of published weights as an experiment and parameters."""

import dataclasses
import pathlib
from typing import Any

from vitjax import checkpoint, models
from vitjax.data.augment import Augment
from vitjax.data.images import Preprocessing, imagenet_classes
from vitjax.experiment import Experiment
from vitjax.pretrained.convert import convert
from vitjax.pretrained.files import read
from vitjax.pretrained.recognise import contents, recognise
from vitjax.pretrained.resize import Change, Report, resize


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
        report: is called with each `Change` made.

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
        report(Change('model', f'model: {name}'))
    holds = contents(weights, type(models.named(name)))
    if num_classes is None:
        num_classes = holds.num_classes
    fields: dict[str, Any] = {'num_classes': num_classes}
    if patch_size is not None:
        fields['patch_size'] = patch_size
    module = models.named(name, **fields)
    size = image_size or holds.image_size or 224
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
