"""Runs as cluster jobs, through submitit."""

import json
import os
import pathlib
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Literal

from vitjax.experiment import Experiment, from_json, to_json

Launcher = Literal['processes', 'slurm']
_PORTS = 61_440, 4_096  # as jax chooses one under Slurm: the first, and how many


def executor(
    folder: str | pathlib.Path, launcher: Launcher, settings: Mapping[str, Any] | None = None
) -> Any:
    """An executor of submitit.

    Args:
        folder: where jobs have their files and logs.
        launcher: `slurm`, or `processes` of this machine.
        settings: its parameters, as in `{'slurm_partition': 'gpu', 'timeout_min': 60}`.

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


class Training:
    """A run as a job of one process or several, on one machine or several.

    A scheduler that stops it before its time starts it again.
    """

    def __call__(self, text: str, out: str, report: bool = True) -> None:
        """Trains the experiment that is `text` in `out`.

        Raises:
            Exception: whatever ended it; one of several processes leaves without, unless all stop.
        """
        from vitjax import loop
        from vitjax.base import processes

        experiment = from_json(json.loads(text))
        processes.start(experiment.parallel, experiment.batch_size, _environment())
        try:
            loop.train(experiment, out)
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

    def checkpoint(self, text: str, out: str, report: bool = True) -> Any:
        """What submitit submits again for a job that ran out of time: it resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, text, out, report)


def _environment() -> Mapping[str, str]:
    """This process's, with what says where the others are; Slurm's own says it already."""
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
    settings: Mapping[str, Any] | None = None, *, report: bool = True,
) -> Any:  # fmt: skip
    """Submits a run as one job.

    Its tasks (`nodes` times `tasks_per_node` of `settings`) are processes that train as one. Its
    logs are in `OUT-jobs`.

    Returns:
        submitit's job.

    Raises:
        ValueError: as `executor`, and for another configuration than that of `out`.
    """
    from vitjax import runs

    out = pathlib.Path(out).absolute()
    runs.require_same(experiment, out)
    jobs = executor(out.with_name(f'{out.name}-jobs'), launcher, settings)
    return jobs.submit(Training(), json.dumps(to_json(experiment)), str(out), report)
