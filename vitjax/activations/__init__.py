"""Activations of a whole split: streamed from a model, or kept as memory maps with an index."""

from vitjax.activations.compare import SAMPLES, as_samples, cka, require_same_examples, whole
from vitjax.activations.record import Activations, Stack, evenly, from_array, select
from vitjax.activations.store import INDEX, is_capture, read, write
from vitjax.activations.stream import TOKENS, digest_of, of_path, photographs, stream

__all__ = [
    'INDEX', 'SAMPLES', 'TOKENS', 'Activations', 'Stack', 'as_samples', 'cka', 'digest_of',
    'from_array', 'is_capture', 'of_path', 'photographs', 'read', 'require_same_examples', 'select',
    'evenly', 'stream', 'whole', 'write',
]  # fmt: skip
