"""Runs as cluster jobs, through submitit."""

import json
import os
import pathlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vitjax.experiment import Experiment, find, from_json, registry, to_json
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


class Training:
    """A run as a job of one process or several, on one machine or several.

    A scheduler that stops it before its time starts it again.
    """

    def __call__(
        self, text: str, out: str, report: bool = True, imports: Sequence[str] = (),
        hooks: str | None = None,
    ) -> None:  # fmt: skip
        """Trains the experiment that is `text` in `out`.

        Args:
            text: the experiment as JSON.
            out: run directory.
            report: write report.html into it at the end.
            imports: users' modules, as `registry.require` takes them.
            hooks: file of the experiment whose `hooks` are called.

        Raises:
            Exception: whatever ended it. One of several processes exits without raising, unless all
                stop.
        """
        from vitjax import loop
        from vitjax.base import processes

        for name in imports:
            registry.require(name)
        experiment = from_json(json.loads(text))
        processes.start(experiment.parallel, experiment.batch_size, _environment())
        try:
            loop.train(experiment, out, hooks=hooks_of(find(hooks)) if hooks else ())
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

    def checkpoint(self, *args: Any) -> Any:
        """The job that submitit submits again after one that ran out of time: it resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *args)


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
    text = json.dumps(to_json(experiment))
    return jobs.submit(Training(), text, str(out), report, [*registry.imported], hooks)
