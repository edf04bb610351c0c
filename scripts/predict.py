"""Classify image files with published weights or a run of our own."""

import sys
from typing import Annotated

import command
from tyro.conf import Positional, arg


def main(
    weights: Annotated[Positional[str], arg(metavar='WEIGHTS_OR_RUN')],
    images: Annotated[Positional[tuple[str, ...]], arg(metavar='IMAGE...')],
    top: int = 5,
    model: str | None = None,
    image_size: int | None = None,
    which: str = 'best',
) -> None:
    """Print the likeliest classes of each image, with the preprocessing of the weights.

    Args:
        weights: a run directory, a .safetensors or .npz file, or hf-hub:owner/name.
        images: image files.
        top: how many classes to print.
        model: the model's name where weights do not say it, as in deit_tiny_patch16.
        image_size: side of the input in pixels; the weights' own without it.
        which: of a run's checkpoints, best or latest.
    """
    import jax
    import numpy as np

    from vitjax import pretrained
    from vitjax.data.images import load

    if not images:
        raise ValueError('predict needs an image: got none.')
    if top < 1:
        raise ValueError(f'--top must be 1 or more: {top}.')
    experiment, params = pretrained.load(
        weights,
        model=model,
        image_size=image_size,
        which=which,
        report=lambda line: print(line, file=sys.stderr),
    )
    network, prepared = experiment.model, experiment.preprocessing
    assert prepared is not None  # load fills it in
    outputs = getattr(network, 'num_classes', 0)
    if not outputs:
        raise ValueError(f'{weights} has no head, so there are no classes to predict.')
    names = [*experiment.classes, *(f'class {i}' for i in range(len(experiment.classes), outputs))]
    forward = jax.jit(lambda p, x: network.apply({'params': p}, x))
    for start in range(0, len(images), 32):
        paths = images[start : start + 32]
        logits = np.asarray(forward(params, load(paths, prepared)), np.float64)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        for path, row in zip(paths, odds / odds.sum(1, keepdims=True), strict=True):
            print(path)
            for i in np.argsort(-row, kind='stable')[:top]:
                print(f'  {row[i]:7.2%}  {names[i]}')


if __name__ == '__main__':
    command.run(main)
