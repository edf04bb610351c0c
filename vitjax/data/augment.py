"""Augmentation on the device, inside the step: uint8 images to float images and soft labels."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Augment:
    """What a training image goes through; a strength of 0 is off.

    Attributes:
        size: side in pixels of the model's input.
        enlarge: side in pixels that images are resized to before a random crop to `size`; None is
            `size`, no crop.
        padding: pixels of zeros around the resized image before the random crop.
        flip: probability of a horizontal flip.
        shift: largest translation as a share of the side, each way.
        rotation: largest rotation in turns, each way (0.02 is 7.2 degrees).
        zoom: largest relative change of scale, each way.
        contrast: largest relative change of contrast, each way.
        brightness: largest change of brightness, pixels in 0..1.
        cutout: side of the erased square as a share of the image's.
        mixup: alpha of mixup's Beta distribution (Zhang et al. 2018).
        cutmix: alpha of CutMix's Beta distribution (Yun et al. 2019).
        smoothing: label smoothing.
    """

    size: int = 8
    enlarge: int | None = None
    padding: int = 0
    flip: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0
