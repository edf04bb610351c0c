"""Image files, safely, and the preprocessing that a model expects of a photograph."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What turns an image into a model's input.

    The short side is resized to `size / crop` pixels, the central `size` x `size` cut out, pixels
    scaled to 0..1, then normalised per channel.

    Attributes:
        size: side of the square input in pixels.
        crop: share of the short side that the input covers, 0 to 1.
        mean: per channel, of pixels in 0..1.
        deviation: per channel, of pixels in 0..1.
    """

    size: int = 224
    crop: float = 0.875
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet's
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)
