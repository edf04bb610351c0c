"""See inside a trained model: attention, tokens and gradients, on photographs."""

import functools
import inspect
import io
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import command
from command import arguments as args
from tyro.conf import Positional, arg

from vitjax.base.ranges import Amount, Count, Formats, Positive, Range, Rate, Seed, Side, Whole
from vitjax.pretrained import UNSTATED, Stated


def main(
    weights: args.Loaded,
    what: Annotated[
        Positional[tuple[str, ...]], arg(metavar='WHAT', help_behavior_hint='(required)')
    ], *,
    images: Annotated[tuple[str, ...], Range(1)], out: str, model: str | None = None,
    size: Side | None = None, layer: Count | None = None,
    query: tuple[Count, Count] | None = None, target: str | None = None, at: str | None = None,
    channels: tuple[Whole, ...] = (), enlarge: Literal['bicubic', 'nearest'] = 'bicubic',
    discard: Rate = 0.9, steps: Count = 30, jitter: Whole | None = None, blur: Amount | None = None,
    memory: Positive = 3.0, seed: Seed = 0, image: Count = 1,
    scale: Literal['shared', 'each'] | None = None, format: Formats = ('png',),
    beside: str | None = None, stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Draw what a model does on photographs: figures (PNG, PDF, SVG; GIF), arrays (NPZ), a page.

    Without --size, the input has at most 224 pixels if the captured arrays would exceed --memory
    or the explorer's page would be too large. Animations are GIF, the page is HTML.

    Args:
        what: views to draw.
        images: photographs.
        out: folder to write.
        layer: layer, from 1, of heads, grad-cam, filters, maximize and activations; by default the
            last for heads, the last whose patches reach the logits for grad-cam, the first for
            filters, the middle one for maximize, some for activations.
        query: row and column, from 1, of the patch whose attention heads shows; by default the
            class token's attention, or the central patch's if the trunk has no class token.
        target: class of which gradients are taken, by name or number; by default the likeliest of
            each image.
        at: captured path for grad-cam, maximize and activations, as in blocks/mlp/hidden or conv_3.
        channels: channels, from 0, for maximize, by default the four most active on the images; and
            for activations, by default the 64 that vary most.
        enlarge: filter that enlarges maps over images.
        discard: fraction of the attention weights, the smallest, that the second rollout drops.
        steps: steps of maximize.
        jitter: jitter of maximize in pixels; by default the patch size, or half the side for
            convolutional networks.
        blur: standard deviation in pixels of maximize's blur; by default the patch size / 14, or 0
            for convolutional networks.
        memory: gigabytes that captured arrays may take.
        seed: seed of the noise that maximize starts from.
        image: image, from 1, that heads (by layer), patches and activations show.
        scale: color scale: shared by the maps of a figure, the default for attention; or each map's
            own, the default for relevance and grad-cam, whose sizes differ between images.
        beside: second run or file of weights, which explorer shows beside the first; the facts
            about weights do not apply to it.
    """
    started = time.perf_counter()
    from vitjax import runs, views
    from vitjax.base.console import Console
    from vitjax.base.labels import labels
    from vitjax.views import explorer
    from vitjax.views.forward import forward_pass

    chosen = views.choose(what)
    changes: list[Any] = []
    load = functools.partial(runs.load, weights, model=model, stated=stated, report=changes.append)
    loaded = load(image_size=size)
    held = views.gigabytes(loaded, len(images), *chosen, at=at)
    prepared: Any = loaded.experiment.preprocessing  # load fills it in
    own = prepared.size
    page = explorer.megabytes(loaded, len(images)) if chosen == ['explorer'] else 0
    if (held > memory or page > explorer.LIMIT) and size is None and own > 224:
        size = 224 - 224 % (loaded.experiment.model.trunk.patch_size or 1)
        print(f'input: {size} pixels, not {own}, whose captured arrays would take {held:.1f} GB')
        changes.clear()
        loaded = load(image_size=size)
        held = views.gigabytes(loaded, len(images), *chosen, at=at)
    if held > memory:
        rule = f'captured arrays would take {held:.1f} GB, --memory allows {memory:g}'
        raise ValueError(f'{rule}: use a smaller --size, fewer --images or fewer views.')
    print(*changes, sep='\n', end='\n' * bool(changes))
    other = None
    if beside is not None:
        if 'explorer' not in chosen:
            raise ValueError(f'--beside is for explorer alone: got {" ".join(what)}.')
        other = forward_pass(runs.load(beside, image_size=size), images, keep=[explorer.VIEW.keep])
    console, directory = Console(), pathlib.Path(out)
    console.say(command.described(loaded.experiment.model, size or own))
    with console.progress('views', len(chosen), now='one pass through the model') as show:
        drawings = views.draw(
            loaded, images, *chosen, target=target, at=at, layer=layer, query=query,
            channels=channels, smooth=enlarge == 'bicubic', discard=discard, steps=steps,
            jitter=jitter, blur=blur, seed=seed, image=image, scale=scale, beside=other,
            labels=labels([*filter(None, (weights, beside))]), report=console.say,
            begin=lambda done, name: show(done, now=name),
        )  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True)
        for name, figure, arrays in drawings:
            console.say(write(directory / name, figure, arrays, format))
    print(f'written to {out} in {time.perf_counter() - started:.0f} s')


def write(
    path: pathlib.Path, figure: Any, arrays: Mapping[str, Any], formats: Formats = ('png',)
) -> str:
    """Saves a figure, or several as an animated GIF, and its arrays; returns their names.

    A page is saved as HTML, which contains its arrays.
    """
    import numpy as np
    from PIL import Image

    from vitjax.base import files

    if isinstance(figure, str):
        files.replace(path.with_suffix('.html'), figure)
        return f'{path.name}.html ({len(figure) / 1e6:.3g} MB), for a browser'
    with files.writing(path.with_suffix('.npz')) as file:
        np.savez_compressed(file, **arrays)
    if not isinstance(figure, list):
        return ', '.join([*figure.save(path, formats), f'{path.name}.npz'])
    frames = []
    for one in figure:
        buffer = io.BytesIO()
        one.savefig(buffer, dpi=120)
        frames.append(Image.open(buffer).convert('RGB'))
    first, *rest = [frame.quantize(128) for frame in frames]
    pause = [400] * len(rest) + [1600]  # milliseconds; the last layer stays
    with files.writing(path.with_suffix('.gif')) as file:
        first.save(file, 'GIF', save_all=True, append_images=rest, duration=pause, loop=0)
    return f'{path.name}.gif, {path.name}.npz'


def description() -> str:
    """Returns the first part of `--help`: the purpose of the command, and the views by group."""
    from vitjax.views import GROUPS, choose

    what, sizes, _ = inspect.cleandoc(main.__doc__ or '').split('\n\n', 2)
    groups = [f'- {group}: {", ".join(choose([group]))}.' for group in GROUPS]
    return '\n\n'.join([what, sizes, '\n'.join(['WHAT is all, groups, or single views:', *groups])])


if __name__ == '__main__':
    asked = {'-h', '--help', '--help-all'} & {*sys.argv}  # importing the views takes seconds
    said = description() if asked else None
    command.guard(lambda: command.parse(command.checked(main), description=said)())
