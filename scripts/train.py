"""Train an experiment: python scripts/train.py digits --model.depth 6 --out runs/d6."""

import dataclasses
import importlib.util
import os
import pathlib
import sys
from typing import Annotated, Any

import command
import tyro

ROOT = pathlib.Path(__file__).resolve().parent.parent / 'experiments'


def find(name: str) -> Any:
    """The module of an experiment: a file of experiments/ by its name, or any file by its path.

    Raises:
        ValueError: if there is none, or it has no `experiment`.
    """
    path = pathlib.Path(name) if name.endswith('.py') else ROOT / f'{name}.py'
    if not path.is_file():
        known = ', '.join(sorted(p.stem for p in ROOT.glob('*.py')))
        raise ValueError(f'no experiment {name!r}; there are {known}, or give a path to a file.')
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    sys.path.insert(0, str(path.parent))  # an experiment may build on its neighbour
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, 'experiment'):
        raise ValueError(f'{path} must define `experiment`: it does not.')
    return module


def lasting(experiment: Any, given: set[str]) -> Any:
    """The experiment without its own length, where the command line gives one."""
    if len({'--steps', '--epochs'} & given) == 1:
        return dataclasses.replace(experiment, epochs=None, steps=None)
    return experiment


def main() -> int:
    """Parses the experiment's name, then its overrides, and trains."""
    arguments = sys.argv[1:]
    known = ', '.join(sorted(p.stem for p in ROOT.glob('*.py')))
    if not arguments or arguments[0].startswith('-'):
        print(f'usage: train.py EXPERIMENT [--out DIR] [overrides]\n\nexperiments: {known}')
        print('train.py EXPERIMENT --help lists what can be overridden.')
        return 0 if arguments and arguments[0] in ('-h', '--help') else 2
    module = find(arguments[0])

    from vitjax.experiment import Experiment

    @dataclasses.dataclass(frozen=True)
    class Run:
        """An experiment, and where its run lies.

        Attributes:
            out: the run directory.
        """

        experiment: Annotated[tyro.conf.AvoidSubcommands[Experiment], tyro.conf.arg(name='')]
        out: str

    given = {a.split('=')[0] for a in arguments}
    default = Run(lasting(module.experiment, given), f'runs/{pathlib.Path(arguments[0]).stem}')
    run = tyro.cli(
        Run, default=default, args=arguments[1:], prog=f'train.py {arguments[0]}',
        description=(module.__doc__ or '').split('\n\n')[0],
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
        print(f'stopped at step {stop.step}; the same command goes on from there')
        return stop.code
    print('next:')
    print(f'  python scripts/evaluate.py {run.out}')
    print(
        f'  python scripts/visualize.py {run.out} attention --images PHOTO --out {run.out}/figures'
    )
    return 0


if __name__ == '__main__':
    command.guard(main)
