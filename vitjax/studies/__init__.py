"""Studies of what a trained model hangs on: the same edit at one place after another, measured."""

from vitjax.studies.common import Samples, Study, samples
from vitjax.studies.heads import heads
from vitjax.studies.knockout import knockout
from vitjax.studies.lesion import lesion
from vitjax.studies.patch import patch
from vitjax.studies.seeds import across
from vitjax.studies.steer import steer

__all__ = [
    'Samples', 'Study', 'across', 'heads', 'knockout', 'lesion', 'patch', 'samples', 'steer'
]  # fmt: skip
