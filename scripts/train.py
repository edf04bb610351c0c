"""Train an experiment: python scripts/train.py digits --model.depth 6 --out runs/d6."""

import dataclasses
import os
from typing import Annotated, Any

import command
from tyro.conf import AvoidSubcommands, arg

from vitjax.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Run:
    """An experiment and its run directory.

    Attributes:
        out: the run directory.
        report: write report.html into it at the end.
    """

    experiment: Annotated[AvoidSubcommands[Experiment], arg(name='')]
    out: str
    report: bool = True


def main() -> int:
    """Parses the experiment's name, then its overrides, and trains."""
    usage = '[--out DIR] [--no-report] [overrides]'
    run, _ = command.of_experiment(Run, 'runs', usage=usage, does='')
    if 'JAX_COORDINATOR_ADDRESS' in os.environ:  # one of several processes
        import jax

        # On a cluster that jax knows (Slurm, TPU) it finds the two numbers itself.
        numbers = [os.environ.get(n) for n in ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')]
        count, index = (None if n is None else int(n) for n in numbers)
        jax.distributed.initialize(num_processes=count, process_id=index)

    from vitjax import loop

    try:
        loop.train(run.experiment, run.out)
        if run.report:
            from vitjax import report

            print(report.attempt(run.out), end='')
    except loop.Stop as stop:
        print(f'stopped at step {stop.step}; the same command resumes')
        return stop.code
    model: Any = run.experiment.model
    # A network without tokens has no attention to be seen.
    views = 'all' if model.trunk.stacks else 'gradients activations'
    print(
        f'next:\n  python scripts/evaluate.py {run.out}\n'
        f'  python scripts/visualize.py {run.out} {views} --images PHOTO --out {run.out}/figures'
    )
    return 0


if __name__ == '__main__':
    command.guard(main)
