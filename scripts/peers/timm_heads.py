"""Times a loop over heads of timm's model, each zero in one pass by a hook: prints the seconds.

usage: timm_heads.py '[NAME, SIZE, IMAGES, [[LAYER, HEAD], ...], SEED]', by a Python that has torch
and timm, as scripts/benchmark.py intervene calls it. Prints JSON: null if timm has no such model.
"""
# pyright: reportMissingImports=false

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from timm_model import DEVICE, GPU, make, timm_name


def main(
    name: str, size: int, images: int, places: Sequence[Sequence[int]], seed: int
) -> float | None:
    """Seconds of a pass for each place, after one that warms up."""
    known = timm_name(name, size)
    if known is None:
        return None
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision('highest')
    network, inputs = make(known, size).eval(), torch.randn(images, 3, size, size, device=DEVICE)

    def zeroed(layer: int, head: int) -> Any:
        attention = network.blocks[layer].attn
        width = attention.head_dim

        def hook(module: Any, args: Any) -> Any:
            heads = args[0].clone()
            heads[..., head * width : (head + 1) * width] = 0
            return (heads,)

        handle = attention.proj.register_forward_pre_hook(hook)
        out = network(inputs)
        handle.remove()
        return out

    with torch.inference_mode():
        zeroed(*places[0])
        start = time.perf_counter()
        for layer, head in places:
            zeroed(layer, head)
        if GPU:
            torch.cuda.synchronize()
        return time.perf_counter() - start


if __name__ == '__main__':
    print(json.dumps(main(*json.loads(sys.argv[1]))))
