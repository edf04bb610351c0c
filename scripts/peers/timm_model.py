"""Times timm's model of our name as scripts/benchmark.py times ours; prints the medians in seconds.

usage: timm_model.py '[NAME, SIZE, BATCH, DTYPE, REPEATS]', by a Python that has torch and timm.
Prints a JSON list: inference, forward and backward, a training step with AdamW; an empty one if
timm has no such model. Parameters stay float32 where they train, as ours do.
"""
# pyright: reportMissingImports=false

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import timm
import torch

GPU = torch.cuda.is_available()
DEVICE = 'cuda' if GPU else 'cpu'


def main(name: str, size: int, batch: int, dtype: str, repeats: int) -> list[float]:
    """Seconds of the three passes, in the order in which ours are measured."""
    known = timm_name(name, size)
    if known is None:
        return []
    torch.set_float32_matmul_precision('highest')
    half = dtype == 'bfloat16'
    images = torch.randn(batch, 3, size, size, device=DEVICE)
    labels = torch.arange(batch, device=DEVICE)

    inferring, inputs = make(known, size).eval(), images
    if half:
        inferring, inputs = inferring.bfloat16(), images.bfloat16()
    forward = fastest(inferring)
    with torch.inference_mode():
        times = [median(lambda: forward(inputs), repeats)]

    training = make(known, size).train()
    trained, optimizer = fastest(training), torch.optim.AdamW(training.parameters(), 1e-4)

    def backward(loss: Callable[[Any], Any]) -> None:
        training.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=half):
            out = trained(images)
        loss(out.float()).backward()

    def step() -> None:
        backward(lambda out: torch.nn.functional.cross_entropy(out, labels))
        optimizer.step()

    times.append(median(lambda: backward(lambda out: out.square().sum()), repeats))
    return [*times, median(step, repeats)]


def timm_name(name: str, size: int) -> str | None:
    """Name of our model in timm; None if it has none."""
    return next((n for n in (f'{name}_{size}', f'{name}_224', name) if timm.is_model(n)), None)


def make(name: str, size: int) -> Any:
    """Timm's model, for images of `size` pixels."""
    try:
        network = timm.create_model(name, img_size=size)
    except TypeError:  # a model that takes any size
        network = timm.create_model(name)
    return network.to(DEVICE)


def fastest(network: Any) -> Any:
    """The model as its users would run it."""
    return torch.compile(network) if GPU else network


def median(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of a call, the device synchronised, after three that warm up."""
    took = []
    for _ in range(3 + repeats):
        start = time.perf_counter()
        run()
        if GPU:
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return statistics.median(took[3:])


if __name__ == '__main__':
    print(json.dumps(main(*json.loads(sys.argv[1]))))
