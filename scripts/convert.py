"""Convert published weights to a run directory, which every other command takes."""

import pathlib
from typing import Annotated, Literal

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Classes, Side
from vitjax.pretrained import UNSTATED, Stated


def main(
    weights: Annotated[Positional[str], arg(metavar='WEIGHTS')], out: str, model: str | None = None,
    image_size: Side | None = None, patch_size: Side | None = None,
    num_classes: Classes | None = None, dtype: Literal['float32', 'float16'] = 'float32',
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Write published weights, or the best weights of a run, as a run directory.

    Args:
        weights: .safetensors or .npz file, folder with model.safetensors and config.json, or
            hf-hub:owner/name; or a run, to resize or to share it: of one that keeps its size, the
            records (metrics, predictions, versions) are copied, optimizer state and figures not.
        model: name of the model, as in cait_xxs24; by default recognized by names and shapes.
        out: run directory to write, new or empty.
        patch_size: side of the patches in pixels, by default the weights' own; patch kernels are
            resampled.
        num_classes: classes of the head; another number than the weights' starts a fresh head, 0
            leaves it out.
        dtype: type of the stored weights; float16 takes half the space, and commands compute in
            float32 all the same.
    """
    from vitjax import runs
    from vitjax.experiment import prepared
    from vitjax.models.base import count_parameters

    experiment, params, _ = runs.load(
        weights, model=model, image_size=image_size, patch_size=patch_size,
        num_classes=num_classes, stated=stated,
    )  # fmt: skip
    trained = (pathlib.Path(weights) / 'experiment.json').exists()
    same = trained and experiment == prepared(runs.read_experiment(weights))
    runs.write(out, experiment, params, dtype=dtype, source=weights if same else None)
    images = experiment.preprocessing
    mean, deviation = (
        ', '.join(f'{value:g}' for value in color) for color in (images.mean, images.deviation)
    )
    side, resized = images.size, int(images.size / images.crop)
    sides = 'both sides' if images.squash else 'short side'
    how = '' if images.interpolation == 'bicubic' else f', {images.interpolation}'
    grey = ', grey' if images.grey else ''
    print(f'parameters: {count_parameters(params):,}')
    print(f'images: {sides} to {resized} pixels{how}, central {side}x{side}{grey}')
    print(f'pixels: 0 to 1, mean {mean}, deviation {deviation}')
    print(f'written: {out}, {dtype}' if dtype != 'float32' else f'written: {out}')


if __name__ == '__main__':
    command.run(main)
