"""Published weights to parameters of our models, whole or not at all, with their preprocessing."""

from vitjax.pretrained.config import UNSTATED, Stated
from vitjax.pretrained.convert import Parameter, convert, match
from vitjax.pretrained.files import is_folder, read
from vitjax.pretrained.load import fit, load, preprocessing
from vitjax.pretrained.recognise import recognise
from vitjax.pretrained.resize import Change, resize

__all__ = [
    'UNSTATED', 'Change', 'Parameter', 'Stated', 'convert', 'fit', 'is_folder', 'load', 'match',
    'preprocessing', 'read', 'recognise', 'resize',
]  # fmt: skip
