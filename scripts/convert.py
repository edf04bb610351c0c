"""Convert published weights to a run directory, which every later command takes."""

from typing import Annotated, Any

import command
from tyro.conf import Positional, arg

from vitjax.ranges import Classes, Side


def main(
    weights: Annotated[Positional[str], arg(metavar='WEIGHTS')], out: str, model: str | None = None,
    image_size: Side | None = None, patch_size: Side | None = None,
    num_classes: Classes | None = None,
) -> None:  # fmt: skip
    """Write published weights as a run directory.

    Args:
        weights: a .safetensors or .npz file, or hf-hub:owner/name; also a run, to resize it.
        out: the run directory to write, new or empty.
        model: the model's name, as in cait_xxs24; recognised from names and shapes without it.
        image_size: side of the images in pixels; position embeddings are resampled.
        patch_size: of the patches in pixels; patch kernels are resampled.
        num_classes: another number than the weights' starts a fresh head; 0 leaves it out.
    """
    from jax import tree

    from vitjax import runs

    experiment, params, _ = runs.load(
        weights, model=model, image_size=image_size, patch_size=patch_size, num_classes=num_classes
    )
    runs.write(out, experiment, params)
    prepared: Any = experiment.preprocessing  # load fills it in
    colours = prepared.mean, prepared.deviation
    mean, deviation = (', '.join(f'{value:g}' for value in colour) for colour in colours)
    side = prepared.size
    print(f'parameters: {sum(x.size for x in tree.leaves(params)):,}')
    print(f'images: short side to {int(side / prepared.crop)} pixels, central {side}x{side}')
    print(f'pixels: 0 to 1, mean {mean}, deviation {deviation}')
    print(f'written: {out}')


if __name__ == '__main__':
    command.run(main)
