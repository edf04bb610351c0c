"""The names of ImageNet's classes."""

import pathlib


def classes() -> tuple[str, ...]:
    """The names of ImageNet-1k's 1,000 classes, in the order of published weights' outputs."""
    lines = pathlib.Path(__file__).with_name('imagenet_classes.txt').read_text('utf-8')
    return tuple(lines.splitlines())
