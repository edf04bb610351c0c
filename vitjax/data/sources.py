"""Where images come from: digits, TFDS, folders; all to uint8 images and integer labels."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Source:
    """Which images to train and test on.

    Attributes:
        name: `digits`, `tfds:NAME` (as in tfds:cifar10) or `folder:PATH`.
        dir: where TFDS has its prepared data; None takes TFDS_DATA_DIR or ~/tensorflow_datasets.
        validation: share of the training images held out when there is no validation split.
        test: share held out of a single folder that has no test split.
        size: side in pixels that images of unequal sizes are resized to while being decoded.
        memory: most bytes that decoded images may take.
    """

    name: str = 'digits'
    dir: str | None = None
    validation: float = 0.1
    test: float = 0.1
    size: int | None = None
    memory: int = 8 * 2**30
