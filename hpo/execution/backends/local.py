"""Backend that runs workers as processes on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpo.execution.backends.process import log_names, read_failure, start_process, storage_url_of
from hpo.execution.threads import choose_threads
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study
from hpo.utils.home import cores, folder

__all__ = ["Local", "LocalWorker", "count_gpus", "default_worker_count"]


@dataclass
class LocalWorker:
    """Worker process with its log."""

    process: subprocess.Popen[bytes]
    log: Path
    stopping: bool = field(default=False)

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self.process.poll() is None

    @property
    def failure(self) -> str | None:
        """Last line of its log if it ended with an error, else None."""
        return read_failure(self.process, self.log, stopping=self.stopping)

    def stop(self) -> None:
        """Ask for an orderly stop; when asked again, the worker releases its trials and ends at once."""
        self.stopping = True
        if self.alive:
            self.process.send_signal(signal.SIGTERM)


@dataclass(frozen=True)
class Local:
    """Backend of processes on this machine, each with its share of the cores and one of the GPUs, if there are any."""

    def start(self, study: Study, options: WorkerOptions) -> list[LocalWorker]:
        """Start worker processes, which share the cores as threads, for more threads would be much slower."""
        count = options.workers or default_worker_count(options.device)
        threads = choose_threads(study, options.cpus, lambda: max(1, cores() // count))
        arguments = options.model_copy(update={"cpus": threads}).arguments(study.name)
        logs = folder("logs", study.name)
        devices = count_gpus() if options.device in ("auto", "cuda") else []
        return [
            LocalWorker(
                start_process(arguments, storage_url_of(study), threads, logs / name, extra_env=_one_of(devices, i)),
                logs / name,
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
