"""Change what happens inside a trained model, and measure what its predictions depend on."""

import inspect
import pathlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import command
from command import arguments as args
from tyro.conf import Positional, arg

from vitjax.base.ranges import Count, Formats, Positive, Seed, Side
from vitjax.pretrained import UNSTATED, Stated
from vitjax.studies import STUDIES

if TYPE_CHECKING:
    What = str
else:
    What = Literal[tuple(STUDIES)]


def main(
    weights: args.Loaded,
    what: Annotated[Positional[What], arg(metavar='WHAT')], *, out: str,
    images: tuple[str, ...] = (), data: str | None = None, split: args.Split = 'test',
    examples: Count | None = None, size: Side | None = None, model: str | None = None,
    region: Count = 1, noise: Positive | None = None, regions: Count = 3, onward: bool = False,
    outliers: Count = 8, aside: Count | None = None, draws: Count = 5, source: str | None = None,
    toward: str | None = None, memory: Positive = 3.0, seed: Seed = 0,
    format: Formats = ('png',), stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Write the effects of an intervention: a figure WHAT.png, arrays WHAT.npz, a table WHAT.csv.

    For an ablation's folder (scripts/ablate.py), OUT/CELL/seed_K has each finished run, OUT/CELL
    the effects over the seeds of a cell, with intervals over them.

    Args:
        weights: run directory, an ablation's folder, or published weights: a .safetensors or .npz
            file, a folder with model.safetensors and config.json, or hf-hub:owner/name.
        what: heads, patch, knockout, lesion or steer.
        out: folder to write.
        images: photographs; by default images of --data.
        examples: number of images, spread evenly over the split; by default at most 256.
        region: patch: side, in patches, of the square patched in at a time.
        noise: patch: standard deviation of noise on normalized pixels, which replaces the other
            images.
        regions: knockout: regions per side of the image.
        onward: knockout: cut at a layer and all after it.
        outliers: knockout: number of patches with the largest norms that are cut together.
        aside: knockout: layer, from 1, at which these patches are moved to a register that was
            never trained (Jiang et al. 2025); ViT only.
        draws: lesion: random sets of layers of each size.
        source: steer: class whose images are steered, by name or number.
        toward: steer: class that they are steered to.
        memory: gigabytes that a pass may take.
        seed: seed of random choices and of the bootstrap.
    """
    from vitjax import ablation, runs, studies
    from vitjax.base.console import Console
    from vitjax.studies.runner import Runner, Study
    from vitjax.studies.samples import Samples, samples
    from vitjax.studies.seeds import across
    from vitjax.views.target import class_index

    if what == 'steer' and (source is None or toward is None or images):
        raise ValueError('steer needs --source and --toward, two classes, and no --images.')
    console = Console()
    given: dict[str, Any] = {
        'region': region, 'noise': noise, 'regions': regions, 'onward': onward,
        'outliers': outliers, 'aside': aside, 'draws': draws,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if name in studies.options_of(what)}

    def study(path: str) -> tuple[Study, Samples]:
        """The study of one trained model, and the images that it was made on."""
        loaded = runs.load(path, model=model, image_size=size, stated=stated)
        used = samples(loaded, images, split=split, data=data, examples=examples, most=256)
        options = dict(given)
        if what == 'steer':
            options['source'] = class_index(loaded.experiment, source or '', '--source')
            options['toward'] = class_index(loaded.experiment, toward or '', '--toward')
            options['fitted'] = samples(
                loaded, split='train', data=data, most=4 * (examples or 256)
            )
        console.say(f'{path}: {command.described(loaded.experiment.model, used.inputs.shape[1])}')
        with console.progress('images', len(used), now='compiling') as report:
            found = studies.run(what, Runner(loaded, used, memory, seed, report), **options)
        if what == 'steer' and used.labels is not None:
            used = used.take(used.labels == options['source'])
        return found, used

    def write(found: Study, used: Samples, folder: pathlib.Path, source: str) -> None:
        names = found.write(folder, used, formats=format, weights=source, what=what)
        print(*found.said, sep='\n', end='\n' * bool(found.said))
        print(f'{found.policy}; {len(used)} images: {used.source}')
        print(f'{names} written to {folder}')

    if not (pathlib.Path(weights) / 'cells').is_dir():
        return write(*study(weights), pathlib.Path(out), weights)
    failed = []
    for cell, of_seeds in ablation.finished(weights).items():
        made = {seed_of: study(str(path)) for seed_of, path in of_seeds.items()}
        for (found, used), path in zip(made.values(), of_seeds.values(), strict=True):
            folder = pathlib.Path(out, cell, path.name)
            found.write(folder, used, formats=format, weights=str(path), what=what)
        used = made[min(made)][1]
        each = {of: found for of, (found, _) in made.items()}
        try:
            joined = across(each, used, cell=cell)
        except ValueError as error:  # of this cell alone: a model of one layer has none to compare
            failed.append(str(error))
        else:
            write(joined, used, pathlib.Path(out, cell), weights)
    if failed:
        raise ValueError('\n'.join(failed))


def description() -> str:
    """First paragraphs of `--help`: the command, and the registered studies."""
    does = inspect.cleandoc(main.__doc__ or '').split('\n\nArgs:')[0]
    lines = [f'- {name}: {says}.' for name, says in STUDIES.items()]
    return '\n\n'.join([does, 'WHAT is one of these studies.', '\n'.join(lines)])


if __name__ == '__main__':
    command.guard(lambda: command.parse(command.checked(main), description=description())())
