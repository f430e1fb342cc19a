"""Workers as processes on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpo.execution.backends.process import log_names, read_failure, start_process, storage_url_of
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study
from hpo.utils.home import cores, folder

__all__ = ["Local", "LocalWorker", "count_gpus", "default_worker_count"]


@dataclass
class LocalWorker:
    """A worker process and its log."""

    process: subprocess.Popen[bytes]
    log: Path
    asked: bool = field(default=False)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    @property
    def failure(self) -> str | None:
        """The last line of its log if it ended with an error, else None."""
        return read_failure(self.process, self.log, asked=self.asked)

    def stop(self) -> None:
        """Ask for an orderly stop; asked again, the worker gives its trial back and ends at once."""
        self.asked = True
        if self.alive:
            self.process.send_signal(signal.SIGTERM)


@dataclass(frozen=True)
class Local:
    """Worker processes on this machine, each with its share of the cores and, where there are GPUs, one of them."""

    def start(self, study: Study, options: WorkerOptions) -> list[LocalWorker]:
        """See `Backend`. Threads are for this machine's cores in all: more would be much slower."""
        count = options.workers or default_worker_count(options.device)
        threads = options.cpus or max(1, cores() // count)
        arguments = options.model_copy(update={"cpus": threads}).arguments(study.name)
        logs = folder("logs", study.name)
        devices = count_gpus() if options.device in ("auto", "cuda") else []
        return [
            LocalWorker(
                start_process(arguments, storage_url_of(study), threads, logs / name, more=_one_of(devices, i)),
                logs / name,
            )
            for i, name in enumerate(log_names(count))
        ]


def default_worker_count(device: str) -> int:
    """How many workers a launch without a number has here: one per GPU that they would use, else one per core."""
    if device.startswith("cuda:"):
        return 1
    return (len(count_gpus()) if device != "cpu" else 0) or cores()


def count_gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them: those that it lets us see, else all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [part.strip() for part in visible.split(",") if part.strip()]
        return [] if "-1" in named else named
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    command = [program, "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):  # a driver without a card
        return []
    return found.split()


def _one_of(devices: list[str], i: int) -> Mapping[str, str]:
    return {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if len(devices) > 1 else {}
