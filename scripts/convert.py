"""Convert published weights to a run directory, which every later command takes."""

from typing import Annotated, Any

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Classes, Side
from vitjax.pretrained import UNSTATED, Stated


def main(
    weights: Annotated[Positional[str], arg(metavar='WEIGHTS')], out: str, model: str | None = None,
    image_size: Side | None = None, patch_size: Side | None = None,
    num_classes: Classes | None = None, stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Write published weights as a run directory.

    Args:
        weights: a .safetensors or .npz file, a folder with model.safetensors and config.json, or
            hf-hub:owner/name; also a run, to resize it.
        out: the run directory to write, new or empty.
        model: the model's name, as in cait_xxs24; recognised from names and shapes without it.
        image_size: side of the images in pixels; position embeddings are resampled.
        patch_size: of the patches in pixels; patch kernels are resampled.
        num_classes: another number than the weights' starts a fresh head; 0 leaves it out.
        stated: facts about weights that override the files beside them.
    """
    from vitjax import runs
    from vitjax.models.base import count_parameters

    experiment, params, _ = runs.load(
        weights, model=model, image_size=image_size, patch_size=patch_size,
        num_classes=num_classes, stated=stated,
    )  # fmt: skip
    runs.write(out, experiment, params)
    prepared: Any = experiment.preprocessing  # load fills it in
    colours = prepared.mean, prepared.deviation
    center, spread = (', '.join(f'{value:g}' for value in colour) for colour in colours)
    side = prepared.size
    print(f'parameters: {count_parameters(params):,}')
    sides = 'both sides' if prepared.squash else 'short side'
    how = '' if prepared.interpolation == 'bicubic' else f', {prepared.interpolation}'
    grey = ', grey' if prepared.grey else ''
    resized = int(side / prepared.crop)
    print(f'images: {sides} to {resized} pixels{how}, central {side}x{side}{grey}')
    print(f'pixels: 0 to 1, mean {center}, deviation {spread}')
    print(f'written: {out}')


if __name__ == '__main__':
    command.run(main)
