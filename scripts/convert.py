"""Convert published weights to a run directory, which every other command takes."""

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
        weights: .safetensors or .npz file, folder with model.safetensors and config.json, or
            hf-hub:owner/name; or a run, to resize it.
        model: name of the model, as in cait_xxs24; by default recognized by names and shapes.
        out: run directory to write, new or empty.
        patch_size: side of the patches in pixels, by default the weights' own; patch kernels are
            resampled.
        num_classes: classes of the head; another number than the weights' starts a fresh head, 0
            leaves it out.
    """
    from vitjax import runs
    from vitjax.models.base import count_parameters

    experiment, params, _ = runs.load(
        weights, model=model, image_size=image_size, patch_size=patch_size,
        num_classes=num_classes, stated=stated,
    )  # fmt: skip
    runs.write(out, experiment, params)
    prepared: Any = experiment.preprocessing  # load fills it in
    mean, deviation = (
        ', '.join(f'{value:g}' for value in color) for color in (prepared.mean, prepared.deviation)
    )
    side, resized = prepared.size, int(prepared.size / prepared.crop)
    sides = 'both sides' if prepared.squash else 'short side'
    how = '' if prepared.interpolation == 'bicubic' else f', {prepared.interpolation}'
    grey = ', grey' if prepared.grey else ''
    print(f'parameters: {count_parameters(params):,}')
    print(f'images: {sides} to {resized} pixels{how}, central {side}x{side}{grey}')
    print(f'pixels: 0 to 1, mean {mean}, deviation {deviation}')
    print(f'written: {out}')


if __name__ == '__main__':
    command.run(main)
