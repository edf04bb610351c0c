"""Times torch_cka on the features that `benchmark.py similarity` takes.

usage: cka_by_torch.py '[LAYERS, BATCHES, SHAPE]', by a Python that has torch and torch_cka. Prints
JSON: the seconds, and the matrix.
"""
# pyright: reportMissingImports=false

import json
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch_cka import CKA


class Replay(torch.nn.Module):
    """Hands features out as if its layers had made them.

    Attributes:
        features: a tensor [layers, ...] for each batch.
    """

    def __init__(self, features: list[Any], depth: int):
        super().__init__()
        self.features = features
        self.layers = torch.nn.ModuleList(torch.nn.Identity() for _ in range(depth))

    def forward(self, index: Any) -> None:
        for layer, value in zip(self.layers, self.features[int(index)], strict=True):
            layer(value)


def main(depth: int, batches: int, shape: Sequence[int]) -> tuple[float, list[list[float]]]:
    """Seconds, and the similarities of all layers of one side with all of the other."""
    warnings.simplefilter('ignore')

    def features(batch: int, side: int) -> Any:
        rng = np.random.default_rng([batch, side])
        return torch.from_numpy(rng.standard_normal((depth, *shape), dtype=np.float32))

    models = [Replay([features(i, side) for i in range(batches)], depth) for side in (0, 1)]
    names = [f'layers.{i}' for i in range(depth)]
    cka = CKA(*models, 'x', 'y', names, names)
    loader = torch.utils.data.DataLoader(torch.arange(batches)[:, None])
    start = time.perf_counter()
    cka.compare(loader, loader)
    return time.perf_counter() - start, cka.hsic_matrix.tolist()


if __name__ == '__main__':
    print(json.dumps(main(*json.loads(sys.argv[1]))))
