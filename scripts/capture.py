"""Writes the activations of a whole split as memory maps with an index."""

from typing import Annotated, Literal

import command
from command import arguments as args
from tyro.conf import arg

from vitjax.base.ranges import Count, Pattern, Side
from vitjax.pretrained import UNSTATED, Stated


def main(
    weights: args.Loaded, *,
    out: Annotated[str | None, arg(help_behavior_hint='(required without --paths)')] = None,
    data: str | None = None, split: args.Split = 'test', keep: Pattern | None = None,
    tokens: args.Tokens = None, layers: args.Layers = None,
    dtype: Literal['float32', 'float16'] = 'float32', examples: Count | None = None,
    size: Side | None = None, square: Side = 256, model: str | None = None,
    batch_size: Count = 64, paths: bool = False,
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Write a .npy of [layers, examples, ...] for each captured path, and index.json.

    The same command resumes a capture that was stopped.

    Args:
        out: folder to write.
        data: digits, tfds:NAME, folder:PATH (a folder for each class) or the path of a folder of
            images, which is one split; by default the run's own.
        dtype: type of the files' numbers; float16 takes half the space.
        batch_size: images per batch.
        paths: list the paths that can be captured, with their shapes for one image, and stop.
    """
    if paths:
        return list_paths(weights, model, size, stated)
    if out is None:
        raise ValueError('missing --out FOLDER to write to, or --paths to list paths.')
    from vitjax import activations
    from vitjax.base.console import Console
    from vitjax.experiment import from_json

    found = activations.of_path(
        weights, model=model, data=data, split=split, size=size, square=square, keep=keep,
        tokens=tokens, layers=layers, batch_size=batch_size, stated=stated,
    )  # fmt: skip
    found = activations.subset(found, examples)
    console, about = Console(), found.about
    captured = from_json({'model': about['model']}).model
    console.say(command.described(captured, about['preprocessing']['size']))
    console.say(f'{about["data"]}, {about["split"]}: {found.examples:,} images')
    with console.progress('images', found.examples, now='compiling') as report:
        activations.write(found, out, dtype=dtype, batch_size=batch_size, report=report)
    for stack in found.stacks:
        print(f'{stack.file}  {dtype} {[stack.shape[0], found.examples, *stack.shape[1:]]}')
    print(f'tokens: {about["tokens"]}; {found.examples:,} images; written to {out}')
    print(f'next:\n  {command.program(out, script="similarity")}')


def list_paths(weights: str, name: str | None, size: int | None, stated: Stated) -> None:
    """Prints the paths that can be captured of a model, with their shapes for one image."""
    import jax
    import jax.numpy as jnp

    from vitjax import runs
    from vitjax.experiment import preprocessing
    from vitjax.inside import capture

    experiment = runs.load(weights, model=name, image_size=size, stated=stated).experiment
    side = preprocessing(experiment).size
    one = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    known = capture.paths(experiment.model, one)
    width = max(map(len, known))
    print(f'{"path":<{width}}  shape for one image of {side}x{side} pixels')
    for path, shape in known.items():
        print(f'{path:<{width}}  {list(shape)}')


if __name__ == '__main__':
    command.run(main)
