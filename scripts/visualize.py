"""See inside a trained model: attention, tokens and gradients, on photographs."""

import functools
import io
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Amount, Count, Formats, Positive, Range, Rate, Seed, Side, Whole
from vitjax.pretrained import UNSTATED, Stated


def main(
    weights: Annotated[Positional[str], arg(metavar='RUN_OR_WEIGHTS')],
    what: Annotated[
        Positional[tuple[str, ...]], arg(metavar='WHAT', help_behavior_hint='(required)')
    ], *,
    images: Annotated[tuple[str, ...], Range(1)], out: str, model: str | None = None,
    size: Side | None = None, layer: Count | None = None, query: tuple[Count, Count] | None = None,
    target: str | None = None, at: str | None = None, channels: tuple[Whole, ...] = (),
    enlarge: Literal['bicubic', 'nearest'] = 'bicubic', discard: Rate = 0.9,
    steps: Count = 30, jitter: Whole | None = None, blur: Amount | None = None,
    memory: Positive = 3.0, seed: Seed = 0, image: Count = 1,
    scale: Literal['shared', 'each'] | None = None, format: Formats = ('png',),
    beside: str | None = None, stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Draw what a model does on photographs: figures (PNG, PDF, SVG; GIF), arrays (NPZ), a page.

    Args:
        weights: a run directory, or published weights (.safetensors, .npz or hf-hub:owner/name).
        what: which views to draw.
        images: photographs.
        out: directory to write to.
        model: the model's name, as in cait_xxs24, where the weights do not say it.
        size: side in pixels of what the model sees. Its own by default; at most 224 where its own
            would take more than `memory`.
        layer: of heads, grad-cam, filters, maximize and activations, from 1 on. By default the
            last, the last whose patches reach the answer for grad-cam, the first for filters, the
            middle for maximize, some for activations.
        query: row and column, from 1 on, of the patch whose attention heads shows. By default the
            class token's, the central patch's where the trunk has none.
        target: class that gradients are taken of, by name or number; by default each image's most
            likely.
        at: captured path for grad-cam, maximize and activations, as in blocks/mlp/hidden or conv_3.
        channels: of maximize, by default the four most active on the images; of activations, by
            default the 64 that vary most; from 0 on.
        enlarge: filter that maps over images are enlarged with.
        discard: share of attention weights, the smallest, that the second rollout leaves out.
        steps: of maximize.
        jitter: of maximize, in pixels; by default the patch size, half the side for convolutional
            networks.
        blur: of maximize, a standard deviation in pixels; by default the patch size / 14, 0 for
            convolutional networks.
        memory: gigabytes that captured arrays may take.
        seed: of the noise that maximize starts from.
        image: which of the images heads (by layer), patches and activations show, from 1 on.
        scale: of colours: one that all maps of a figure share, as by default of attention, or each
            map's own, as of relevance and grad-cam, whose sizes differ from image to image.
        format: of figures; animations are GIF, the explorer's page is HTML.
        beside: a second run directory or file of weights, for explorer to show beside the first.
        stated: facts about the weights, but not about `beside`, that override the files beside
            them.
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
    preprocessing: Any = loaded.experiment.preprocessing  # load fills it in
    own = preprocessing.size
    page = explorer.megabytes(loaded, len(images)) if chosen == ['explorer'] else 0
    if (held > memory or page > explorer.LIMIT) and size is None and own > 224:
        size = 224 - 224 % (loaded.experiment.model.trunk.patch_size or 1)
        print(f'{size} pixels, not {own}, at which captured arrays would take {held:.1f} GB')
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
        opened = runs.load(beside, image_size=size)
        other = forward_pass(opened, images, keep=[explorer.VIEW.keep])
    console, shown = Console(), loaded.experiment
    prepared: Any = shown.preprocessing
    console.say(command.described(shown.model, prepared.size))
    directory = pathlib.Path(out)
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

    A page is saved as HTML, which has its arrays in it.
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
    """What `--help` says first: what the command does, and the views there are, by group."""
    from vitjax.views import GROUPS, choose

    what = (main.__doc__ or '').splitlines()[0]
    groups = [f'{group}: {", ".join(choose([group]))}.' for group in GROUPS]
    return '\n\n'.join([what, 'WHAT is `all`, groups, or single views of them.', *groups])


if __name__ == '__main__':
    asked = {'-h', '--help'} & {*sys.argv}  # importing the views takes seconds
    said = description() if asked else None
    command.guard(lambda: command.parse(command.checked(main), description=said)())
