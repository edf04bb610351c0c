"""Activations of a whole split: streamed from a model, or stored as memory maps with an index.

x = activations.of_path('runs/digits', split='test')      # computed when read
activations.write(x, 'captured')                          # ... or stored
y = activations.read('captured')
matrix, low, high = activations.cka(x, y)                 # [layers of x, layers of y]
"""

from vitjax.activations.arrays import from_file
from vitjax.activations.compare import cka, is_stored, matrices, open_side, probes, whole
from vitjax.activations.record import Activations, require_same_examples, select, subset
from vitjax.activations.results import write_matrix, write_probes
from vitjax.activations.store import read, write
from vitjax.activations.stream import TOKENS, of_path, stream

__all__ = [
    'TOKENS', 'Activations', 'cka', 'from_file', 'is_stored', 'matrices', 'of_path', 'open_side',
    'probes', 'read', 'require_same_examples', 'select', 'stream', 'subset', 'whole', 'write',
    'write_matrix', 'write_probes',
]  # fmt: skip
