"""Train an experiment: python scripts/train.py digits --model.depth 6 --out runs/d6."""

import dataclasses
import os
import pathlib
import sys
from typing import Annotated

import command
import tyro


def main() -> int:
    """Parses the experiment's name, then its overrides, and trains."""
    arguments = sys.argv[1:]
    from vitjax import experiment as experiments

    if not arguments or arguments[0].startswith('-'):
        print('usage: train.py EXPERIMENT [--out DIR] [overrides]\n')
        print(f'experiments: {", ".join(experiments.known())}')
        print('train.py EXPERIMENT --help lists what can be overridden.')
        return 0 if arguments and arguments[0] in ('-h', '--help') else 2
    module = experiments.find(arguments[0])

    @dataclasses.dataclass(frozen=True)
    class Run:
        """An experiment and its run directory.

        Attributes:
            out: the run directory.
        """

        experiment: Annotated[
            tyro.conf.AvoidSubcommands[experiments.Experiment], tyro.conf.arg(name='')
        ]
        out: str

    name = pathlib.Path(arguments[0]).stem
    experiment = command.without_own_length(module.experiment, arguments)
    run = tyro.cli(
        Run, default=Run(experiment, f'runs/{name}'), args=arguments[1:],
        prog=f'train.py {arguments[0]}', description=(module.__doc__ or '').split('\n\n')[0],
    )  # fmt: skip
    if 'JAX_COORDINATOR_ADDRESS' in os.environ:  # one of several processes
        import jax

        # On a cluster that jax knows (Slurm, TPU) it finds the two numbers itself.
        numbers = [os.environ.get(n) for n in ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')]
        count, index = (None if n is None else int(n) for n in numbers)
        jax.distributed.initialize(num_processes=count, process_id=index)

    from vitjax import loop

    try:
        loop.train(run.experiment, run.out)
    except loop.Stop as stop:
        print(f'stopped at step {stop.step}; the same command resumes')
        return stop.code
    print('next:')
    print(f'  python scripts/evaluate.py {run.out}')
    print(
        f'  python scripts/visualize.py {run.out} attention --images PHOTO --out {run.out}/figures'
    )
    return 0


if __name__ == '__main__':
    command.guard(main)
