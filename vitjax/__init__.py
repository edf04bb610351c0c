"""ViT, CaiT and PatchConvNet in JAX: train them fast, see what they learnt.

The names that a notebook and an experiment file need are here, imported on first use:

>>> import vitjax
>>> model = vitjax.models.named('vit_tiny_patch16', num_classes=10)
>>> vitjax.Experiment(model).batch_size
256
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitjax.data.augment import Augment
    from vitjax.data.preprocess import Preprocessing
    from vitjax.data.source import Source
    from vitjax.experiment import Experiment
    from vitjax.experiment.distill import Distill
    from vitjax.experiment.optim import Optim
    from vitjax.inside.capture import capture, gradients
    from vitjax.inside.intervene import intervene
    from vitjax.runs import load

__all__ = [
    'Augment', 'Distill', 'Experiment', 'Optim', 'Preprocessing', 'Source', 'capture', 'gradients',
    'intervene', 'load',
]  # fmt: skip

_HOMES = {
    'Augment': 'data.augment',
    'Distill': 'experiment.distill',
    'Experiment': 'experiment',
    'Optim': 'experiment.optim',
    'Preprocessing': 'data.preprocess',
    'Source': 'data.source',
    'capture': 'inside.capture',
    'gradients': 'inside.capture',
    'intervene': 'inside.intervene',
    'load': 'runs',
}


def __getattr__(name: str) -> Any:
    """Imports a name, or a room by its own (`vitjax.models`), on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(f'vitjax.{_HOMES[name]}'), name)
    try:
        return importlib.import_module(f'vitjax.{name}')
    except ModuleNotFoundError as error:
        if error.name != f'vitjax.{name}':
            raise
        raise AttributeError(f'module vitjax has no attribute {name!r}') from None
