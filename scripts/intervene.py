"""Change what happens inside a trained model, and measure what its answers hang on."""

import functools
import pathlib
from typing import Annotated, Any, Literal

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Count, Formats, Positive, Seed, Side, Whole
from vitjax.pretrained import UNSTATED, Stated

What = Literal['heads', 'patch', 'knockout', 'lesion', 'steer']


def main(
    weights: Annotated[Positional[str], arg(metavar='RUN_OR_WEIGHTS')],
    what: Annotated[Positional[What], arg(metavar='WHAT')], *, out: str,
    images: tuple[str, ...] = (), data: str | None = None,
    split: Literal['train', 'validation', 'test'] = 'test', examples: Count | None = None,
    size: Side | None = None, model: str | None = None, region: Count = 1,
    noise: Positive | None = None, regions: Count = 3, onward: bool = False, outliers: Count = 8,
    aside: Whole | None = None, draws: Count = 5, source: str | None = None,
    toward: str | None = None, memory: Positive = 3.0, seed: Seed = 0,
    format: Formats = ('png',),
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Write what an intervention does: a figure WHAT.png, arrays WHAT.npz and a table WHAT.csv.

    - heads: every head of every layer zero or its mean, exactly, beside the first-order estimate.
    - patch: tokens of the next image, or of the image with noise, put in place by place.
    - knockout: the class token's attention to regions cut, layer by layer.
    - lesion: layers skipped, swapped, repeated and removed, and accuracy then.
    - steer: the difference of two classes' means added at a layer.

    Of an ablation's folder (scripts/ablate.py) each finished run, in OUT/CELL/seed_K, and in
    OUT/CELL what holds over the seeds of a cell, with intervals over them.

    Args:
        weights: a run directory, published weights (.safetensors, .npz, hf-hub:owner/name), or an
            ablation's folder.
        what: heads, patch, knockout, lesion or steer.
        out: directory to write to.
        images: photographs; without them images of `data`.
        data: digits, tfds:NAME, folder:PATH (with a folder for each class); a run has its own.
        split: of the data.
        examples: number of images, evenly spread over the split; at most 256 without it.
        size: side in pixels of what the model sees; positions are resampled.
        model: the model's name where weights do not say it.
        region: of patch, side in patches of what is put in at a time.
        noise: of patch, deviation of the noise on normalised pixels, instead of other images.
        regions: of knockout, cells each way.
        onward: of knockout, cut at a layer and all after it.
        outliers: of knockout, how many patches of the largest norm are cut together.
        aside: of knockout, layer from 1 where these patches are moved to a register that was never
            trained (Jiang et al. 2025); of a ViT.
        draws: of lesion, random sets of layers of each size.
        source: of steer, the class whose images are steered, by name or number.
        toward: of steer, the class that they are steered to.
        memory: gigabytes that a pass may take.
        seed: of what is random, and of the bootstrap.
        format: of figures.
        stated: facts about weights that override the files beside them.
    """
    from vitjax import ablation, runs, studies
    from vitjax.base.console import Console
    from vitjax.views.seen import class_index

    if what == 'steer' and (source is None or toward is None or images):
        raise ValueError('steer needs --source and --toward, two classes, and no --images.')
    console = Console()
    options: dict[str, Any] = {
        'heads': {}, 'patch': {'region': region, 'noise': noise}, 'lesion': {'draws': draws},
        'knockout': {'regions': regions, 'onward': onward, 'outliers': outliers,
                     'aside': aside}, 'steer': {},
    }[what]  # fmt: skip
    options |= {'memory': memory, 'seed': seed}

    def study(path: str) -> tuple[Any, Any]:
        """What the intervention does to one trained model, and the images it was made on."""
        loaded = runs.load(path, model=model, image_size=size, stated=stated)
        given = studies.samples(loaded, images, split=split, data=data, examples=examples, most=256)
        how, run = dict(options), functools.partial(vars(studies)[what], loaded)
        total, used = len(given.inputs) * (2 if what == 'heads' else 1), given
        if what == 'steer':
            of = class_index(loaded.experiment, source or '', '--source')
            to = class_index(loaded.experiment, toward or '', '--toward')
            how |= {'source': of, 'toward': to}
            run = functools.partial(
                run, studies.samples(loaded, split='train', data=data, most=4 * (examples or 256))
            )
            used = given if given.labels is None else given.take(given.labels == of)
        model_of: Any = loaded.experiment.model
        console.say(f'{path}: {command.described(model_of, given.inputs.shape[1])}')
        with console.progress('images', total, now='compiling') as report:
            return run(given, report=report, **how), used

    def write(found: Any, given: Any, folder: pathlib.Path, source: str) -> None:
        names = found.write(folder, given, formats=format, weights=source, what=what)
        print(*found.said, sep='\n', end='\n' * bool(found.said))
        print(f'{found.policy}; {len(given.inputs)} images of {given.source}')
        print(f'{names} written to {folder}')

    if not (pathlib.Path(weights) / 'cells').is_dir():
        return write(*study(weights), pathlib.Path(out), weights)
    failed = []
    for cell, of_seeds in ablation.finished(weights).items():
        made = {seed_of: study(str(path)) for seed_of, path in of_seeds.items()}
        for (found, given), path in zip(made.values(), of_seeds.values(), strict=True):
            folder = pathlib.Path(out, cell, path.name)
            found.write(folder, given, formats=format, weights=str(path), what=what)
        given = made[min(made)][1]
        each = {of: found for of, (found, _) in made.items()}
        try:
            joined = studies.across(each, given, cell=cell)
        except ValueError as error:  # of this cell alone, as where there is one layer to compare
            failed.append(str(error))
        else:
            write(joined, given, pathlib.Path(out, cell), weights)
    if failed:
        raise ValueError('\n'.join(failed))


if __name__ == '__main__':
    command.run(main)
