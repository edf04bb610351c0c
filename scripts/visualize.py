"""See inside a trained model: attention, tokens and gradients, on photographs."""

import dataclasses
import functools
import inspect
import time
from typing import Annotated, Any

import command
from command import arguments as args
from tyro.conf import Positional, arg

from vitjax import runs, views
from vitjax.base.console import Console
from vitjax.base.labels import labels
from vitjax.base.ranges import Formats, Positive, Range, Side
from vitjax.pretrained import UNSTATED, Stated
from vitjax.views import explorer
from vitjax.views.view import DEFAULTS, Options


def main(
    weights: args.Loaded,
    what: Annotated[
        Positional[tuple[str, ...]], arg(metavar='WHAT', help_behavior_hint='(required)')
    ], *,
    images: Annotated[tuple[str, ...], Range(1)], out: str, model: str | None = None,
    size: Side | None = None, options: Annotated[Options, arg(name='')] = DEFAULTS,
    memory: Positive = 3.0, format: Formats = ('png',), beside: str | None = None,
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Draw what a model does on photographs: figures (PNG, PDF, SVG; GIF), arrays (NPZ), a page.

    Without --size, the input has at most 224 pixels if the captured arrays would exceed --memory
    or the explorer's page would be too large. Animations are GIF, the page is HTML.

    Args:
        what: views to draw.
        images: photographs.
        out: folder to write.
        options: options of the views.
        memory: gigabytes that captured arrays may take.
        beside: second run or file of weights, which explorer shows beside the first; the facts
            about weights do not apply to it.
    """
    started = time.perf_counter()
    chosen = views.choose([name.replace('_', '-') for name in what])
    changes: list[Any] = []
    load = functools.partial(runs.load, weights, model=model, stated=stated, report=changes.append)
    loaded = load(image_size=size)
    held = views.gigabytes(loaded, len(images), *chosen, at=options.at)
    prepared: Any = loaded.experiment.preprocessing  # load fills it in
    own = prepared.size
    large = explorer.megabytes(loaded, len(images)) if chosen == ['explorer'] else 0
    if (held > memory or large > explorer.LIMIT) and size is None and own > 224:
        size = 224 - 224 % (loaded.experiment.model.trunk.patch_size or 1)
        print(f'input: {size} pixels, not {own}, whose captured arrays would take {held:.1f} GB')
        changes.clear()
        loaded = load(image_size=size)
        held = views.gigabytes(loaded, len(images), *chosen, at=options.at)
    if held > memory:
        rule = f'captured arrays would take {held:.1f} GB, --memory allows {memory:g}'
        raise ValueError(f'{rule}: use a smaller --size, fewer --images or fewer views.')
    print(*changes, sep='\n', end='\n' * bool(changes))
    if beside is not None:
        if 'explorer' not in chosen:
            raise ValueError(f'--beside is for explorer alone: got {" ".join(what)}.')
        other = runs.load(beside, image_size=size)
        results = views.forward_pass(other, images, keep=[explorer.VIEW.keep])
        options = dataclasses.replace(options, beside=results)
    names = labels([*filter(None, (weights, beside))])
    options = dataclasses.replace(options, labels=tuple(names))
    console = Console()
    console.say(command.described(loaded.experiment.model, size or own))
    with console.progress('views', len(chosen), now='one pass through the model') as show:
        for drawing in views.stream(loaded, images, chosen, options, console.say, show):
            written = ', '.join(drawing.save(out, format))
            if isinstance(drawing.figure, views.Page):
                written += f' ({len(drawing.figure) / 1e6:.3g} MB), for a browser'
            console.say(written)
    print(f'written to {out} in {time.perf_counter() - started:.0f} s')


def description() -> str:
    """Returns the first part of `--help`: the purpose of the command, and the views by group."""
    what, sizes, _ = inspect.cleandoc(main.__doc__ or '').split('\n\n', 2)
    groups = [f'- {group}: {", ".join(views.choose([group]))}.' for group in views.GROUPS]
    return '\n\n'.join([what, sizes, '\n'.join(['WHAT is all, groups, or single views:', *groups])])


if __name__ == '__main__':
    command.guard(lambda: command.parse(command.checked(main), description=description())())
