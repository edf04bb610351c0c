"""Studies of what a trained model relies on: one edit at place after place, its effects measured.

To add a study, write `studies/NAME.py` with a function `NAME(runner, *, options) -> Study`, and
enter it in `STUDIES`.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitjax.studies.runner import Runner, Study

# Each is a file of this package, imported on use: commands list them before they load a model.
STUDIES = {
    'heads': 'zero or mean-ablate each head of each layer, against the first-order estimate',
    'patch': 'patch in tokens of the next image, or of the image with noise, position by position',
    'knockout': "cut the class token's attention to regions, layer by layer",
    'lesion': 'skip, swap, repeat and remove layers, and measure accuracy',
    'steer': "add the difference of two classes' means at a layer",
}


def run(name: str, runner: 'Runner', **options: Any) -> 'Study':
    """Runs the study of a name in `STUDIES`.

    Raises:
        ValueError: for an unknown study or option, and whatever the study refuses.
    """
    if unknown := [option for option in options if option not in options_of(name)]:
        there = ', '.join(options_of(name)) or 'none'
        raise ValueError(f'{name} has no option {unknown[0]!r}; there are {there}.')
    return _find(name)(runner, **options)


def options_of(name: str) -> tuple[str, ...]:
    """Names of a study's options, its keyword-only arguments."""
    parameters = inspect.signature(_find(name)).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def _find(name: str) -> Callable[..., 'Study']:
    if name not in STUDIES:
        raise ValueError(f'no study is named {name!r}; there are {", ".join(STUDIES)}.')
    return vars(importlib.import_module(f'vitjax.studies.{name}'))[name]
