"""Train an experiment: python scripts/train.py digits --model.depth 6 --out runs/d6."""

import dataclasses
import re
import shlex
from typing import Annotated, Any, Literal

import command
from tyro.conf import AvoidSubcommands, arg

from vitjax import experiment as experiments
from vitjax.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Run:
    """An experiment and its run directory.

    Attributes:
        out: run directory; the same command resumes a run that was stopped.
        report: write report.html into the run directory at the end.
        launcher: here; processes, several of this machine; or slurm, one job of a cluster. The last
            two need submitit (the cluster extra).
        job: settings of the job for submitit, as in `nodes=2 tasks_per_node=8 gpus_per_node=8`.
    """

    experiment: Annotated[AvoidSubcommands[Experiment], arg(name='')]
    out: str
    report: bool = True
    launcher: Literal['here', 'processes', 'slurm'] = 'here'
    job: tuple[str, ...] = ()


def main() -> int:
    """Parses the experiment's name, then its overrides, and trains."""
    usage = '[--out DIR] [--no-report] [--launcher slurm --job NAME=VALUE ...] [overrides]'
    run, module = command.of_experiment(Run, 'runs', usage=usage, does='Train: ')
    if run.launcher != 'here':
        return submit(run, module)
    from vitjax import loop
    from vitjax.base import processes

    processes.start(run.experiment.parallel, run.experiment.batch_size)
    try:
        with command.as_flags(command.dotted(run.experiment)):
            loop.train(run.experiment, run.out, hooks=experiments.hooks(module))
        if run.report:
            from vitjax import report

            print(report.attempt(run.out), end='')
    except loop.Stop as stop:
        print(stop)
        return stop.code
    model: Any = run.experiment.model
    # A network without tokens has no attention.
    views = 'all' if model.trunk.stacks else 'gradients activations'
    print(f'next:\n  {command.program(run.out, script="evaluate")}')
    visualize = command.program(run.out, *views.split(), script='visualize')
    print(f'  {visualize} --images PHOTO --out {shlex.quote(f"{run.out}/figures")}')
    return 0


def submit(run: Run, module: Any) -> int:
    """Submits the run as a job; waits for one of this machine."""
    from vitjax.loop import cluster

    assert run.launcher != 'here'
    given = command.settings(run.job)
    job = cluster.train(
        run.experiment, run.out, run.launcher, given, report=run.report,
        hooks=module.__file__ if experiments.hooks(module) else None,
    )  # fmt: skip
    print(f'job {job.job_id} is submitted; its logs: {job.paths.stdout}, {job.paths.stderr}')
    if run.launcher == 'slurm':
        return 0
    try:
        job.results()
    except Exception as error:  # any that the job raised
        trace = re.split(r'\n-+\n', str(error))[:2][-1]  # between rules; then where its logs are
        last = trace.strip().splitlines()[-1]
        raise ValueError(f'job {job.job_id} failed: {last}; see its logs.') from None
    print(f'job {job.job_id} is done; the run is in {run.out}')
    return 0


if __name__ == '__main__':
    command.guard(main)
