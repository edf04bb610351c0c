"""Activations of a whole split: streamed from a model, or kept as memory maps with an index.

x = activations.of_path('runs/digits', split='test')      # computed when it is read
activations.write(x, 'captured')                          # ... or kept
y = activations.read('captured')
matrix, low, high = activations.cka(x, y)                 # [layers of x, layers of y]
"""

from vitjax.activations.compare import METRICS, cka, matrices, open_side, probes, whole
from vitjax.activations.record import Activations, from_array, require_same_examples, select, subset
from vitjax.activations.results import write_matrix, write_probes
from vitjax.activations.store import is_capture, read, write
from vitjax.activations.stream import TOKENS, digest_of, of_path, stream

__all__ = [
    'METRICS', 'TOKENS', 'Activations', 'cka', 'digest_of', 'from_array', 'is_capture',
    'matrices', 'of_path', 'open_side', 'probes', 'read', 'require_same_examples', 'select',
    'stream', 'subset', 'whole', 'write', 'write_matrix', 'write_probes',
]  # fmt: skip
