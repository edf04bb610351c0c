"""Runs as cluster jobs, through submitit."""

import json
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal

from vitjax.experiment import Experiment, find, from_json, imports, registry, to_json
from vitjax.experiment import hooks as hooks_of

Launcher = Literal['processes', 'slurm']
_PORTS = 61_440, 4_096  # first and count, as jax chooses one under Slurm


def executor(
    folder: str | pathlib.Path, launcher: Launcher, settings: Mapping[str, Any] | None = None
) -> Any:
    """An executor of submitit.

    Args:
        folder: folder of the jobs' files and logs.
        launcher: `slurm`, or `processes` of this machine.
        settings: its parameters, `{'slurm_partition': 'gpu', 'timeout_min': 60}` for instance.

    Raises:
        ValueError: without submitit, and for a setting that it refuses.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError(
            f"the launcher {launcher!r} needs submitit: pip install -e '.[cluster]'."
        ) from None
    cluster = {'slurm': 'slurm', 'processes': 'local'}[launcher]
    try:
        made = submitit.AutoExecutor(folder, cluster=cluster)
        made.update_parameters(**{'name': 'vitjax', 'timeout_min': 24 * 60, **(settings or {})})
    except (NameError, TypeError, RuntimeError) as error:
        raise ValueError(f'submitit refuses a setting of {launcher}: {error}') from None
    return made


def pack(experiment: Experiment, hooks: str | None = None) -> str:
    """An experiment as a job gets it: plain values, since the job imports in its own process.

    Args:
        experiment: any.
        hooks: file of the experiment, if it has `hooks`.
    """
    values = {'experiment': to_json(experiment), 'imports': imports(experiment), 'hooks': hooks}
    return json.dumps(values)


def unpack(text: str) -> tuple[Experiment, tuple[Any, ...]]:
    """The experiment that was packed, its users' modules imported, and its hooks."""
    values = json.loads(text)
    for name in values['imports']:
        registry.require(name)
    called = hooks_of(find(values['hooks'])) if values['hooks'] else ()
    return from_json(values['experiment']), called


class Job:
    """A job; a scheduler that stops it before its time starts it again."""

    __call__: Callable[..., Any]  # of each kind of job

    def checkpoint(self, *args: Any) -> Any:
        """The job that submitit submits again after one that ran out of time: it resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *args)


class Training(Job):
    """A run as a job of one process or several, on one machine or several."""

    def __call__(self, text: str, out: str, report: bool = True) -> None:
        """Trains the experiment that `text` packs in `out`.

        Raises:
            Exception: whatever ended it. One of several processes exits without raising, unless all
                stop.
        """
        from vitjax import loop
        from vitjax.base import processes

        experiment, hooks = unpack(text)
        processes.start(experiment.parallel, experiment.batch_size, _environment())
        try:
            loop.train(experiment, out, hooks=hooks)
            if report:
                from vitjax import report as reports

                print(reports.attempt(out), end='')
        except BaseException as error:
            alike = loop.Stop, processes.Disagreement  # which all of them raise
            if isinstance(error, alike) or not processes.joined:
                raise
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # jax would wait for the others


def _environment() -> Mapping[str, str]:
    """This process's environment, with the address of the others; Slurm's has it already."""
    import submitit

    here = submitit.JobEnvironment()
    if 'SUBMITIT_LOCAL_JOB_ID' not in os.environ or here.num_tasks < 2:
        return os.environ
    first, count = _PORTS
    return {
        **os.environ,
        'JAX_COORDINATOR_ADDRESS': f'localhost:{first + int(here.job_id) % count}',
        'JAX_NUM_PROCESSES': str(here.num_tasks),
        'JAX_PROCESS_ID': str(here.global_rank),
    }


def train(
    experiment: Experiment, out: str | pathlib.Path, launcher: Launcher,
    settings: Mapping[str, Any] | None = None, *, report: bool = True, hooks: str | None = None,
) -> Any:  # fmt: skip
    """Submits a run as one job.

    Its tasks (`nodes` times `tasks_per_node` of `settings`) are processes that train as one. Its
    logs are in `OUT-jobs`. `hooks` is the experiment's file, if it has any.

    Returns:
        submitit's job.

    Raises:
        ValueError: as `executor`, and for another configuration than that of `out`.
    """
    from vitjax import runs

    out = pathlib.Path(out).absolute()
    runs.require_same(experiment, out)
    jobs = executor(out.with_name(f'{out.name}-jobs'), launcher, settings)
    return jobs.submit(Training(), pack(experiment, hooks), str(out), report)
