"""Many runs: a grid of settings, each with several seeds, to one table with intervals."""

from vitjax.ablation.grid import Cell, Grid, Row, cells, cost, match_flops, plan, replaced
from vitjax.ablation.launch import Job, run, train_cell
from vitjax.ablation.table import ACCURACIES, finished, interval, seed_summary, summary

__all__ = [
    'ACCURACIES', 'Cell', 'Grid', 'Job', 'Row', 'cells', 'cost', 'finished', 'interval',
    'match_flops', 'plan', 'replaced', 'run', 'seed_summary', 'summary', 'train_cell',
]  # fmt: skip
