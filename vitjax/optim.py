"""The optimizer: schedule, which parameters decay and which train, AdamW."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Optim:
    """AdamW with warm-up and cosine decay.

    Attributes:
        peak: learning rate after warm-up.
        start: learning rate of the first step.
        end: learning rate of the last step.
        warmup: share of all steps that warm up, 0 to 1.
        decay: weight decay, on kernels only.
        b1: decay rate of the first moment.
        b2: decay rate of the second moment.
        clip: largest global norm of the gradient; 0 does not clip.
        accumulate: batches whose gradients are averaged into one update.
        ema: decay rate of the moving average of parameters; 0 keeps none.
        train: regular expression of the parameter paths that train, as in `head.*`.
        name: adamw or sgd (plain, for comparing ways of spreading a step).
    """

    peak: float = 1e-3
    start: float = 0.0
    end: float = 0.0
    warmup: float = 0.05
    decay: float = 1e-4
    b1: float = 0.9
    b2: float = 0.999
    clip: float = 1.0
    accumulate: int = 1
    ema: float = 0.0
    train: str = '.*'
    name: str = 'adamw'
