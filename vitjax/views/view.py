"""Protocol of a view: its options, its drawings, and its refusal of a model."""

import base64
import dataclasses
import html
import io
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from vitjax.base import files
from vitjax.base.ranges import Amount, Count, Hidden, Pattern, Rate, Seed, Whole
from vitjax.base.types import Array, Format
from vitjax.figures.figure import Figure


class NotApplicable(Exception):
    """A view does not apply to a model; the message is the reason, in one line."""


@dataclasses.dataclass(frozen=True)
class Options:
    r"""Options of the views; each view reads its own and ignores the others.

    Attributes:
        layer: layer, from 1, of heads, grad-cam, filters, maximize and activations; by default the
            last for heads, the last whose patches reach the logits for grad-cam, the first for
            filters, the middle one for maximize, some for activations.
        query: row and column, from 1, of the patch whose attention heads shows; by default the
            class token's attention, or the central patch's if the trunk has no class token.
        target: class of which gradients are taken, by name or number; by default the likeliest of
            each image.
        at: regular expression of the captured paths that grad-cam, maximize and activations show,
            as in blocks/mlp/hidden or '(conv|pool)_\d+'; activations then shows all layers and
            channels.
        channels: channels, from 0, for maximize, by default the four most active on the images; and
            for activations, by default the 64 that vary most.
        enlarge: filter that enlarges maps over images.
        discard: fraction of the attention weights, the smallest, that the second rollout drops.
        steps: steps of maximize.
        jitter: jitter of maximize in pixels; by default the patch size, or half the side for
            convolutional networks, in which pixels near the border count less and would stay grey.
        blur: standard deviation in pixels of maximize's blur; by default the patch size / 14, or 0
            for convolutional networks.
        seed: seed of the noise that maximize starts from.
        image: image, from 1, that heads (by layer), patches and activations show.
        scale: color scale: shared by the maps of a figure, the default for attention; or each map's
            own, the default for relevance and grad-cam, whose sizes differ between images.
        beside: results of another model on the same images, which explorer shows beside the first.
        labels: names of the models on explorer's page; by default their kinds.
    """

    layer: Count | None = None
    query: tuple[Count, Count] | None = None
    target: str | None = None
    at: Pattern | None = None
    channels: tuple[Whole, ...] = ()
    enlarge: Literal['bicubic', 'nearest'] = 'bicubic'
    discard: Rate = 0.9
    steps: Count = 30
    jitter: Whole | None = None
    blur: Amount | None = None
    seed: Seed = 0
    image: Count = 1
    scale: Literal['shared', 'each'] | None = None
    beside: Annotated[object, Hidden()] = None
    labels: Annotated[tuple[str, ...], Hidden()] = ()

    @property
    def smooth(self) -> bool:
        """True if maps over images are interpolated."""
        return self.enlarge == 'bicubic'


DEFAULTS = Options()


class Page(str):
    """A page of HTML that needs nothing else; a notebook shows it in a frame."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        frame = 'width="100%" height="720" style="border: 0"'
        return f'<iframe srcdoc="{html.escape(self)}" {frame}></iframe>'


class Drawing(NamedTuple):
    """One figure of a view, and the arrays that it shows; a notebook shows the figure.

    Attributes:
        name: stem of its files, such as `heads_by_layer`.
        figure: a figure; a list of figures is an animation.
        arrays: arrays by name; `names` are those of the images.
    """

    name: str
    figure: Figure | list[Figure] | Page
    arrays: Mapping[str, Array]

    def save(
        self, folder: str | os.PathLike[str], formats: Sequence[Format] = ('png',)
    ) -> list[str]:
        """Writes the figure, an animation as GIF, and its arrays (NPZ); returns the files' names.

        A page is written as HTML, which contains its arrays.
        """
        path = pathlib.Path(folder) / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.figure, Page):
            files.replace(f'{path}.html', self.figure)
            return [f'{self.name}.html']
        with files.writing(f'{path}.npz') as file:
            np.savez_compressed(file, **self.arrays)  # type: ignore[arg-type]
        if isinstance(self.figure, Figure):
            return [*self.figure.save(path, formats), f'{self.name}.npz']
        with files.writing(f'{path}.gif') as file:
            file.write(_animation(self.figure))
        return [f'{self.name}.gif', f'{self.name}.npz']

    def __repr__(self) -> str:
        shapes = (f'{name} {[*np.shape(values)]}' for name, values in self.arrays.items())
        return f'Drawing {self.name}: {", ".join(shapes)}'

    def _repr_png_(self) -> bytes | None:
        return self.figure.png() if isinstance(self.figure, Figure) else None

    def _repr_html_(self) -> str | None:
        if isinstance(self.figure, list):
            return _picture(_animation(self.figure), 'gif', self.name)
        return self.figure._repr_html_() if isinstance(self.figure, Page) else None


class Drawings(tuple[Drawing, ...]):
    """Drawings in the order of the views; a notebook shows them all.

    An index is a number, or the name of a drawing or of a view, whose first drawing it gets:
    `drawings['grad-cam']`.
    """

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        for drawing in self:
            if drawing.name == key.replace('-', '_'):
                return drawing
        raise KeyError(f'no drawing {key!r}; there are {", ".join(each.name for each in self)}')

    def __repr__(self) -> str:
        return '\n'.join(map(repr, self))

    def _repr_html_(self) -> str:
        return '\n'.join(
            each._repr_html_() or _picture(each._repr_png_() or b'', 'png', each.name)
            for each in self
        )


def _picture(content: bytes, kind: str, name: str) -> str:
    coded = base64.b64encode(content).decode()
    return f'<p><img src="data:image/{kind};base64,{coded}" alt="{html.escape(name)}"></p>'


def _animation(figures: Sequence[Figure]) -> bytes:
    """Figures as an animated GIF."""
    frames = [Image.open(io.BytesIO(figure.png(120))).convert('RGB') for figure in figures]
    first, *rest = [frame.quantize(128) for frame in frames]
    pause = [400] * len(rest) + [1600]  # milliseconds; the last layer stays
    out = io.BytesIO()
    first.save(out, 'GIF', save_all=True, append_images=rest, duration=pause, loop=0)
    return out.getvalue()


Drawn = Iterator[Drawing]


class View(NamedTuple):
    """One view; each file of this package defines one as `VIEW`.

    Attributes:
        group: `attention`, `tokens`, `gradients` or `page`.
        draw: maps `Results` to drawings.
        keep: regular expression of the captured paths that it reads; empty for a view of
            parameters or pixels alone.
        gradients: True if it also reads the target's gradients at those paths.
    """

    group: str
    draw: Callable[[Any], Drawn]
    keep: str = ''
    gradients: bool = False
