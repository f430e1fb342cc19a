"""Backend that runs workers as the jobs of a Slurm array, submitted through submitit."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpo.errors import RequestError, RunError
from hpo.execution.backends.process import RemoteWorker, log_names, storage_url_of
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study
from hpo.utils.home import make_folder
from hpo.utils.paths import study_path

if TYPE_CHECKING:
    import submitit

__all__ = ["Slurm", "SlurmWorker", "parse_slurm_options"]

LISTS = ("setup", "srun_args", "teardown")  # keys that may be given several times
TIME_LIMIT = "timed-out"  # submitit's word for it


@dataclass
class SlurmWorker:
    """Worker as a job of Slurm."""

    job: submitit.Job[None]
    stopping: bool = False

    @property
    def alive(self) -> bool:
        """True while the job waits or runs."""
        return not self.job.done()

    @property
    def failure(self) -> str | None:
        """Reason why it failed, in a line; None while it runs, and if it had no work left or was cancelled by us."""
        if self.alive or self.stopping:
            return None
        error = self.job.exception()
        if error is None:
            return None
        if TIME_LIMIT in str(error):
            return f"job {self.job.job_id} ran into its time limit; launch again, and the next jobs go on"
        return f"job {self.job.job_id}: {_reason(error)}"

    def stop(self) -> None:
        """Cancel the job: Slurm asks its worker for an orderly stop, and kills it after KillWait, 30 s by default."""
        self.stopping = True
        self.job.cancel(check=False)


@dataclass(frozen=True)
class Slurm:
    """Backend of a job array.

    Attributes:
        parameters: options as for `--slurm`: submitit's, any other of sbatch, and `cluster`, which may be `local` to
            try the jobs on this machine.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)

    def start(self, study: Study, options: WorkerOptions) -> list[SlurmWorker]:
        """Submit workers as the jobs of an array; see `Backend`."""
        try:
            import submitit
        except ImportError:
            why = "--backend slurm: needs submitit; install it with: pip install 'torch-hpo[slurm]'"
            raise RequestError(why) from None
        parameters = dict(self.parameters)
        cluster = parameters.pop("cluster", "slurm")
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise RequestError(
                "--backend slurm: sbatch is not found; launch from a machine of the cluster, or try it here with "
                "--slurm cluster=local"
            )
        executor = submitit.AutoExecutor(make_folder(study_path("submitit", study.name)), cluster=cluster)
        try:
            executor.update_parameters(**_to_submitit(parameters, options), name=f"hpo-{study.name}")
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise RequestError(f"--slurm: {' '.join(str(error).split())}") from error
        arguments = options.arguments(study.name)
        names = log_names(options.workers or 1)
        workers = [RemoteWorker.for_study(study, arguments, options.cpus, name) for name in names]
        # sbatch, and submitit's local jobs, take over the environment of whoever submits. The workers are pickled to a
        # file, and so must not have the URL.
        with _environment(OPTUNA_STORAGE=storage_url_of(study)), executor.batch():
            jobs = [executor.submit(worker) for worker in workers]
        return [SlurmWorker(job) for job in jobs]


def parse_slurm_options(texts: Sequence[str]) -> dict[str, Any]:
    """Parse the options of `--slurm KEY=VALUE`; those of `LISTS` become lists.

    Raises:
        RequestError: a text has no `=`, or a key is given twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        if not equals or not key:
            raise RequestError(f"--slurm {text}: write KEY=VALUE, as --slurm partition=gpu")
        if key in LISTS:
            options.setdefault(key, []).append(value)
        elif key in options:
            raise RequestError(f"--slurm {text}: {key} is given twice")
        else:
            options[key] = value
    return options


def parse_minutes(text: str) -> int:
    """Parse a time limit of sbatch as whole minutes: `30`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`.

    Raises:
        RequestError: the text has another form.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise RequestError(f"--slurm time={text}: must be minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:
        hours, minute, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minute, seconds = numbers
    else:
        hours, minute, seconds = 0, *(*numbers, 0)[:2]
    return -(-(int(days or 0) * 86400 + hours * 3600 + minute * 60 + seconds) // 60)


def _to_submitit(parameters: Mapping[str, Any], options: WorkerOptions) -> dict[str, Any]:
    """Return the options under submitit's names: its own, and others that it hands on to sbatch unchanged."""
    import submitit

    own = submitit.SlurmExecutor._valid_parameters()
    if options.gpus and options.gpus != int(options.gpus):
        raise RequestError(f"--gpus {options.gpus:g}: Slurm gives whole GPUs; use 1, or --slurm gres=…")
    shares = {"cpus_per_task": options.cpus, "gpus_per_node": int(options.gpus) if options.gpus else None}
    renamed: dict[str, Any] = {key: value for key, value in shares.items() if value}
    others: dict[str, Any] = {}
    for key, value in parameters.items():
        if key == "time":
            renamed["timeout_min"] = parse_minutes(value)
        elif key in renamed:
            raise RequestError(f"--slurm {key}={value}: --cpus or --gpus sets that already")
        elif key in own:
            renamed[f"slurm_{key}"] = int(value) if str(value).isdigit() else value
        else:
            others[key] = value
    return {**renamed, **({"slurm_additional_parameters": others} if others else {})}


def _reason(error: BaseException) -> str:
    """Return our own error's line in the trace that submitit keeps, or else the trace's first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ours = (line.partition(": ")[2] for line in lines if line.startswith(f"{RunError.__module__}.{RunError.__name__}"))
    return next(ours, lines[0] if lines else type(error).__name__)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
