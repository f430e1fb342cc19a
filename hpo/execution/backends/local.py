"""Backend that runs workers as processes on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from hpo.execution.backends.process import WorkerProcess, log_names, start_process, storage_url_of
from hpo.execution.threads import choose_threads
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study
from hpo.utils.home import cores, make_folder
from hpo.utils.paths import study_path

__all__ = ["Local", "LocalWorker", "count_gpus", "default_worker_count"]


@dataclass
class LocalWorker:
    """Worker process of a study."""

    worker: WorkerProcess
    study: Study
    stopping: bool = False

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self.worker.process.poll() is None

    @property
    def failure(self) -> str | None:
        """Reason why it failed, in a line; see `WorkerHandle`."""
        return self.worker.read_failure(self.study, stopping=self.stopping)

    def stop(self) -> None:
        """Ask for an orderly stop; when asked again, the worker releases its trials and ends at once."""
        self.stopping = True
        if self.alive:
            self.worker.process.send_signal(signal.SIGTERM)


@dataclass(frozen=True)
class Local:
    """Backend of processes on this machine, each with its share of the cores and one of the GPUs, if there are any."""

    def start(self, study: Study, options: WorkerOptions) -> list[LocalWorker]:
        """Start worker processes, which share the cores as threads, for more threads would be much slower."""
        count = options.workers or default_worker_count(options.device)
        threads = choose_threads(study, options.cpus, lambda: max(1, cores() // count))
        arguments = options.model_copy(update={"cpus": threads}).arguments(study.name)
        logs = make_folder(study_path("logs", study.name))
        devices = count_gpus() if options.device in ("auto", "cuda") else []
        return [
            LocalWorker(
                start_process(arguments, storage_url_of(study), threads, logs / name, extra_env=_one_of(devices, i)),
                study,
            )
            for i, name in enumerate(log_names(count))
        ]


def default_worker_count(device: str) -> int:
    """Return the default number of workers: one per GPU that they would use, else one per core."""
    if device.startswith("cuda:"):
        return 1
    return (len(count_gpus()) if device != "cpu" else 0) or cores()


def count_gpus() -> list[str]:
    """List the GPUs of this machine: those that CUDA_VISIBLE_DEVICES names, else the ids of all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [part.strip() for part in visible.split(",") if part.strip()]
        return [] if "-1" in names else names
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    command = [program, "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):  # a driver without a GPU
        return []
    return output.split()


def _one_of(devices: list[str], i: int) -> Mapping[str, str]:
    return {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if len(devices) > 1 else {}
