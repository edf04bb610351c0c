"""Change what happens inside a trained model, and measure what its answers hang on."""

import pathlib
from typing import Annotated, Any, Literal

import command
from tyro.conf import Positional, arg

from vitjax.ranges import Count, Positive, Seed, Side

What = Literal['heads', 'patch', 'knockout', 'lesion', 'steer']


def main(
    weights: Annotated[Positional[str], arg(metavar='RUN_OR_WEIGHTS')],
    what: Annotated[Positional[What], arg(metavar='WHAT')], *, out: str,
    images: tuple[str, ...] = (), data: str | None = None,
    split: Literal['train', 'validation', 'test'] = 'test', examples: Count | None = None,
    size: Side | None = None, model: str | None = None, region: Count = 1,
    noise: Positive | None = None, regions: Count = 3, onward: bool = False, outliers: Count = 8,
    draws: Count = 5, source: str | None = None, toward: str | None = None,
    memory: Positive = 3.0, seed: Seed = 0,
) -> None:  # fmt: skip
    """Write what an intervention does: WHAT.png, its arrays WHAT.npz and a table WHAT.csv.

    heads: every head of every layer zero or its mean, exactly, beside the first-order estimate.
    patch: tokens of another image (the next one) or of the image with noise put in, place by place.
    knockout: the class token's attention to regions cut, layer by layer.
    lesion: layers skipped, swapped, repeated and removed, and accuracy then.
    steer: the difference of two classes' means added at a layer.

    Args:
        weights: a run directory, or published weights (.safetensors, .npz, hf-hub:owner/name).
        what: heads, patch, knockout, lesion or steer.
        out: directory to write to.
        images: photographs; without them images of `data`.
        data: digits, tfds:NAME, folder:PATH (with a folder for each class); a run has its own.
        split: of the data.
        examples: only so many, evenly spread over the split; 256 without it.
        size: side in pixels of what the model sees; positions are resampled.
        model: the model's name where weights do not say it.
        region: of patch, side in patches of what is put in at a time.
        noise: of patch, deviation of the noise on normalised pixels, instead of other images.
        regions: of knockout, cells each way.
        onward: of knockout, cut at a layer and all after it.
        outliers: of knockout, how many patches of the largest norm are cut together.
        draws: of lesion, random sets of layers of each size.
        source: of steer, the class whose images are steered, by name or number.
        toward: of steer, the class that they are steered to.
        memory: gigabytes that a pass may take.
        seed: of what is random, and of the bootstrap.
    """
    from vitjax import runs, studies
    from vitjax.views.seen import class_index

    if what == 'steer' and (source is None or toward is None or images):
        raise ValueError('steer needs --source and --toward, two classes, and no --images.')
    loaded = runs.load(weights, model=model, image_size=size)
    count = 256 if examples is None else examples
    pick: dict[str, Any] = {'data': data, 'examples': count}
    given = studies.samples(loaded, images, split=split, **pick)
    how: dict[str, Any] = {
        'heads': {}, 'patch': {'region': region, 'noise': noise}, 'lesion': {'draws': draws},
        'knockout': {'regions': regions, 'onward': onward, 'outliers': outliers}, 'steer': {},
    }[what]  # fmt: skip
    how |= {'memory': memory, 'seed': seed}
    total = len(given.inputs) * (2 if what == 'heads' else 1)
    with command.progress('images', total) as report:
        if what == 'steer':
            how |= {
                'source': class_index(loaded.experiment, source or ''),
                'toward': class_index(loaded.experiment, toward or ''),
            }
            fitted = studies.samples(loaded, split='train', data=data, examples=4 * count)
            found = studies.steer(loaded, fitted, given, report=report, **how)
            given = given.take(given.labels == how['source'])
        else:
            run = {'heads': studies.heads, 'patch': studies.patch, 'lesion': studies.lesion,
                   'knockout': studies.knockout}[what]  # fmt: skip
            found = run(loaded, given, report=report, **how)
    print(*found.said, sep='\n', end='\n' * bool(found.said))
    names = found.write(pathlib.Path(out), given, weights=weights, what=what)
    print(f'{found.policy}; {len(given.inputs)} images of {given.source}')
    print(f'{names} written to {out}')


if __name__ == '__main__':
    command.run(main)
