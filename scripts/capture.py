"""Writes the activations of a whole split as memory maps with an index."""

from typing import Annotated, Literal

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Count, Pattern, Side
from vitjax.pretrained import UNSTATED, Stated


def main(
    source: Annotated[Positional[str], arg(metavar='RUN_OR_WEIGHTS')], *,
    out: Annotated[str | None, arg(help_behavior_hint='(required, but for --paths)')] = None,
    data: str | None = None, split: Literal['train', 'validation', 'test'] = 'test',
    keep: Pattern | None = None, tokens: Literal['class', 'mean', 'patches', 'all'] | None = None,
    layers: tuple[Count, Count] | None = None, dtype: Literal['float32', 'float16'] = 'float32',
    examples: Count | None = None, size: Side | None = None, square: Side = 256,
    model: str | None = None, batch_size: Count = 64, paths: bool = False,
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Write one .npy of [layers, examples, ...] for each path, and index.json.

    The same command resumes a capture that was stopped.

    Args:
        source: a run directory, or published weights (.safetensors, .npz, hf-hub:owner/name).
        out: where to write.
        data: digits, tfds:NAME, folder:PATH (with a folder for each class), or the path of a folder
            of images; a run has its own.
        split: of the data; a plain folder has one.
        keep: regular expression over paths ('blocks|embed'), which --paths lists; the blocks
            without it.
        tokens: the class token, the mean over the patches, all patches, or all tokens; without it
            the class token where the model has one, else the mean.
        layers: first and last of each stack, from 1; all without it.
        dtype: of the files; float16 takes half the space.
        examples: only so many, evenly spread over the split; all without it.
        size: side in pixels of the model's images; positions are resampled.
        square: side in pixels of the squares by which captures recognise image files; the model's
            input is made from the file itself.
        model: the model's name where weights do not say it, as in deit_small_patch16.
        batch_size: images at a time.
        paths: list what can be captured, with the shape for one image, and capture nothing.
        stated: facts about weights that override the files beside them.
    """
    if paths:
        return list_paths(source, model, size, stated)
    if out is None:
        raise ValueError('say where to write with --out, or list paths with --paths.')
    from vitjax import activations
    from vitjax.base.console import Console
    from vitjax.experiment import from_json

    found = activations.of_path(
        source, model=model, data=data, split=split, size=size, square=square, keep=keep,
        tokens=tokens, layers=layers, batch_size=batch_size, stated=stated,
    )  # fmt: skip
    found = activations.subset(found, examples)
    console, about = Console(), found.about
    console.say(
        command.described(
            from_json({'model': about['model']}).model, about['preprocessing']['size']
        )
    )
    console.say(f'{about["data"]}, {about["split"]}: {found.examples:,} images')
    with console.progress('images', found.examples, now='compiling') as report:
        activations.write(found, out, dtype=dtype, batch_size=batch_size, report=report)
    for stack in found.stacks:
        print(f'{stack.file}  {dtype} {[stack.shape[0], found.examples, *stack.shape[1:]]}')
    print(f'tokens: {found.about["tokens"]}; {found.examples:,} images; written to {out}')
    print(f'next:\n  {command.program(out, script="similarity.py")}')


def list_paths(source: str, name: str | None, size: int | None, stated: Stated) -> None:
    """Prints what can be captured of a model, with the shape for one image."""
    import jax
    import jax.numpy as jnp

    from vitjax import runs
    from vitjax.experiment import preprocessing
    from vitjax.inside import capture

    experiment = runs.load(source, model=name, image_size=size, stated=stated).experiment
    side = preprocessing(experiment).size
    one = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    known = capture.known_paths(experiment.model, one)
    width = max(map(len, known))
    print(f'{"path":<{width}}  shape for one image of {side}x{side} pixels')
    for path, shape in known.items():
        print(f'{path:<{width}}  {list(shape)}')


if __name__ == '__main__':
    command.run(main)
