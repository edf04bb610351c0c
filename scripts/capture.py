"""Write the activations of a whole split as memory maps with an index."""

from typing import Annotated, Literal

import command
from tyro.conf import Positional, arg

from vitjax.ranges import Count, Pattern, Side


def main(
    source: Annotated[Positional[str], arg(metavar='RUN_OR_WEIGHTS')], *, out: str,
    data: str | None = None, split: Literal['train', 'validation', 'test'] = 'test',
    keep: Pattern | None = None, tokens: Literal['class', 'mean', 'patches', 'all'] | None = None,
    layers: tuple[Count, Count] | None = None, dtype: Literal['float32', 'float16'] = 'float32',
    examples: Count | None = None, size: Side | None = None, square: Side = 256,
    model: str | None = None, batch_size: Count = 64,
) -> None:  # fmt: skip
    """Write one .npy of [layers, examples, ...] for each path, and index.json.

    The same command resumes a capture that was stopped.

    Args:
        source: a run directory, or published weights (.safetensors, .npz, hf-hub:owner/name).
        out: where to write.
        data: digits, tfds:NAME, folder:PATH (with a folder for each class), or the path of a folder
            of images; a run has its own.
        split: of the data; a plain folder has one.
        keep: regular expression over paths ('blocks|embed'); the blocks without it.
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
    """
    from vitjax import activations

    found = activations.of_path(
        source, model=model, data=data, split=split, size=size, square=square, keep=keep,
        tokens=tokens, layers=layers, batch_size=batch_size,
    )  # fmt: skip
    found = activations.evenly(found, examples)
    with command.progress('images', found.examples) as report:
        activations.write(found, out, dtype=dtype, batch_size=batch_size, report=report)
    for stack in found.stacks:
        print(f'{stack.file}  {dtype} {[stack.shape[0], found.examples, *stack.shape[1:]]}')
    print(f'tokens: {found.about["tokens"]}; {found.examples:,} images; written to {out}')
    print(f'next:\n  python scripts/similarity.py {out}')


if __name__ == '__main__':
    command.run(main)
