"""A small experiment on digits, and a grid of which one cell is impossible."""

from vitjax.data.augment import Augment
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.experiment.optim import Optim
from vitjax.models import ViT

TINY = Experiment(
    ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10),
    data=Source('digits'),
    augment=Augment(size=8),
    optim=Optim(peak=3e-3),
    batch_size=64,
    steps=6,
    evaluate_every=0.1,
    parallel='none',
)
GRID = {'model.patch_size': (2, 3, 4)}  # 3 does not divide 8
