"""ViT, CaiT and PatchConvNet in JAX: train them fast, see what they learnt."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """Modules are imported on first use: `vitjax.models.named(...)` after `import vitjax`."""
    try:
        return importlib.import_module(f'vitjax.{name}')
    except ModuleNotFoundError as error:
        if error.name != f'vitjax.{name}':
            raise
        raise AttributeError(f'module vitjax has no attribute {name!r}') from None
