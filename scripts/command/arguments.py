"""Arguments that several commands share: types, and their texts of `--help`.

A command's other texts are the docstring of its `main`, or the fields' of its dataclasses.

Args:
    weights: run directory, or published weights: a .safetensors or .npz file, a folder with
        model.safetensors and config.json, or hf-hub:owner/name.
    model: name of the model if the weights do not state it, as in deit_small_patch16.
    size: side of the model's input in pixels, by default its own; positions are resampled.
    image_size: side of the model's input in pixels, by default its own; positions are resampled.
    which: checkpoint of a run: best by validation accuracy, or latest.
    stated: facts about the weights that override the files beside them.
    data: digits, tfds:NAME or folder:PATH (a folder for each class); by default the run's own.
    split: split of the data.
    examples: number of images, spread evenly over the split; all by default.
    keep: regular expression of captured paths, as in 'blocks|embed' (capture.py A --paths lists
        them); by default the blocks, or all of a capture.
    tokens: class token, mean of the patches, the patches, or all tokens; by default the class
        token, or the mean if the model has none.
    layers: first and last layer of each stack, from 1; all by default.
    square: side in pixels of the squares by whose digests captures recognize image files; the
        model's input is made from the file itself.
    format: file formats of the figures: png, pdf, svg.
    repeats: repetitions; results are their median.
"""

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from vitjax.base.ranges import Count

Loaded = Annotated[Positional[str], arg(metavar='RUN_OR_WEIGHTS')]
Split = Literal['train', 'validation', 'test']
Tokens = Literal['class', 'mean', 'patches', 'all'] | None
Layers = tuple[Count, Count] | None


def documented(main: Callable[..., Any]) -> str:
    """Returns a function's docstring with the texts of the shared arguments that it leaves out."""
    own = inspect.cleandoc(main.__doc__ or '')  # as Python 3.13 stores it
    if '\nArgs:\n' not in own:
        own += '\n\nArgs:\n'
    shared = re.findall(r'^    (\w+): ((?:.|\n {8})+)', __doc__ or '', re.MULTILINE)
    for name, text in shared:
        if name in inspect.signature(main).parameters and f'\n    {name}: ' not in own:
            own = f'{own.rstrip()}\n    {name}: {" ".join(text.split())}\n'
    # tyro keeps the line breaks inside a description, and then breaks lines itself.
    return re.sub(r'\n {8,}', ' ', own)
