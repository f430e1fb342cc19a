"""Workers as tasks of a Ray cluster that is there already."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.errors import RequestError
from hpo.execution.backends.process import RemoteWorker, log_names, storage_url_of
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study

if TYPE_CHECKING:
    import ray

__all__ = ["Ray", "RayWorker"]

RETRIES = 3  # of a task whose node has died, on another one


@dataclass
class RayWorker:
    """A worker's task."""

    task: ray.ObjectRef[None]
    asked: bool = False

    @property
    def alive(self) -> bool:
        """Whether the task has not ended."""
        import ray

        done, _ = ray.wait([self.task], timeout=0)
        return not done

    @property
    def failure(self) -> str | None:
        """What the task raised, in a line; None where it has not ended, or was asked to."""
        import ray

        if self.alive:
            return None
        try:
            ray.get(self.task)
        except ray.exceptions.TaskCancelledError as error:
            return None if self.asked else _line(error)
        except ray.exceptions.RayTaskError as error:
            return None if self.asked else _line(error.cause or error)
        except ray.exceptions.RayError as error:
            return _line(error)
        return None

    def stop(self) -> None:
        """Ask for an orderly stop; asked again, Ray ends the task at once."""
        import ray

        ray.cancel(self.task, force=self.asked)
        self.asked = True


@dataclass(frozen=True)
class Ray:
    """Tasks with shares of CPUs and GPUs. One whose node dies is run again on another, and ends if no work is left.

    Attributes:
        address: of the cluster, as `HOST:PORT` or `ray://HOST:PORT`; None finds the one that this machine is part of.
    """

    address: str | None = None

    def start(self, study: Study, options: WorkerOptions) -> list[RayWorker]:
        """See `Backend`."""
        self._connect()
        import ray

        count, cpus, gpus = options.workers or 1, options.cpus or 1, options.gpus or 0
        _check_shares(cpus, gpus)
        run = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_run)
        arguments = options.model_copy(update={"cpus": cpus}).arguments(study.name)
        orders = [RemoteWorker.of(study, arguments, cpus, name) for name in log_names(count)]
        # The URL goes through the cluster's memory, and into the worker's environment on its node. As a `runtime_env`
        # it would be written to Ray's logs (runtime_env_agent.log) with its password.
        url = storage_url_of(study)
        return [RayWorker(run.options(name=f"hpo worker {study.name}").remote(order, url)) for order in orders]

    def _connect(self) -> None:
        """Join the cluster.

        Raises:
            RequestError: Ray is not installed, or there is no cluster.
        """
        # Attempts to reach the cluster, seconds each; of Ray's own 20 a wrong address would take minutes.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")
        try:
            import ray
        except ImportError:
            raise RequestError("--backend ray: needs Ray; install it with: pip install 'torch-hpo[ray]'") from None
        if ray.is_initialized():
            return
        try:
            ray.init(self.address or "auto", log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of its own kinds, and of gRPC's
            where = f"at {self.address}" if self.address else "here"
            raise RequestError(
                f"--backend ray: no Ray cluster {where} ({_line(error)}); start one with: ray start --head, or name it "
                "with --address"
            ) from error


def _run(order: RemoteWorker, url: str) -> None:
    order(url)


def _check_shares(cpus: int, gpus: float) -> None:
    """Refuse what no node could ever hold: its tasks would wait for good.

    Raises:
        RequestError: says what the largest nodes have.
    """
    import ray

    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in known if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        held = ", ".join(sorted({f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes}))
        raise RequestError(
            f"--backend ray: no node has {cpus} CPUs and {gpus:g} GPUs for a worker; they have {held or 'none'}"
        )


def _line(error: Any) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
