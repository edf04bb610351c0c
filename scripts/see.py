"""See what a model makes of photographs: classes, attention, relevance and features."""

import time
from typing import Annotated

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Formats, Range, Side
from vitjax.pretrained import UNSTATED, Stated


def main(
    images: Annotated[
        Positional[tuple[str, ...]], arg(metavar='PHOTO...', help_behavior_hint='(required)'),
        Range(1),
    ], *,
    weights: str = 'cait_cifar10', out: str = 'seen', size: Side | None = None,
    model: str | None = None, format: Formats = ('png',),
    stated: Annotated[Stated, arg(name='')] = UNSTATED,
) -> None:  # fmt: skip
    """Show what a model makes of photographs: a figure, its arrays, and a page for the browser.

    The figure has a row for each photograph: likeliest classes, attention, relevance for the
    likeliest class, and features as colors. The page shows the attention of any patch in any layer.

    Args:
        images: photographs.
        weights: run directory, weights as a file or hf-hub:owner/name, or a model that comes with
            vitjax: vit_cifar10, cait_cifar10 or patchconvnet_cifar10. These know the ten classes of
            CIFAR-10 at 32 pixels.
        out: folder to write.
        size: side of the model's input in pixels; by default its own, or 224 if that is larger.
    """
    started = time.perf_counter()

    from vitjax import runs, views
    from vitjax.base import shell
    from vitjax.base.console import Console
    from vitjax.views.view import DEFAULTS

    console = Console()
    shipped = shell.folder('experiments') / 'models' / weights.replace('-', '_')
    path = str(shipped) if (shipped / 'experiment.json').exists() else weights
    loaded = runs.load(path, image_size=size, model=model, stated=stated, report=console.say)
    own = loaded.experiment.preprocessing.size
    if size is None and own > 224:
        size = 224 - 224 % (loaded.experiment.model.trunk.patch_size or 1)
        loaded = runs.load(path, image_size=size, model=model, stated=stated, report=console.say)
    console.say(f'{path}: {command.described(loaded.experiment.model, size or own)}')
    with console.progress('views', 2, now='one pass through the model') as show:
        chosen = ['overview', 'explorer']
        for drawing in views.stream(loaded, images, chosen, DEFAULTS, console.say, show):
            console.say(', '.join(drawing.save(out, format)))
    print(f'written to {out} in {time.perf_counter() - started:.0f} s')


if __name__ == '__main__':
    command.run(main)
