"""Backend that runs workers as tasks of an existing Ray cluster."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.errors import RequestError
from hpo.execution.backends.process import RemoteWorker, log_names, storage_url_of
from hpo.execution.threads import choose_threads
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study

if TYPE_CHECKING:
    import ray

__all__ = ["Ray", "RayWorker"]

RETRIES = 3  # of a task whose node has died, on another node


@dataclass
class RayWorker:
    """Worker as a task of Ray."""

    task: ray.ObjectRef[None]
    stopping: bool = False

    @property
    def alive(self) -> bool:
        """True until the task has ended."""
        import ray

        done, _ = ray.wait([self.task], timeout=0)
        return not done

    @property
    def failure(self) -> str | None:
        """Error of the task, in a line; None while it runs, and if it was asked to stop."""
        import ray

        if self.alive:
            return None
        try:
            ray.get(self.task)
        except ray.exceptions.TaskCancelledError as error:
            return None if self.stopping else _line(error)
        except ray.exceptions.RayTaskError as error:
            return None if self.stopping else _line(error.cause or error)
        except ray.exceptions.RayError as error:
            return _line(error)
        return None

    def stop(self) -> None:
        """Ask for an orderly stop; when asked again, let Ray end the task at once."""
        import ray

        ray.cancel(self.task, force=self.stopping)
        self.stopping = True


@dataclass(frozen=True)
class Ray:
    """Backend of tasks with shares of CPUs and GPUs. A task whose node dies is run again on another node.

    Attributes:
        address: address of the cluster, `HOST:PORT` or `ray://HOST:PORT`; None finds the one this machine belongs to.
    """

    address: str | None = None

    def start(self, study: Study, options: WorkerOptions) -> list[RayWorker]:
        """Start workers as tasks; see `Backend`."""
        self._connect()
        import ray

        count, gpus = options.workers or 1, options.gpus or 0
        cpus = choose_threads(study, options.cpus, lambda: 1)
        _check_shares(cpus, gpus)
        run = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_run)
        arguments = options.model_copy(update={"cpus": cpus}).arguments(study.name)
        workers = [RemoteWorker.for_study(study, arguments, cpus, name) for name in log_names(count)]
        # The URL goes through the cluster's memory, and into the worker's environment on its node. As a `runtime_env`
        # it would be written to Ray's logs (runtime_env_agent.log) with its password.
        url = storage_url_of(study)
        return [RayWorker(run.options(name=f"hpo worker {study.name}").remote(worker, url)) for worker in workers]

    def _connect(self) -> None:
        """Join the cluster.

        Raises:
            RequestError: Ray is not installed, or there is no cluster.
        """
        # Attempts to reach the cluster, of some seconds each; with Ray's 20 a wrong address would take minutes.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")
        try:
            import ray
        except ImportError:
            raise RequestError("--backend ray: needs Ray; install it with: pip install 'torch-hpo[ray]'") from None
        if ray.is_initialized():
            return
        try:
            ray.init(self.address or "auto", log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray's own kinds, and gRPC's
            where = f"at {self.address}" if self.address else "here"
            raise RequestError(
                f"--backend ray: no Ray cluster {where} ({_line(error)}); start one with: ray start --head, or name it "
                "with --address"
            ) from error


def _run(worker: RemoteWorker, url: str) -> None:
    worker(url)


def _check_shares(cpus: int, gpus: float) -> None:
    """Refuse workers that fit on no node: their tasks would wait forever.

    Raises:
        RequestError: no node is large enough; the line says what the nodes have.
    """
    import ray

    all_nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in all_nodes if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        sizes = ", ".join(sorted({f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes}))
        raise RequestError(
            f"--backend ray: no node has {cpus} CPUs and {gpus:g} GPUs for a worker; they have {sizes or 'none'}"
        )


def _line(error: Any) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
